"""Money: every currency of ISO 4217, exact, never a float."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iso4217 import Currency

from relay import money
from relay.errors import PayloadError
from relay.payload import Payload

# https://www.iso.org/iso-4217-currency-codes.html (list one); all others that are money have two.
NONE = {
    *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG"),
    *("RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
}
THREE = {"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"}
FOUR = {"CLF", "UYW"}
# Metals, funds and codes for tests: nobody pays with them, and they have no smallest unit.
NO_MONEY = {it.code for it in Currency if it.exponent is None}
CODES = sorted({it.code for it in Currency} - NO_MONEY)


def wanted(code: str) -> int:
    return 0 if code in NONE else 3 if code in THREE else 4 if code in FOUR else 2


@pytest.mark.parametrize("code", CODES)
def test_a_currency_has_as_many_decimals_as_iso_4217_says(code: str) -> None:
    assert money.exponent(code) == wanted(code)


def test_every_list_of_exceptions_is_of_real_currencies() -> None:
    assert set(CODES) >= NONE | THREE | FOUR
    assert len(CODES) > 150
    assert {"XAU", "XXX", "XTS"} <= NO_MONEY


@pytest.mark.parametrize("code", [*sorted(NO_MONEY), "", "EURO", "eur", "E", "€", "XYZ", "EU\x00"])
def test_what_is_no_currency_has_no_decimals(code: str) -> None:
    assert money.exponent(code) is None


@pytest.mark.parametrize("code", CODES)
def test_minor_units_become_major_ones_in_every_currency(code: str) -> None:
    amount = money.minor_units(Payload({"a": 123456}), "a", code=code)
    assert amount * 10 ** wanted(code) == 123456
    assert f"{amount:f}" == {
        0: "123456",
        2: "1234.56",
        3: "123.456",
        4: "12.3456",
    }[wanted(code)]  # fmt: skip


def test_a_provider_may_deviate_from_iso_4217() -> None:
    data, exceptions = Payload({"a": 1000}), {"HUF": 0, "ISK": 2}
    assert money.minor_units(data, "a", code="HUF", exceptions=exceptions) == 1000
    assert money.minor_units(data, "a", code="ISK", exceptions=exceptions) == 10
    assert money.minor_units(data, "a", code="EUR", exceptions=exceptions) == 10


@pytest.mark.parametrize("value", [2999, "2999", -2999, "-2999", Decimal("2999.0")])
def test_the_sign_of_an_amount_is_dropped(value: Any) -> None:
    assert str(money.minor_units(Payload({"a": value}), "a", code="EUR")) == "29.99"


@pytest.mark.parametrize("value", [24.2, True, "24,20", None, [], "x"])
def test_what_is_no_amount_is_refused(value: Any) -> None:
    with pytest.raises(PayloadError) as caught:
        money.major_units(Payload({"a": value}), "a")
    assert caught.value.path == "$.a"


@pytest.mark.parametrize("value", ["29.99", Decimal("0.5")])
def test_a_part_of_the_smallest_unit_is_not_rounded(value: Any) -> None:
    with pytest.raises(PayloadError):
        money.minor_units(Payload({"a": value}), "a", code="EUR")


@pytest.mark.parametrize("value", [10**15, "-1000000000000000", 10**29])
def test_an_amount_that_no_payment_has_is_refused(value: Any) -> None:
    with pytest.raises(PayloadError) as caught:
        money.major_units(Payload({"a": value}), "a")
    assert (caught.value.reason, caught.value.path) == ("wrong_amount", "$.a")
    with pytest.raises(PayloadError):
        money.minor_units(Payload({"a": value}), "a", code="JPY")


def test_an_amount_in_an_unknown_currency_is_not_guessed() -> None:
    with pytest.raises(PayloadError) as caught:
        money.minor_units(Payload({"a": 1}), "a", code="XYZ")
    assert caught.value.reason == "unknown_currency"


@pytest.mark.parametrize("text", ["EUR", "eur", " Eur "])
def test_a_code_is_read_in_capitals(text: str) -> None:
    assert money.currency(Payload({"c": text}), "c") == "EUR"


@pytest.mark.parametrize("text", ["EURO", "XXX", "XAU", "€", "E R"])
def test_a_code_that_is_no_currency_is_refused_with_its_path(text: str) -> None:
    with pytest.raises(PayloadError) as caught:
        money.currency(Payload({"c": text}), "c")
    assert (caught.value.reason, caught.value.path) == ("unknown_currency", "$.c")


def test_a_missing_code_is_missing() -> None:
    with pytest.raises(PayloadError) as caught:
        money.currency(Payload({}), "c")
    assert caught.value.reason == "missing_field"


@given(st.integers(-(10**14), 10**14), st.sampled_from(CODES))
def test_every_amount_is_exact_in_every_currency(amount: int, code: str) -> None:
    major = money.minor_units(Payload({"a": amount}), "a", code=code)
    assert major.scaleb(wanted(code)) == abs(amount)
    assert money.major_units(Payload({"a": f"{major:f}"}), "a") == major


@given(st.decimals(0, 10**14, places=4))
def test_every_decimal_keeps_its_digits(amount: Decimal) -> None:
    data = Payload.json(f'{{"a": {amount:f}, "b": "{amount:f}"}}'.encode())
    assert str(money.major_units(data, "a")) == str(money.major_units(data, "b")) == f"{amount:f}"
