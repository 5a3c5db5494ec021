"""Midtrans' traps, beside what `test_providers.py` asks of every provider."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relay import mapping, preview, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Event, Ignored, Payment, Received
from relay.samples import Sample

HERE = Path(__file__).parent
LOADED = provider.load("midtrans")


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def changed(name: str, **fields: Any) -> Received:
    request = recorded(name).request
    return replace(request, body=json.dumps(json.loads(request.body) | fields).encode())


def events(request: Received) -> list[Event]:
    return mapping.events(LOADED, request, LOADED.defaults())


def become(request: Received) -> Payment | Ignored:
    return mapping.payment(LOADED, events(request)[-1])


def looked_up(name: str, **fields: Any) -> dict[str, Any]:
    sample = recorded(name)
    settings = LOADED.defaults() | dict(sample.settings)
    request = changed(name, **fields)
    return preview.preview(LOADED, request, settings=settings, documents=sample.documents)


@pytest.mark.parametrize(
    ("field", "other"),
    [("order_id", "order-1002"), ("status_code", "201"), ("gross_amount", "100001.00")],
)
def test_each_signed_field_matters(field: str, other: str) -> None:
    with pytest.raises(VerificationError):
        LOADED.signature.verify(
            changed("settlement", **{field: other}), recorded("settlement").trust()
        )


@pytest.mark.parametrize(
    "moved",
    [
        {"order_id": "order-1001200", "status_code": "", "gross_amount": "100000.00"},
        {"order_id": "order-1001", "status_code": "", "gross_amount": "200100000.00"},
        {"order_id": "order-1001", "status_code": "20", "gross_amount": "0100000.00"},
        {"order_id": "order-10012", "status_code": "001", "gross_amount": "00000.00"},
    ],
)
def test_digits_cannot_move_from_one_signed_field_to_another(moved: dict[str, str]) -> None:
    with pytest.raises(VerificationError):
        LOADED.signature.verify(changed("settlement", **moved), recorded("settlement").trust())


def test_the_signed_values_are_spelt_as_in_the_body() -> None:
    sample = recorded("pending.numbers")
    body = sample.request.body.replace(b'"gross_amount": 10000', b'"gross_amount": 10000.00')
    text = f"order-100420110000.00{sample.secrets[0]}"
    old = json.loads(body)["signature_key"].encode()
    signed = body.replace(old, hashlib.sha512(text.encode()).hexdigest().encode())
    LOADED.signature.verify(replace(sample.request, body=signed), sample.trust())


def test_a_pending_notification_that_is_called_settled_is_no_payment() -> None:
    """Its signature still holds: the status is not signed, the code 201 is."""
    forged = changed("pending.numbers", transaction_status="settlement")
    LOADED.signature.verify(forged, recorded("pending.numbers").trust())
    assert become(forged) == Ignored("not_paid")


def test_a_challenge_that_is_accepted_is_another_event() -> None:
    accepted = changed("capture.challenge", fraud_status="accept", status_code="200")
    assert events(accepted)[0].id != events(recorded("capture.challenge").request)[0].id
    assert isinstance(become(accepted), Payment)


def test_capture_and_settlement_tell_of_one_movement() -> None:
    captured = become(recorded("capture.accept").request)
    settled = become(recorded("settlement.after_capture").request)
    assert captured.transaction_id == settled.transaction_id
    assert captured.visitor_id is None
    assert settled.visitor_id is not None


def test_times_are_jakartas() -> None:
    found = become(recorded("settlement").request)
    assert found.occurred_at == datetime(2026, 3, 1, 10, 13, 10, tzinfo=UTC)


def test_a_refund_that_is_listed_again_is_the_same_event() -> None:
    first = [it.id for it in events(recorded("partial_refund").request)]
    both = [it.id for it in events(recorded("refund.second").request)]
    assert both[:1] == first
    assert len(set(both)) == 2


def test_what_midtrans_itself_says_outdoes_the_notification() -> None:
    [paid] = looked_up("settlement.looked_up", gross_amount="1.00")["payments"]
    assert paid["datafast"]["amount"] == 100000


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("settlement.looked_up", {"transaction_id": "made-up-to-be-counted-again"}),
        ("settlement.looked_up", {"transaction_status": "chargeback"}),
        ("partial_refund.looked_up", {"refunds": [{"refund_key": "x", "refund_amount": "1"}]}),
    ],
)
def test_what_midtrans_does_not_confirm_is_not_told(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(PayloadError) as error:
        looked_up(name, **fields)
    assert error.value.reason == "not_confirmed"


def test_the_client_key_is_not_taken_for_the_server_key() -> None:
    assert LOADED.signature.flaw("SB-Mid-client-example") is not None
