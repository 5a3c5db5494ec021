"""YAML + environment -> frozen dataclasses, or one ConfigError with every mistake in it.

`config.example.yaml` shows every setting; a test keeps it complete.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from marshmallow import Schema, fields, validate
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from relay import money, provider, yamlfile
from relay.errors import ConfigError, Problem, RelayError
from relay.provider import Provider, Setting
from relay.yamlfile import YamlFile

DEFAULT_FILE = "relay.yaml"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PLACEHOLDER = re.compile(r"<.*>|\.\.\.|x{4,}|change-?me|your[-_ ].*|todo|secret", re.IGNORECASE)
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Server:
    """How the web processes listen. Sizes in bytes, times in seconds."""

    bind: str
    public_url: str
    processes: int
    threads: int
    max_body: int
    drain_seconds: int


@dataclass(frozen=True)
class Work:
    """How the worker processes deliver. Times in seconds."""

    processes: int
    threads: int
    lease_seconds: int


@dataclass(frozen=True)
class Destination:
    """One DataFast site: its address, its key, and how politely it is spoken to.

    `rate_limit` is in requests a minute, 0 for none; the time-outs are in seconds. `website_id`
    goes with account tokens (`dft_…`) only.
    """

    name: str
    api_key: str
    base_url: str = "https://datafa.st"
    website_id: str | None = None
    rate_limit: int = 60
    refunds: str = "auto"
    connect_timeout: float = 5
    read_timeout: float = 20

    @property
    def gate(self) -> str:
        """What its limit and its pauses are known by: the token, without telling it."""
        return hashlib.sha256(f"{self.base_url} {self.api_key}".encode()).hexdigest()[:24]

    def __repr__(self) -> str:
        return f"Destination({self.name!r})"


@dataclass(frozen=True, repr=False)
class Source:
    """A configured endpoint: one account at one provider, bound to one destination."""

    name: str
    provider: Provider
    destination: Destination
    secrets: tuple[str, ...]
    tolerance: float
    test_events: str
    disputes: str
    currency: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """Everything the owner decided."""

    server: Server
    worker: Work
    database: str
    log_level: str
    destinations: Mapping[str, Destination]
    sources: Mapping[str, Source]


class ServerSchema(Schema):
    """`server:`"""

    bind = fields.String(load_default="127.0.0.1:8080", validate=validate.Regexp(r".+:\d{1,5}\Z"))
    public_url = fields.Url(
        load_default="http://127.0.0.1:8080", require_tld=False, schemes={"http", "https"}
    )
    processes = fields.Integer(load_default=1, validate=validate.Range(1, 64))
    threads = fields.Integer(load_default=8, validate=validate.Range(1, 256))
    max_body = fields.Integer(load_default=1_048_576, validate=validate.Range(1_024, 104_857_600))
    drain_seconds = fields.Integer(load_default=25, validate=validate.Range(1, 3_600))


class WorkSchema(Schema):
    """`worker:`"""

    processes = fields.Integer(load_default=1, validate=validate.Range(1, 64))
    threads = fields.Integer(load_default=4, validate=validate.Range(1, 64))
    lease_seconds = fields.Integer(load_default=120, validate=validate.Range(30, 3_600))


class DestinationSchema(Schema):
    """One of `destinations:`"""

    api_key = fields.String(required=True, validate=validate.Regexp(r"dft?_\S+\Z"))
    website_id = fields.String(load_default=None)
    base_url = fields.Url(load_default="https://datafa.st", require_tld=False)
    rate_limit = fields.Integer(load_default=60, validate=validate.Range(0, 60_000))
    refunds = fields.String(
        load_default="auto", validate=validate.OneOf(["auto", "original_id", "refund_id"])
    )
    connect_timeout = fields.Float(load_default=5, validate=validate.Range(0.1, 60))
    read_timeout = fields.Float(load_default=20, validate=validate.Range(0.1, 120))


class SourceSchema(Schema):
    """One of `sources:`, without its provider's own settings."""

    provider = fields.String(required=True)
    destination = fields.String(required=True)
    secrets = fields.List(fields.String(), required=True, validate=validate.Length(1, 10))
    tolerance_seconds = fields.Float(load_default=300, validate=validate.Range(1, 86_400))
    test_events = fields.String(
        load_default="ignore", validate=validate.OneOf(["ignore", "forward"])
    )
    disputes = fields.String(load_default="refund", validate=validate.OneOf(["refund", "ignore"]))
    currency = fields.String(load_default=None)


