"""The traps of Mollie."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers import mollie
from relay import fetch, mapping, provider, samples
from relay.errors import FetchError, PayloadError, VerificationError
from relay.model import (
    Document,
    Event,
    Headers,
    Ignored,
    Kind,
    Payment,
    Received,
    Recurrence,
    Trust,
)
from relay.payload import Payload
from relay.samples import Sample

HOME = Path(__file__).parent
MOLLIE = provider.load("mollie")
# Body and secret of the SDK's SignatureValidatorTest, which computes the value; so is it here.
SDK_BODY = b'{"id":"tr_12345","event_type":"payment-link.paid"}'
SDK_SECRET = "test_webhook_secret"
SDK_DIGEST = "e479a5e4aaa17db94cfc546071e10e91c0b37f21e464e751ebdd7d7ad2ffd146"


def sample(name: str) -> Sample:
    return samples.read(HOME / f"{name}.http")


def fetched(name: str) -> Any:
    """The payment that a recorded request's hint leads to, to be changed."""
    return json.loads(sample(name).documents[0].body)


def events(name: str, payment: Any = None) -> list[Event]:
    """The events of a recorded request; `payment` stands in for what was fetched."""
    recorded = sample(name)
    hint = mapping.events(MOLLIE, recorded.request, MOLLIE.defaults())[0]
    documents = list(recorded.documents)
    if payment is not None:
        documents[0] = replace(documents[0], body=json.dumps(payment).encode())
    return mapping.complete(MOLLIE, hint, fetch.RecordedApi(documents))


def payments(name: str, payment: Any = None) -> list[Payment]:
    found = (mapping.payment(MOLLIE, event) for event in events(name, payment))
    return [each for each in found if not isinstance(each, Ignored)]


# The signature


def signed(*values: str, body: bytes = SDK_BODY) -> Received:
    request = sample("payment-link.paid").request
    headers = [pair for pair in request.headers.pairs if pair[0] != "x-mollie-signature"]
    headers += [("X-Mollie-Signature", value) for value in values]
    return replace(request, body=body, headers=Headers(headers))


def verify(request: Received, signing_secret: str | None = SDK_SECRET) -> None:
    trust = sample("payment-link.paid").trust()
    settings = {"signing_secret": signing_secret}
    mollie.SIGNATURE.verify(request, Trust(trust.secrets, 300, settings, trust.download))


@pytest.mark.parametrize(
    "values",
    [
        [f"sha256={SDK_DIGEST}"],
        [SDK_DIGEST],
        [f"sha256={'0' * 64}", f"sha256={SDK_DIGEST}"],
        [f"sha256={'0' * 64}, sha256={SDK_DIGEST}"],
    ],
    ids=["prefixed", "bare", "twice_during_a_rotation", "joined_by_a_proxy"],
)
def test_a_signature_is_accepted_in_each_of_its_spellings(values: list[str]) -> None:
    verify(signed(*values))


@pytest.mark.parametrize("at", [0, 20, len(SDK_BODY) - 1])
def test_a_flipped_bit_of_a_signed_body_is_refused(at: int) -> None:
    body = SDK_BODY[:at] + bytes([SDK_BODY[at] ^ 1]) + SDK_BODY[at + 1 :]
    with pytest.raises(VerificationError, match="matches none"):
        verify(signed(f"sha256={SDK_DIGEST}", body=body))


@pytest.mark.parametrize("claim", ["", "sha256=", SDK_DIGEST.upper(), f"sha1={SDK_DIGEST}", "é"])
def test_another_spelling_of_the_signature_is_refused(claim: str) -> None:
    with pytest.raises(VerificationError):
        verify(signed(claim))


@pytest.mark.parametrize("secret", [None, ""])
def test_a_signature_that_cannot_be_checked_is_refused_and_the_setting_named(
    secret: str | None,
) -> None:
    with pytest.raises(VerificationError, match="signing_secret") as caught:
        verify(signed(f"sha256={SDK_DIGEST}"), secret)
    assert caught.value.reason == "no_signing_secret"


def test_a_good_signature_does_not_make_up_for_a_wrong_url() -> None:
    with pytest.raises(VerificationError) as caught:
        verify(replace(signed(f"sha256={SDK_DIGEST}"), url_secret="x" * 32))
    assert caught.value.reason == "bad_url_secret"


def test_without_its_signature_a_signed_event_is_still_only_a_hint() -> None:
    request = signed(body=sample("payment.paid.signed").request.body)
    verify(request)
    (event,) = mollie.parse(request)
    assert (event.type, event.reopens) == ("payment", True)


# The hint


def test_every_telling_of_a_payment_is_one_event_that_reopens() -> None:
    newer = sample("payment.paid.signed").request
    classic = replace(sample("payment.paid.oneoff").request, body=b"id=tr_Ex4mPl4015")
    for request in (classic, newer):
        (event,) = mollie.parse(request)
        assert (event.id, event.type, event.reopens) == ("tr_Ex4mPl4015", "payment", True)


