"""Currencies and exact amounts: decimals from the provider's bytes to DataFast's, never a float.

The number of decimals of each currency is ISO 4217's, from the package `iso4217`. A provider that
deviates from it hands its own exceptions in.
"""

from collections.abc import Mapping
from decimal import Decimal

from iso4217 import Currency

from relay.errors import PayloadError
from relay.payload import Key, Payload

_LARGEST = Decimal(10) ** 15


def currency(data: Payload, *keys: Key) -> str:
    """The ISO 4217 code at `keys`, in upper case. Raises PayloadError(unknown_currency)."""
    code = data.text(*keys).upper()
    if exponent(code) is None:
        path = data.at(*keys).path
        raise PayloadError("unknown_currency", path, "no currency of ISO 4217 has this code")
    return code


def exponent(code: str) -> int | None:
    """How many decimals `code` has (EUR 2, JPY 0, KWD 3); None if it is no currency."""
    try:
        return Currency(code).exponent
    except ValueError:
        return None


def minor_units(
    data: Payload, *keys: Key, code: str, exceptions: Mapping[str, int] | None = None
) -> Decimal:
    """The amount at `keys`, a whole number of the smallest unit of `code`, in major units.

    The sign is dropped: providers write refunds with and without one. `exceptions` are the
    currencies in which this provider does not follow ISO 4217.
    """
    decimals = (exceptions or {}).get(code, exponent(code))
    if decimals is None:
        raise PayloadError("unknown_currency", data.path, "no currency of ISO 4217 has this code")
    return _bounded(data.at(*keys), Decimal(data.integer(*keys)).scaleb(-decimals))


def major_units(data: Payload, *keys: Key) -> Decimal:
    """The amount at `keys`, written in major units as a number or as text. The sign is dropped."""
    return _bounded(data.at(*keys), data.decimal(*keys))


def _bounded(place: Payload, amount: Decimal) -> Decimal:
    if abs(amount) >= _LARGEST:
        raise PayloadError("wrong_amount", place.path, "no payment is as large as this number")
    return amount.copy_abs()
