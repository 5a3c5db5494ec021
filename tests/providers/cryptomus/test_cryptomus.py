"""Cryptomus' traps, beside what `test_providers.py` asks of every provider."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay import mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Payment, Received

HERE = Path(__file__).parent
LOADED = provider.load("cryptomus")
PAID = samples.read(HERE / "payment.paid.http")


def changed(name: str, change: Callable[[dict[str, Any]], None]) -> Received:
    request = samples.read(HERE / f"{name}.http").request
    body = json.loads(request.body)
    change(body)
    return replace(request, body=json.dumps(body).encode())


def payment(name: str, **fields: Any) -> Payment:
    request = changed(name, lambda it: it.update(fields))
    [event] = mapping.events(LOADED, request, LOADED.defaults())
    found = mapping.payment(LOADED, event)
    assert isinstance(found, Payment)
    return found


def test_the_text_that_is_signed_is_spelt_as_php_does() -> None:
    """Put together by hand, so that no JSON writer of ours has a say in it."""
    text = '{"page":"https:\\/\\/a.example\\/é","n":null,"ok":true,"m":[],"line":"\\u2028\\n"}'
    signed = base64.b64encode(text.encode()) + PAID.secrets[0].encode()
    body = f'{text[:-1]},"sign":"{hashlib.md5(signed).hexdigest()}"}}'
    LOADED.signature.verify(replace(PAID.request, body=body.encode()), PAID.trust())


@pytest.mark.parametrize("ascii_only", [True, False])
def test_it_does_not_matter_how_the_delivery_itself_spells_slashes_and_accents(
    ascii_only: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    sample = samples.read(HERE / "payment.paid.priced_in_crypto.http")
    spelt = json.dumps(json.loads(sample.request.body), ensure_ascii=ascii_only, indent=1)
    LOADED.signature.verify(replace(sample.request, body=spelt.encode()), sample.trust())


def test_the_order_of_the_keys_is_part_of_what_is_signed() -> None:
    body = dict(reversed(json.loads(PAID.request.body).items()))
    with pytest.raises(VerificationError):
        LOADED.signature.verify(replace(PAID.request, body=json.dumps(body).encode()), PAID.trust())


@pytest.mark.parametrize("sign", [None, "", 1, [], {}, "é" * 32, "0" * 32, "A" * 10_000])
def test_a_claim_that_is_none_is_refused(sign: Any) -> None:
    forged = changed("payment.paid", lambda it: it.update(sign=sign))
    with pytest.raises(VerificationError):
        LOADED.signature.verify(forged, PAID.trust())


def test_a_price_in_money_counts_and_not_the_dollars_beside_it() -> None:
    found = payment("payment.paid_over")
    assert (found.amount, found.currency) == (Decimal("24.2"), "EUR")


def test_a_price_in_crypto_counts_in_the_dollars_that_cryptomus_tells() -> None:
    found = payment("payment.paid.priced_in_crypto")
    assert (found.amount, found.currency) == (Decimal("0.23"), "USD")


def test_a_price_in_crypto_without_its_dollars_is_refused() -> None:
    with pytest.raises(PayloadError) as error:
        payment("payment.paid.priced_in_crypto", payment_amount_usd=None)
    assert error.value.reason == "unknown_currency"


def test_a_refund_is_held_against_the_payment_of_the_same_uuid() -> None:
    refund = payment("payment.refund_paid")
    assert refund.original_id == payment("payment.paid").transaction_id
    assert refund.transaction_id != refund.original_id
    assert refund.amount is None


@pytest.mark.parametrize("data", [None, "", "Тест", "{", '{"datafast_visitor_id":', "[]"])
def test_whatever_the_owner_put_into_additional_data_costs_no_payment(data: Any) -> None:
    assert payment("payment.paid", additional_data=data).visitor_id is None