@pytest.mark.parametrize(
    "id", ["tr_../../v2/me", "tr_1%3Fx=1", "tr_1/refunds", "tr_é", "tr_", "tr"]
)
def test_an_id_that_would_change_the_path_is_refused(id: str) -> None:
    request = replace(sample("payment.open").request, body=f"id={id}".encode())
    with pytest.raises(PayloadError):
        mollie.parse(request)


def test_a_refund_event_without_its_snapshot_cannot_name_the_payment() -> None:
    request = sample("refund.refunded.signed").request
    body = json.loads(request.body)
    del body["_embedded"]
    with pytest.raises(PayloadError, match="paymentId"):
        mollie.parse(replace(request, body=json.dumps(body).encode()))


def test_an_order_is_ignored_and_nothing_is_fetched_for_it() -> None:
    request = replace(sample("payment.open").request, body=b"id=ord_kEn1PlbGa")
    (event,) = mapping.events(MOLLIE, request, MOLLIE.defaults())
    assert mapping.complete(MOLLIE, event, fetch.RecordedApi([])) == [event]
    assert mapping.payment(MOLLIE, event) == Ignored("orders_are_not_read")


class Asked:
    """An API that notes what it is asked, and knows one payment and no customer."""

    def __init__(self, payment: Any) -> None:
        self.payment = payment
        self.asked: list[tuple[str, Any]] = []

    def get(self, path: str, headers: Any = None) -> Payload:
        self.asked.append((path, headers))
        return Payload(self.payment)

    def get_or_none(self, path: str, headers: Any = None) -> None:
        self.asked.append((path, headers))


def ask(name: str) -> tuple[Asked, list[Event]]:
    api = Asked(fetched(name))
    hint = replace(mollie.parse(sample(name).request)[0], settings={"api_key": "live_example"})
    return api, mollie.fetch(hint, api)


def test_payment_and_customer_are_read_with_the_api_key() -> None:
    api, _ = ask("payment.paid.first")
    key = {"Authorization": "Bearer live_example"}
    assert api.asked == [
        ("/v2/payments/tr_Ex4mPl4003?embed=refunds,chargebacks", key),
        ("/v2/customers/cst_Ex4mPl4001", key),
    ]


def test_a_customer_that_may_not_be_read_costs_only_the_email() -> None:
    _, (event,) = ask("payment.paid.first")
    paid = mollie.charge(event)
    assert isinstance(paid, Payment)
    assert (paid.email, paid.name, paid.amount) == (None, "JORDAN EXAMPLE", Decimal("24.20"))


def test_an_unpaid_payment_costs_no_second_request() -> None:
    payment = fetched("payment.open") | {"customerId": "cst_Ex4mPl4001"}
    api = Asked(payment)
    mollie.fetch(Event("tr_Ex4mPl4014", "payment", Payload({}), settings={"api_key": "k"}), api)
    assert len(api.asked) == 1


def test_a_payment_that_was_not_recorded_is_asked_for_not_made_up() -> None:
    hint = mollie.parse(sample("payment.open").request)[0]
    with pytest.raises(FetchError):
        mollie.fetch(replace(hint, settings={"api_key": None}), fetch.RecordedApi([]))


# The states


@pytest.mark.parametrize("status", ["queued", "pending", "processing", "failed", "canceled"])
def test_a_refund_is_told_only_when_it_is_refunded(status: str) -> None:
    payment = fetched("refund.refunded.full")
    payment["_embedded"]["refunds"][0]["status"] = status
    assert [each.kind for each in payments("refund.refunded.full", payment)] == [Kind.CHARGE]


def test_a_refund_that_becomes_final_is_a_new_event_and_the_same_movement() -> None:
    early = fetched("refund.refunded.full")
    early["_embedded"]["refunds"][0]["status"] = "processing"
    before = {event.id for event in events("refund.refunded.full", early)}
    after = {event.id for event in events("refund.refunded.full")}
    assert after - before == {"re_Ex4mPl4008:refunded"}
    assert payments("refund.refunded.full")[1].transaction_id == "re_Ex4mPl4008"


def test_a_payment_that_becomes_paid_is_a_new_event() -> None:
    paid = fetched("payment.open") | {"status": "paid", "paidAt": "2026-03-01T09:00:41+00:00"}
    assert [event.id for event in events("payment.open")] == ["tr_Ex4mPl4014:open"]
    assert [event.id for event in events("payment.open", paid)] == ["tr_Ex4mPl4014:paid"]


@pytest.mark.parametrize(
    "status", ["open", "pending", "authorized", "canceled", "expired", "failed"]
)
def test_a_payment_that_is_not_paid_is_ignored_for_that(status: str) -> None:
    (event,) = events("payment.open", fetched("payment.open") | {"status": status})
    assert mapping.payment(MOLLIE, event) == Ignored("not_paid")


def test_a_payment_stays_told_as_it_was_after_refund_and_chargeback() -> None:
    for name in ("refund.refunded.full", "refund.refunded.partial", "chargeback.received"):
        charge = payments(name)[0]
        assert (charge.kind, charge.amount) == (Kind.CHARGE, Decimal("24.20"))