class RelaySchema(Schema):
    """The whole file. The parts have schemas of their own, so that each mistake finds its line."""

    server = fields.Dict(load_default=dict)
    worker = fields.Dict(load_default=dict)
    database = fields.String(load_default="sqlite:///relay.db")
    log_level = fields.String(
        load_default="info", validate=validate.OneOf(["debug", "info", "warning", "error"])
    )
    destinations = fields.Dict(required=True)
    sources = fields.Dict(required=True)


_WORDS = {
    "Missing data for required field.": "this setting is missing; config.example.yaml shows it",
    "Not a valid string.": "this must be text; put it in quotes",
    "Not a valid mapping type.": "this must hold settings of its own, indented, one a line",
    "Not a valid list.": "this must be a list: one entry a line, each after a dash",
    "Shorter than minimum length 1.": "this list is empty; it needs an entry",
}


def load(file: str | Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration. Raises ConfigError with every mistake."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = f"{error}; copy config.example.yaml to {DEFAULT_FILE} to begin"
        raise ConfigError(str(file), [Problem("", hint)]) from None
    reader = _Reader(YamlFile(text, os.environ if environ is None else environ))
    config = reader.config() if not reader.file.problems or reader.file.data else None
    if reader.file.problems or config is None:
        raise ConfigError(str(file), sorted(reader.file.problems, key=lambda it: it.line or 0))
    return config


class _Reader:
    """Builds the dataclasses; notes each mistake and goes on."""

    def __init__(self, file: YamlFile) -> None:
        self.file = file

    def config(self) -> Config | None:
        top = self.part(RelaySchema(), self.file.data, ())
        server, worker = top.get("server") or {}, top.get("worker") or {}
        destinations = {
            name: self.destination(name, block)
            for name, block in self.blocks("destinations", top.get("destinations"))
        }
        sources = {
            name: self.source(name, block, destinations)
            for name, block in self.blocks("sources", top.get("sources"))
        }
        server = self.part(ServerSchema(), server, ("server",))
        worker = self.part(WorkSchema(), worker, ("worker",))
        self.database(top.get("database"))
        if self.file.problems:
            return None
        return Config(
            server=Server(**server),
            worker=Work(**worker),
            database=top["database"],
            log_level=top["log_level"],
            destinations={name: it for name, it in destinations.items() if it},
            sources={name: it for name, it in sources.items() if it},
        )

    def part(self, schema: Schema, data: Any, path: yamlfile.Path) -> dict[str, Any]:  # noqa: ANN401
        """The valid settings of one block, defaults filled in."""
        if not isinstance(data, dict):
            self.file.problem(path, _WORDS["Not a valid mapping type."])
            return {}
        unknown = [key for key in data if key not in schema.fields]
        for key in unknown:
            self.file.problem((*path, key), _unknown(key, list(schema.fields)))
        data = {key: value for key, value in data.items() if key not in unknown}
        errors = schema.validate(data)
        self._note(errors, path)
        kept = {key: value for key, value in data.items() if key not in errors}
        found = schema.load(kept, partial=tuple(errors))
        return dict(found)

    def _note(self, errors: Any, path: yamlfile.Path) -> None:  # noqa: ANN401 - marshmallow's tree
        if isinstance(errors, dict):
            for key, inner in errors.items():
                self._note(inner, (*path, key))
            return
        for message in errors:
            self.file.problem(path, _WORDS.get(message, message))

    def blocks(self, section: str, data: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - YAML
        """The named blocks of a section."""
        found = list((data or {}).items())
        for name, _ in found:
            if not _NAME.fullmatch(name):
                msg = "a name is made of small letters, digits, - and _ (it is part of a URL)"
                self.file.problem((section, name), msg)
        return found

    def destination(self, name: str, block: Any) -> Destination | None:  # noqa: ANN401 - YAML
        path = ("destinations", name)
        block = self.files(block, path, ("api_key",))
        found = self.part(DestinationSchema(), block, path)
        key, site = found.get("api_key", ""), found.get("website_id")
        if key.startswith("dft_") and not site:
            self.file.problem(path, "an account token (dft_…) needs website_id beside it")
        if key.startswith("df_") and site:
            self.file.problem(
                (*path, "website_id"), "a website key (df_…) knows its site; take this out"
            )
        self.placeholder(key.partition("_")[2], (*path, "api_key"))
        self.address(found.get("base_url"), (*path, "base_url"))
        if "api_key" not in found or "base_url" not in found:
            return None
        found["base_url"] = found["base_url"].rstrip("/")
        return (
            Destination(name=name, **found)
            if len(found) == len(DestinationSchema().fields)
            else None
        )

    def source(
        self,
        name: str,
        block: Any,
        destinations: Mapping[str, Destination | None],
    ) -> Source | None:
        path = ("sources", name)
        known = self.provider(block, path)
        own = known.settings if known else ()
        secret_names = ("secrets", *(setting.name for setting in own if setting.secret))
        block = self.files(block, path, secret_names)
        schema = type("Source", (SourceSchema,), {it.name: _field(it) for it in own})()
        if known is None and isinstance(block, dict):
            block = {key: value for key, value in block.items() if key in schema.fields}
        found = self.part(schema, block, path)
        if found.get("destination") and found["destination"] not in destinations:
            msg = _unknown(found["destination"], list(destinations), "destination")
            self.file.problem((*path, "destination"), msg)
        self.secrets(known, found.get("secrets"), path)
        if found.get("currency") and money.exponent(found["currency"]) is None:
            self.file.problem((*path, "currency"), "this is no code of ISO 4217, such as EUR")
        for setting in own:
            if setting.name == "api_base":
                self.address(found.get("api_base"), (*path, "api_base"))
        destination = destinations.get(found.get("destination", ""))
        if known is None or destination is None or len(found) < len(schema.fields):
            return None
        return Source(
            name=name,
            provider=known,
            destination=destination,
            secrets=tuple(found["secrets"]),
            tolerance=found["tolerance_seconds"],
            test_events=found["test_events"],
            disputes=found["disputes"],
            currency=found["currency"],
            settings={setting.name: found[setting.name] for setting in own},
        )

    def provider(self, block: Any, path: yamlfile.Path) -> Provider | None:  # noqa: ANN401 - YAML
        name = block.get("provider") if isinstance(block, dict) else None
        if not isinstance(name, str):
            return None
        try:
            return provider.load(name)
        except RelayError as error:
            self.file.problem((*path, "provider"), error.message)
            return None

    def files(self, block: Any, path: yamlfile.Path, names: tuple[str, ...]) -> Any:  # noqa: ANN401
        """Replace `<name>_file: F` by what F holds; for lists, one secret a line."""
        if not isinstance(block, dict):
            return block
        block = dict(block)
        for name in names:
            file = block.pop(f"{name}_file", None)
            if file is None:
                continue
            if name in block:
                self.file.problem((*path, name), f"both {name} and {name}_file are here; keep one")
            try:
                text = Path(str(file)).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                self.file.problem((*path, f"{name}_file"), f"the file cannot be read: {error}")
                text = "unreadable-file"
            block[name] = text.splitlines() if name == "secrets" else text
        return block

    def secrets(
        self, known: Provider | None, secrets: list[str] | None, path: yamlfile.Path
    ) -> None:
        for index, secret in enumerate(secrets or ()):
            place = (*path, "secrets", index)
            if not secret:
                self.file.problem(place, "the secret is empty; nothing would be checked")
                continue
            self.placeholder(secret, place)
            flaw = known.signature.flaw(secret) if known else None
            if flaw:
                self.file.problem(place, flaw)

    def placeholder(self, secret: str, path: yamlfile.Path) -> None:
        if _PLACEHOLDER.fullmatch(secret):
            self.file.problem(path, "this is a placeholder; put the real one here")

    def address(self, url: str | None, path: yamlfile.Path) -> None:
        """Keys travel to this address: https, or this machine."""
        parts = urlsplit(url or "https://")
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            self.file.problem(path, "this must begin with https://, since a key is sent there")

    def database(self, url: str | None) -> None:
        try:
            backend = make_url(url or "").get_backend_name()
        except ArgumentError:
            backend = ""
        if url is not None and backend not in {"sqlite", "postgresql"}:
            msg = "write sqlite:///relay.db, or postgresql+psycopg://user:password@host/name"
            self.file.problem(("database",), msg)


def _field(setting: Setting) -> fields.Field[Any]:
    """The field of one of a provider's own settings; its type follows from the default."""
    common: dict[str, Any] = {"allow_none": True, "load_default": setting.default}
    if setting.required:
        common = {"required": True}
    if isinstance(setting.default, bool):
        return fields.Boolean(**common)
    if setting.choices:
        return fields.String(validate=validate.OneOf(setting.choices), **common)
    return fields.String(**common)


def _unknown(name: str, known: list[str], what: str = "setting") -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"there is no {what} {name!r}; did you mean {near[0]!r}?"
    return f"there is no {what} {name!r}; there are: {', '.join(sorted(known)) or 'none'}"
