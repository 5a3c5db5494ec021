"""NOWPayments' traps, beside what `test_providers.py` asks of every provider."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers import nowpayments
from relay import mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Headers, Payment, Received, Trust

HERE = Path(__file__).parent
LOADED = provider.load("nowpayments")
SETTINGS = LOADED.defaults()
TRUST = Trust(("ipn-test-secret",), 300, SETTINGS, lambda _: b"")

# Signed by Node 20, in two readings of the documentation.
EDGE = '{"z":1,"a":{"y":[3,2.50,{"b":true,"a":null}],"x":"café — ✓"},"big":1.5e21,"neg":-0.000123}'
AS_IT_IS = "44165af3e6ad95d07cb6d03d034168da413685eebf06fc1cc227ecbdb49d1edd169dafb28690af225b4e09ba5bcb79d6970f99ffa57832bef94d6d03178aa52d"
SORTED = "f71015e296ec4ebc9d32a7e87593b0048cb8031f56183b00f5f906e03b7171b96c04f922bcf61a273e938be8f70ded82828ca138ea2ca70f02e72afdfc92aa2e"


def recorded(name: str) -> Received:
    return samples.read(HERE / f"{name}.http").request


def changed(name: str, change: Callable[[dict[str, Any]], None]) -> Received:
    request = recorded(name)
    body = json.loads(request.body)
    change(body)
    return replace(request, body=json.dumps(body).encode())


def payment(request: Received) -> Payment:
    [event] = mapping.events(LOADED, request, SETTINGS)
    found = mapping.payment(LOADED, event)
    assert isinstance(found, Payment)
    return found


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("20.0", "20"),
        ("-0.0", "0"),
        ("100", "100"),
        ("2.50", "2.5"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-7"),
        ("1.5E21", "1.5e+21"),
        ("1e20", "100000000000000000000"),
        ("9007199254740993", "9007199254740992"),
    ],
)
def test_numbers_are_written_as_node_writes_them(text: str, written: str) -> None:
    value = json.loads(text, parse_float=Decimal)
    assert nowpayments.number(value) == written


@pytest.mark.parametrize("signature", [AS_IT_IS, SORTED])
def test_what_node_signed_is_accepted_in_either_reading(signature: str) -> None:
    request = replace(
        recorded("finished"),
        body=EDGE.encode(),
        headers=Headers([("x-nowpayments-sig", signature)]),
    )
    LOADED.signature.verify(request, TRUST)
    with pytest.raises(VerificationError):
        LOADED.signature.verify(replace(request, body=request.body.replace(b"3,", b"4,")), TRUST)


def test_lists_become_objects_and_nested_keys_get_lost_as_in_the_documentation() -> None:
    first, *_, last = nowpayments.readings({"b": [{"d": 1, "b": 2}], "a": {"c": 1}})
    assert nowpayments.javascript(first) == b'{"a":{"c":1},"b":{"0":{"b":2,"d":1}}}'
    assert nowpayments.javascript(last) == b'{"a":{},"b":[{"b":2}]}'


def test_the_order_and_the_spaces_of_the_body_do_not_matter() -> None:
    sample = samples.read(HERE / "finished.http")
    body = dict(reversed(json.loads(sample.request.body).items()))
    spaced = replace(sample.request, body=json.dumps(body, indent=2).encode())
    LOADED.signature.verify(spaced, sample.trust())


def test_digits_that_javascript_does_not_see_are_not_counted() -> None:
    sample = samples.read(HERE / "finished.http")
    longer = sample.request.body.replace(
        b'"price_amount":5,', b'"price_amount":5.00000000000000000001,'
    )
    request = replace(sample.request, body=longer)
    LOADED.signature.verify(request, sample.trust())
    assert payment(request).amount == Decimal(5)


@pytest.mark.parametrize("body", ['{"a":1e999}', '{"a":' + "[" * 900 + "]" * 900 + "}", "[]"])
def test_a_body_that_javascript_could_not_have_signed_is_refused(body: str) -> None:
    request = replace(recorded("finished"), body=body.encode())
    with pytest.raises(VerificationError):
        LOADED.signature.verify(request, TRUST)


def test_the_price_counts_and_not_what_was_sent_or_paid_out() -> None:
    request = changed("finished", lambda it: it.update(actually_paid=1, outcome_amount=2))
    assert (payment(request).amount, payment(request).currency) == (Decimal(5), "USD")


def test_every_status_of_a_payment_is_an_event_of_its_own_however_often_it_is_told() -> None:
    one, again, other = (
        LOADED.parse(it)[0].id
        for it in (
            recorded("finished"),
            changed("finished", lambda it: it.update(updated_at=1772359299999)),
            recorded("refunded"),
        )
    )
    assert one == again == "5261100001:finished"
    assert other == "5261100001:refunded"


def test_an_order_id_without_a_visitor_is_a_reference_and_a_bare_visitor_is_none() -> None:
    visitor = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"
    told = [
        payment(changed("finished", lambda it, text=text: it.update(order_id=text)))  # type: ignore[misc]
        for text in ("1001", visitor, None, f"1001|{visitor}")
    ]
    assert [it.reference for it in told] == ["1001", None, None, "1001"]
    assert [it.visitor_id for it in told] == [None, visitor, None, visitor]


def test_a_price_in_crypto_is_refused_and_not_guessed() -> None:
    with pytest.raises(PayloadError) as error:
        payment(recorded("finished.price_in_crypto"))
    assert error.value.reason == "unknown_currency"
