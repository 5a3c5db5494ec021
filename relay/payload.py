"""Typed reading of data that somebody else wrote.

Every read names the path it wants; what is missing or of another type is a `PayloadError` with
that path, so that an operator can find the place in the body. Numbers are exact: `int` or
`Decimal`, never `float`.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Never
from urllib.parse import parse_qsl

from relay.errors import PayloadError

Key = str | int

_MISSING = object()
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")
_LONGEST_TEXT = 20_000
_DEEPEST_FORM_KEY = 8


class Payload:
    """A piece of somebody else's data, and where in the whole it stands."""

    def __init__(self, value: Any, path: str = "$") -> None:  # noqa: ANN401 - foreign data
        self.value = value
        self.path = path

    @classmethod
    def json(cls, body: bytes, path: str = "$") -> "Payload":
        """Read JSON. Raises PayloadError(malformed_json) for anything that is not."""
        try:
            value = json.loads(body, parse_float=_decimal, parse_constant=_refuse_constant)
        except (ValueError, RecursionError, InvalidOperation) as error:
            hint = f"not JSON ({type(error).__name__})"
            raise PayloadError("malformed_json", path, hint) from None
        return cls(value, path)

    @classmethod
    def form(cls, body: bytes, path: str = "$") -> "Payload":
        """Read a form post. `a[b]=1` becomes `{"a": {"b": "1"}}`; a repeated key keeps its first."""
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=2_000)
        except ValueError as error:
            hint = f"not a form ({type(error).__name__})"
            raise PayloadError("malformed_form", path, hint) from None
        root: dict[str, Any] = {}
        for key, text in pairs:
            _put(root, key, text)
        return cls(root, path)

    # Moving about

    def at(self, *keys: Key) -> "Payload":
        """The piece at `keys`, whatever it is; a piece that is not there reads as null."""
        value, path = self.value, self.path
        for key in keys:
            path += f"[{key}]" if isinstance(key, int) else f".{key}"
            value = _step(value, key)
            if value is _MISSING:
                value = None
        return Payload(value, path)

    def object(self, *keys: Key) -> "Payload":
        """The JSON object at `keys`."""
        return self._typed(keys, dict, "an object")

    def items(self, *keys: Key) -> Iterator["Payload"]:
        """The members of the list at `keys`."""
        found = self._typed(keys, list, "a list")
        for index in range(len(found.value)):
            yield found.at(index)

    def __bool__(self) -> bool:
        return bool(self.value)

    # Values

    def text(self, *keys: Key) -> str:
        """The text at `keys`, not empty. A number counts as its own digits."""
        found = self.at(*keys)
        text = found.text_or_none()
        if text is None:
            found._missing("text")
        return text

    def text_or_none(self, *keys: Key) -> str | None:
        """The text at `keys`, or None when it is missing, null or blank."""
        found = self.at(*keys)
        value = found.value
        if isinstance(value, bool | dict | list):
            found._wrong("text")
        if value is None:
            return None
        text = str(value).strip()
        if len(text) > _LONGEST_TEXT or "\x00" in text or not _encodable(text):
            found._wrong("text that can be stored")
        return text or None

    def integer(self, *keys: Key) -> int:
        """The whole number at `keys`, written as a number or as text."""
        number = self.decimal(*keys)
        if number != number.to_integral_value():
            self.at(*keys)._wrong("a whole number")
        return int(number)

    def decimal(self, *keys: Key) -> Decimal:
        """The exact number at `keys`, written as a number or as text (`"24.20"`)."""
        found = self.at(*keys)
        value = found.value
        if value is None or value == "":
            found._missing("a number")
        if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
            found._wrong("a number")
        if isinstance(value, Decimal) and abs(value.adjusted()) > 60:
            found._wrong("a number")  # before all its digits are written out
        text = f"{value:f}" if isinstance(value, Decimal) else str(value).strip()
        if not _PLAIN_NUMBER.fullmatch(text):
            found._wrong("a number")
        return Decimal(text)

    def flag(self, *keys: Key) -> bool:
        """True or False, also written as `"true"`, `"1"`, 1; a missing one is False."""
        found = self.at(*keys)
        value = found.value
        if value is None or value == "":
            return False
        known = {"true": True, "1": True, "false": False, "0": False}
        if isinstance(value, dict | list) or str(value).lower() not in known:
            found._wrong("true or false")
        return known[str(value).lower()]

    def time(self, *keys: Key) -> datetime:
        """The moment at `keys`: ISO 8601 with a zone, in UTC."""
        found = self.at(*keys)
        text = found.text()
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            found._wrong("a time in ISO 8601")
        if moment.tzinfo is None:
            raise PayloadError("naive_time", found.path, "the time has no zone")
        return found._utc(moment)

    def unix_time(self, *keys: Key, unit: int = 1) -> datetime:
        """The moment at `keys`: Unix time; `unit` is how many make a second (1000 for ms)."""
        found = self.at(*keys)
        try:
            return datetime.fromtimestamp(float(found.decimal()) / unit, UTC)
        except (ValueError, OverflowError, OSError):
            found._wrong("a Unix time")

    def time_or_none(self, *keys: Key) -> datetime | None:
        """The moment at `keys`, or None when it is missing or is no moment at all."""
        try:
            return self.time(*keys)
        except PayloadError:
            return None

    # Refusing

    def _typed(self, keys: tuple[Key, ...], wanted: type, name: str) -> "Payload":
        found = self.at(*keys)
        if found.value is None:
            found._missing(name)
        if not isinstance(found.value, wanted):
            found._wrong(name)
        return found

    def _utc(self, moment: datetime) -> datetime:
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            self._wrong("a time between the years 1 and 9999")

    def _missing(self, wanted: str) -> Never:
        raise PayloadError("missing_field", self.path, f"{wanted} is missing")

    def _wrong(self, wanted: str) -> Never:
        is_now = {dict: "an object", list: "a list", bool: "true or false"}.get(
            type(self.value), "something else"
        )
        raise PayloadError("wrong_type", self.path, f"{wanted} is wanted, this is {is_now}")


def _decimal(text: str) -> Decimal:
    return Decimal(text) if len(text) <= 60 else _refuse_constant(text)


def _refuse_constant(text: str) -> Never:
    msg = f"{text[:20]} is no JSON number"
    raise ValueError(msg)


def _encodable(text: str) -> bool:
    """A lone half of a surrogate pair is legal in JSON and cannot be stored anywhere."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _step(value: Any, key: Key) -> Any:  # noqa: ANN401 - foreign data
    if isinstance(key, int):
        if isinstance(value, list) and -len(value) <= key < len(value):
            return value[key]
    elif isinstance(value, dict):
        return value.get(key, _MISSING)
    return _MISSING


def _put(root: dict[str, Any], key: str, text: str) -> None:
    """Write `text` at a form key such as `custom_fields[note][0]`; what clashes stays flat."""
    name, *inner = key.replace("]", "").split("[", _DEEPEST_FORM_KEY)
    *outer, last = [name, *inner]
    place = root
    for step in outer:
        nested = place.setdefault(step, {})
        if not isinstance(nested, dict):
            root.setdefault(key, text)
            return
        place = nested
    place.setdefault(last, text)