def test_a_chargeback_that_is_reversed_was_received_before() -> None:
    _, taken, returned = payments("chargeback.reversed")
    assert (taken.kind, returned.kind) == (Kind.DISPUTE, Kind.REINSTATED)
    assert (taken.amount, taken.original_id) == (returned.amount, returned.original_id)
    assert returned.transaction_id == f"{taken.transaction_id}:reversed"
    assert taken.occurred_at < returned.occurred_at


def test_a_reversal_seen_later_is_one_new_event() -> None:
    early = fetched("chargeback.reversed")
    del early["_embedded"]["chargebacks"][0]["reversedAt"]
    before = {event.id for event in events("chargeback.reversed", early)}
    after = {event.id for event in events("chargeback.reversed")}
    assert (before < after, after - before) == (True, {"chb_Ex4mp13:reversed"})


# The meaning


@pytest.mark.parametrize(
    ("start", "expected"),
    [("2026-03-15", "2026-03-15T00:00:00+00:00"), ("soon", "2026-03-01T09:01:00+00:00")],
)
def test_a_subscription_begins_with_its_first_charge_and_not_with_its_trial(
    start: str, expected: str
) -> None:
    subscription = {"startDate": start, "createdAt": "2026-03-01T09:01:00+00:00"}
    assert mollie.began(Payload(subscription)) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(("order_id", "expected"), [(1337, "1337"), ([1, 2], None), (True, None)])
def test_an_order_id_that_is_none_does_not_cost_the_payment(
    order_id: object, expected: str | None
) -> None:
    payment = fetched("payment.paid.oneoff") | {"metadata": {"order_id": order_id}}
    assert payments("payment.paid.oneoff", payment)[0].reference == expected


def test_a_zero_payment_is_a_trial_only_when_it_sets_up_a_mandate() -> None:
    oneoff = fetched("payment.paid.trial") | {"sequenceType": "oneoff"}
    (event,) = events("payment.paid.trial", oneoff)
    found = mapping.payment(MOLLIE, event)
    assert isinstance(found, Ignored)
    assert found.reason == "zero_amount"


@pytest.mark.parametrize("sequence", ["recurring", None, "new-word"])
def test_the_ledger_decides_where_mollie_gives_no_evidence(sequence: str | None) -> None:
    payment = fetched("payment.paid.oneoff") | {"sequenceType": sequence}
    assert payments("payment.paid.oneoff", payment)[0].recurrence is Recurrence.UNKNOWN


def test_an_amount_captured_of_zero_does_not_hide_the_payment() -> None:
    payment = fetched("payment.paid.captured")
    payment["amountCaptured"]["value"] = "0.00"
    assert payments("payment.paid.captured", payment)[0].amount == Decimal("50.00")


def test_yen_have_no_decimals_and_are_not_divided() -> None:
    payment = fetched("payment.paid.oneoff") | {"amount": {"value": "500", "currency": "JPY"}}
    charge = payments("payment.paid.oneoff", payment)[0]
    assert (charge.amount, charge.currency) == (Decimal(500), "JPY")


def test_a_payment_without_metadata_takes_the_visitor_of_its_customer() -> None:
    recorded = sample("payment.paid.recurring")
    payment, customer, subscription = (json.loads(it.body) for it in recorded.documents)
    payment["metadata"] = subscription["metadata"] = None
    customer["metadata"] = {"datafast_visitor_id": "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"}
    documents = [
        Document(document.path, json.dumps(value).encode(), document.fetched_at)
        for document, value in zip(
            recorded.documents, (payment, customer, subscription), strict=True
        )
    ]
    hint = mapping.events(MOLLIE, recorded.request, MOLLIE.defaults())[0]
    (event,) = mapping.complete(MOLLIE, hint, fetch.RecordedApi(documents))
    charge = mapping.payment(MOLLIE, event)
    assert isinstance(charge, Payment)
    assert charge.visitor_id == "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"


@pytest.mark.parametrize(
    "gone", ["metadata", "details", "customerId", "_embedded", "sequenceType", "mode", "paidAt"]
)
def test_what_is_good_to_have_may_be_missing(gone: str) -> None:
    payment = fetched("payment.paid.first")
    del payment[gone]
    assert len(payments("payment.paid.first", payment)) == 1


@pytest.mark.parametrize("gone", ["id", "amount", "status"])
def test_what_money_needs_may_not_be_missing(gone: str) -> None:
    payment = fetched("payment.paid.first")
    del payment[gone]
    with pytest.raises(PayloadError, match=gone):
        payments("payment.paid.first", payment)


@pytest.mark.parametrize(
    "name", ["refund.refunded.partial", "chargeback.received", "payment.paid.first"]
)
def test_a_strange_answer_of_the_api_is_a_payload_error_and_nothing_else(name: str) -> None:
    whole = fetched(name)
    for holder, key in places(whole):
        kept = holder[key]
        for other in (None, [], {}, "", "x", -1, 10**40, True, 1.5, "\ud800"):
            holder[key] = other
            try:
                payments(name, whole)
            except (PayloadError, FetchError):
                continue
            finally:
                holder[key] = kept


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])
