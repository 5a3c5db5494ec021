"""What a provider's module offers, and strict loading of it by name.

A provider is one module in `providers/` and one folder of recorded requests. The module is
functions and tables; `docs/add-a-provider.md` walks through one. Names in capitals are data:

    TITLE, DOCS       the provider's name for people; the URL of its webhook documentation
    SETUP             how to set it up at the provider, for people
    SIGNATURE         how it proves that a request is its own: a `relay.verify.Signature`
    parse             Received -> the events in it, with their ids and types
    EVENTS            event type -> mapper (Event -> Payment | Ignored)
    IGNORED           event type -> why it is never forwarded (optional)
    SETTINGS          what a source of this provider can or must set besides (optional)
    fetch             Event, Api -> complete events, for providers whose webhooks are thin (optional)
    challenge         Received, Trust -> Reply | None, for handshakes and probes (optional)
    acknowledge       () -> Reply, where a plain 200 is not enough (optional)
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import providers
from relay.errors import RelayError
from relay.model import Event, Ignored, Payment, Received, Reply, Trust
from relay.payload import Payload
from relay.verify import Signature

Mapper = Callable[[Event], Payment | Ignored]


class Api(Protocol):
    """The provider's API, as `fetch` sees it: reads only, pinned to the source's `api_base`."""

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        """The JSON at `path`. Raises FetchError."""
        ...

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        """The same for what is good to have: None when the provider refuses or does not know it."""
        ...

    def ask(self, path: str, question: Mapping[str, Any]) -> Payload:
        """The JSON that a question, JSON too, is answered with, where reading is a POST.

        What follows a `#` in `path` is not sent: it tells the answers of one address apart.
        """
        ...


@dataclass(frozen=True)
class Setting:
    """One setting of a source, in its provider's own words. The type follows from `default`."""

    name: str
    help: str
    default: str | bool | None = None
    required: bool = False
    secret: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How to set the provider up, in plain text for people (and for `relay providers NAME`)."""

    where: str
    events: tuple[str, ...]
    secret: str
    visitor: str
    checkout: str
    notes: str = ""


@dataclass(frozen=True)
class Provider:
    """A loaded provider; the fields are described at the top of this file."""

    name: str
    title: str
    docs: str
    about: str
    setup: Setup
    signature: Signature
    parse: Callable[[Received], list[Event]]
    events: Mapping[str, Mapper]
    ignored: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    fetch: Callable[[Event, Api], list[Event]] | None = None
    challenge: Callable[[Received, Trust], Reply | None] | None = None
    acknowledge: Callable[[], Reply] = Reply

    def defaults(self) -> dict[str, Any]:
        """The settings of a source that sets none."""
        return {setting.name: setting.default for setting in self.settings}


# Where adapters of others register: an entry point names the module.
ENTRY_POINTS = "datafast_relay.providers"

_folders: list[Path] = []


def add_folder(folder: Path) -> None:
    """Also look for providers among the modules of this folder (`providers_folder:`)."""
    if folder not in _folders:
        _folders.append(folder)


def names() -> list[str]:
    """The providers that exist, in alphabetical order."""
    return sorted(_modules())


def _modules() -> dict[str, Callable[[], ModuleType]]:
    """How to import each. The relay's own outdo a package's, and those a folder's."""
    found: dict[str, Callable[[], ModuleType]] = {}
    for folder in _folders:
        for file in folder.glob("[a-z]*.py"):
            found[file.stem] = partial(_import_file, file)
    for each in metadata.entry_points(group=ENTRY_POINTS):
        found[each.name] = each.load
    for own in pkgutil.iter_modules(providers.__path__):
        found[own.name] = partial(importlib.import_module, f"providers.{own.name}")
    return found


@cache
def _import_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"relay_provider_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError(file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their own names
    spec.loader.exec_module(module)
    return module


def load(name: str) -> Provider:
    """The provider called `name`. Raises RelayError(unknown_provider) with the nearest names."""
    modules = _modules()
    if name not in modules:
        near = get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names())}"
        raise RelayError("unknown_provider", f"there is no provider {name!r}; {hint}")
    try:
        module = modules[name]()
    except Exception as error:
        msg = f"the provider {name!r} cannot be imported: {type(error).__name__}: {error}"
        raise RelayError("broken_provider", msg) from error
    wanted = ("TITLE", "DOCS", "SETUP", "SIGNATURE", "parse", "EVENTS")
    missing = [each for each in wanted if not hasattr(module, each)]
    if missing:
        msg = f"the provider {name!r} lacks {', '.join(missing)}; docs/add-a-provider.md says more"
        raise RelayError("incomplete_provider", msg)
    optional = ("IGNORED", "SETTINGS", "fetch", "challenge", "acknowledge")
    return Provider(
        name=name,
        title=module.TITLE,
        docs=module.DOCS,
        about=module.__doc__ or "",
        setup=module.SETUP,
        signature=module.SIGNATURE,
        parse=module.parse,
        events=module.EVENTS,
        **{each.lower(): getattr(module, each) for each in optional if hasattr(module, each)},
    )
