"""The shape of a failure, and reading a JSON object that may be anything.

Numbers are read exactly (`int` or `Decimal`). What Python would accept beyond JSON (NaN) and what
would break it (nesting without end, numbers of a million digits) is refused like any other text
that is not JSON.
"""

import json
from decimal import Decimal
from typing import Any, Never


class ApiError(Exception):
    """A failure that is answered in DataFast's envelope."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def envelope(code: int, message: str) -> dict[str, Any]:
    """DataFast's documented shape of a failure."""
    return {"status": "error", "error": {"code": code, "message": message}}


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises ApiError(400)."""
    try:
        found = json.loads(body, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, ArithmeticError, RecursionError):
        raise ApiError(400, "The request body must be valid JSON") from None
    if not isinstance(found, dict):
        raise ApiError(400, "The request body must be a JSON object")
    return found


def storable(text: str) -> bool:
    """Whether `text` is Unicode: JSON can spell half a surrogate pair, which is not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(constant: str) -> Never:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)
