"""The visitor's id: where it hides in a provider's metadata, and what a good one looks like.

DataFast's cookie `datafast_visitor_id` holds a UUID v4. Founders pass it to the checkout under
several names, and providers hand it back as an object, as JSON in a text, URL-encoded, or bare.
"""

import json
import re
from typing import Any
from urllib.parse import parse_qs, unquote

from relay.payload import Payload

SPELLINGS = ("datafast_visitor_id", "datafastVisitorId", "df_visitor_id", "_df_vid")

_UUID_V4 = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE
)
_LONGEST = 2_000


def is_valid(visitor_id: str) -> bool:
    """Whether DataFast's cookie could hold this: a UUID of version 4."""
    return _UUID_V4.fullmatch(visitor_id) is not None


def find(*places: Payload) -> str | None:
    """The first visitor id in `places`: objects of metadata, or texts that hold one.

    What stands under one of the SPELLINGS is taken as it is, good or not, so that a broken id can
    be shown to its owner. A bare text counts only when it is a UUID v4.
    """
    for place in places:
        found = _in(place.value)
        if found:
            return found
    return None


def _in(value: Any) -> str | None:  # noqa: ANN401 - foreign data
    if isinstance(value, dict):
        named = (value.get(spelling) for spelling in SPELLINGS)
        return next(
            (unquote(text).strip() for text in named if isinstance(text, str) and text), None
        )
    if isinstance(value, str) and len(value) <= _LONGEST:
        return _in_text(unquote(value).strip())
    return None


def _in_text(text: str) -> str | None:
    if is_valid(text):
        return text
    if text.startswith("{"):
        try:
            return _in(json.loads(text))
        except (ValueError, RecursionError):
            return None
    if "=" in text:
        return _in({key: values[0] for key, values in parse_qs(text.lstrip("?")).items()})
    return None
