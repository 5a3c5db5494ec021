"""From the parsed YAML to the dataclasses, noting each mistake and going on."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from marshmallow import Schema

from relay import declared, money, provider, yamlfile
from relay.config import checks, declaration
from relay.config.nouns import Config, Destination, Server, Source, Work
from relay.config.schemas import (
    WORDS,
    DestinationSchema,
    RelaySchema,
    ServerSchema,
    WorkSchema,
    with_settings,
)
from relay.errors import RelayError
from relay.provider import Provider
from relay.yamlfile import YamlFile

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Reader:
    """Reads one file. What is wrong stands in `file.problems` afterwards."""

    def __init__(self, file: YamlFile) -> None:
        self.file = file

    def config(self) -> Config | None:
        """The configuration; None if anything in it is wrong."""
        top = self.part(RelaySchema(), self.file.data, ())
        destinations = {
            name: self.destination(name, block)
            for name, block in self.blocks("destinations", top.get("destinations"))
        }
        self.own_keys(destinations.values())
        sources = {
            name: self.source(name, block, destinations)
            for name, block in self.blocks("sources", top.get("sources"))
        }
        server = self.part(ServerSchema(), top.get("server", {}), ("server",))
        worker = self.part(WorkSchema(), top.get("worker", {}), ("worker",))
        if "database" in top:
            self.note(checks.database(top["database"]), ("database",))
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

    def note(self, problem: str | None, path: yamlfile.Path) -> None:
        """Note what a check has found, if anything."""
        if problem:
            self.file.problem(path, problem)

    def part(
        self,
        schema: Schema,
        data: Any,  # noqa: ANN401 - YAML
        path: yamlfile.Path,
        also: Iterable[str] = (),
    ) -> dict[str, Any]:
        """The valid settings of one block, defaults filled in; an empty setting is left out.

        `also` are names that are read elsewhere, for suggestions.
        """
        if not isinstance(data, dict):
            self.note(WORDS["Not a valid mapping type."], path)
            return {}
        for key in data:
            if key not in schema.fields:
                self.note(checks.unknown(key, [*schema.fields, *also]), (*path, key))
        given = {
            key: value for key, value in data.items() if key in schema.fields and value is not None
        }
        errors = schema.validate(given)
        self._note_all(errors, path)
        kept = {key: value for key, value in given.items() if key not in errors}
        found = schema.load(kept, partial=tuple(errors))
        return dict(found)

    def _note_all(self, errors: Any, path: yamlfile.Path) -> None:  # noqa: ANN401 - marshmallow's
        if isinstance(errors, dict):
            for key, inner in errors.items():
                self._note_all(inner, (*path, key))
            return
        for message in errors:
            self.note(WORDS.get(message, message), path)

    def blocks(self, section: str, data: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
        """The named blocks of a section."""
        found = list((data or {}).items())
        for name, _ in found:
            if not _NAME.fullmatch(name):
                msg = "a name is made of small letters, digits, - and _ (it is part of a URL)"
                self.note(msg, (section, name))
        return found

    def destination(self, name: str, block: Any) -> Destination | None:  # noqa: ANN401 - YAML
        """One DataFast site."""
        path, schema = ("destinations", name), DestinationSchema()
        block = self.files(block, path, ("api_key",))
        found = self.part(schema, block, path, ("api_key_file",))
        key, site = found.get("api_key", ""), found.get("website_id")
        if key.startswith("dft_") and not site and "website_id" in found:
            self.note("an account token (dft_…) needs website_id beside it", path)
        if key.startswith("df_") and site:
            msg = "a website key (df_…) knows its site; take this line out"
            self.note(msg, (*path, "website_id"))
        if key:
            self.note(checks.secret(key), (*path, "api_key"))
        if "base_url" in found:
            self.note(checks.address(found["base_url"]), (*path, "base_url"))
            found["base_url"] = found["base_url"].rstrip("/")
        if found.get("identify_key"):
            self.note(checks.secret(found["identify_key"]), (*path, "identify_key"))
        elif found.get("identify_origins") and "identify_key" in found:
            msg = "without identify_key nobody can call; write one, or take this out"
            self.note(msg, (*path, "identify_origins"))
        if len(found) < len(schema.fields):
            return None
        found["identify_origins"] = tuple(found["identify_origins"] or ())
        return Destination(name=name, **found)

    def own_keys(self, destinations: Iterable[Destination | None]) -> None:
        """Each site's key is its own: what is told with it must be about one site."""
        owners: dict[str, str] = {}
        for each in filter(None, destinations):
            if each.identify_key:
                owner = owners.setdefault(each.identify_key, each.name)
                if owner != each.name:
                    msg = f"the destination {owner!r} has this key already; each needs its own"
                    self.note(msg, ("destinations", each.name, "identify_key"))

    def source(
        self,
        name: str,
        block: Any,  # noqa: ANN401 - YAML
        destinations: Mapping[str, Destination | None],
    ) -> Source | None:
        """One account at one provider."""
        path = ("sources", name)
        known = self.provider(block, path)
        own = known.settings if known else ()
        secret_names = ("secrets", *(setting.name for setting in own if setting.secret))
        block = self.files(block, path, secret_names)
        schema = with_settings(own)
        also = [f"{it}_file" for it in secret_names]
        if isinstance(block, dict) and block.get("provider") == declared.NAME:
            also.append("mapping")
            block = {key: value for key, value in block.items() if key != "mapping"}
        elif known is None and isinstance(block, dict):
            block = {key: value for key, value in block.items() if key in schema.fields}
        found = self.part(schema, block, path, also)
        wanted = found.get("destination")
        if wanted is not None and wanted not in destinations:
            msg = checks.unknown(wanted, destinations, "destination")
            self.note(msg, (*path, "destination"))
        self.secrets(known, found, path)
        if found.get("currency") and money.exponent(found["currency"]) is None:
            self.note("this is no code of ISO 4217, such as EUR", (*path, "currency"))
        if found.get("api_base") is not None:
            self.note(checks.address(found["api_base"]), (*path, "api_base"))
        destination = destinations.get(wanted or "")
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
            hold_seconds=found["hold_seconds"],
            currency=found["currency"],
            settings={setting.name: found[setting.name] for setting in own},
        )

    def provider(self, block: Any, path: yamlfile.Path) -> Provider | None:  # noqa: ANN401 - YAML
        """The source's provider, if there is one of that name."""
        name = block.get("provider") if isinstance(block, dict) else None
        if not isinstance(name, str):
            return None
        if name == declared.NAME:
            return declaration.provider(self, block, path)
        try:
            return provider.load(name)
        except RelayError as error:
            self.note(error.message, (*path, "provider"))
            return None

    def secrets(
        self, known: Provider | None, found: Mapping[str, Any], path: yamlfile.Path
    ) -> None:
        """What the requests are checked with, and the provider's own keys."""
        for index, secret in enumerate(found.get("secrets", ())):
            place = (*path, "secrets", index)
            problem = checks.secret(secret)
            if problem is None and known:
                problem = known.signature.flaw(secret)
            self.note(problem, place)
        for setting in known.settings if known else ():
            value = found.get(setting.name)
            if setting.secret and isinstance(value, str):
                self.note(checks.secret(value), (*path, setting.name))

    def files(self, block: Any, path: yamlfile.Path, names: Iterable[str]) -> Any:  # noqa: ANN401
        """Replace `<name>_file: F` by what F holds; for lists, one secret a line."""
        if not isinstance(block, dict):
            return block
        block = dict(block)
        for name in names:
            file = block.pop(f"{name}_file", None)
            if file is None:
                continue
            place = (*path, f"{name}_file")
            if name in block:
                self.note(f"both {name} and {name}_file are here; keep one", (*path, name))
            try:
                text = Path(str(file)).read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or "it is no text in UTF-8"
                self.note(f"the file {file} cannot be read: {why}", place)
                self.file.give_up((*path, name))
                text = ""
            self.file.lines.setdefault((*path, name), self.file.line(place) or 0)
            block[name] = text.splitlines() if name == "secrets" else text
        return block
