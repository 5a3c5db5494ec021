"""The traps of Hotmart."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import simplejson

from relay import mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Headers, Ignored, Kind, Payment, Recurrence
from relay.samples import Sample

HERE = Path(__file__).parent
LOADED = provider.load("hotmart")
VISITOR = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def told(name: str, change: Callable[[dict[str, Any]], Any] = lambda _: None) -> Payment | Ignored:
    """What a recorded event becomes, with its body changed."""
    request = recorded(name).request
    body = simplejson.loads(request.body, use_decimal=True)
    change(body)
    request = replace(request, body=simplejson.dumps(body, use_decimal=True).encode())
    (event,) = mapping.events(LOADED, request, LOADED.defaults())
    return mapping.payment(LOADED, event)


def paid(found: Payment | Ignored) -> Payment:
    assert isinstance(found, Payment), found
    return found


def purchase(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda body: body["data"]["purchase"].update(fields)


@pytest.mark.parametrize(
    "values", [[], ["Example-hottok"], ["example-hottok", "example-hottok"]], ids=str
)
def test_a_hottok_in_the_body_does_not_stand_in_for_the_header(values: list[str]) -> None:
    sample = recorded("PURCHASE_APPROVED.one-time")
    body = sample.request.body.replace(b"{", b'{"hottok": "example-hottok", ', 1)
    headers = Headers([("X-Hotmart-Hottok", value) for value in values])
    with pytest.raises(VerificationError):
        LOADED.signature.verify(replace(sample.request, body=body, headers=headers), sample.trust())


def test_what_is_told_is_the_price_after_the_coupon_and_without_fees() -> None:
    sale = paid(told("PURCHASE_APPROVED.one-time"))
    assert (str(sale.amount), sale.currency) == ("150.0", "BRL")


def test_a_number_above_one_is_a_renewal_and_one_is_first_only_in_a_subscription() -> None:
    for number, recurrence in ((1, Recurrence.FIRST), (2, Recurrence.RENEWAL), ("12", "renewal")):
        found = paid(told("PURCHASE_APPROVED.first", purchase(recurrence_number=number)))
        assert found.recurrence == recurrence
    single = paid(told("PURCHASE_APPROVED.one-time", purchase(recurrence_number=1)))
    assert single.recurrence is Recurrence.ONE_TIME


def test_a_subscription_without_a_number_is_left_to_the_ledger() -> None:
    found = paid(told("PURCHASE_APPROVED.place-unknown"))
    assert found.recurrence is Recurrence.UNKNOWN
    assert found.subscribed_at is None


def test_the_renewals_of_one_subscription_are_movements_of_their_own() -> None:
    first, renewal = (paid(told(f"PURCHASE_APPROVED.{name}")) for name in ("first", "renewal"))
    assert first.subscription_id == renewal.subscription_id == "EX4MPL31"
    assert first.transaction_id != renewal.transaction_id


def test_a_refund_happened_when_it_was_told_and_not_when_the_sale_was_approved() -> None:
    sale, refund = paid(told("PURCHASE_APPROVED.one-time")), paid(told("PURCHASE_REFUNDED.full"))
    assert refund.original_id == sale.transaction_id
    assert refund.occurred_at > sale.occurred_at


def test_a_partial_refund_is_never_told_as_a_full_one() -> None:
    with pytest.raises(PayloadError) as failed:
        told("PURCHASE_REFUNDED.full", purchase(status="PARTIALLY_REFUNDED"))
    assert failed.value.reason == "unknown_refund_amount"


def test_a_refund_and_a_chargeback_of_one_sale_have_ids_of_their_own() -> None:
    change = purchase(transaction="HP0000000000001")
    refund, dispute = (
        paid(told("PURCHASE_REFUNDED.full")),
        paid(told("PURCHASE_CHARGEBACK", change)),
    )
    assert (refund.kind, dispute.kind) == (Kind.REFUND, Kind.DISPUTE)
    assert refund.original_id == dispute.original_id
    assert refund.transaction_id != dispute.transaction_id


def test_the_second_test_is_not_a_repetition_of_the_first() -> None:
    first = paid(told("PURCHASE_APPROVED.test"))
    second = paid(told("PURCHASE_APPROVED.test", lambda body: body.update(id="another")))
    assert first.test
    assert first.transaction_id != second.transaction_id


def test_the_visitor_is_found_in_either_parameter_and_a_campaign_is_none() -> None:
    for origin in ({"sck": VISITOR}, {"sck": "newsletter", "xcod": VISITOR}):
        found = paid(told("PURCHASE_APPROVED.one-time", purchase(origin=origin)))
        assert found.visitor_id == VISITOR
    assert (
        paid(told("PURCHASE_APPROVED.one-time", purchase(origin={"sck": "fb"}))).visitor_id is None
    )
