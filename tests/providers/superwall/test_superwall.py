"""The traps of Superwall."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import simplejson

from relay import mapping, provider, samples
from relay.errors import PayloadError
from relay.model import Headers, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.samples import Sample

HERE = Path(__file__).parent
LOADED = provider.load("superwall")
VISITOR = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"
FREE = {"price": 0, "priceInPurchasedCurrency": 0}


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def told(name: str, settings: dict[str, Any] | None = None, /, **changes: Any) -> Payment | Ignored:
    """What a recorded event becomes, with some of its fields changed."""
    request = recorded(name).request
    body = simplejson.loads(request.body, use_decimal=True)
    body["data"].update(changes)
    request = replace(request, body=simplejson.dumps(body, use_decimal=True).encode())
    (event,) = mapping.events(LOADED, request, LOADED.defaults() | (settings or {}))
    return mapping.payment(LOADED, event)


def paid(found: Payment | Ignored) -> Payment:
    assert isinstance(found, Payment), found
    return found


def test_the_reference_vector_of_svix_is_genuine() -> None:
    headers = Headers(
        [
            ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("svix-timestamp", "1614265330"),
            ("svix-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ]
    )
    sent_at = datetime.fromtimestamp(1614265330, UTC)
    request = Received(b'{"test": 2432232314}', headers, sent_at)
    trust = Trust(("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",), 300, {}, lambda _: b"")
    LOADED.signature.verify(request, trust)


def test_the_price_in_dollars_is_told_only_where_the_local_one_is_unknown() -> None:
    known = paid(told("initial_purchase.first"))
    assert (str(known.amount), known.currency) == ("9.99", "EUR")
    for missing in ({"currencyCode": None}, {"priceInPurchasedCurrency": None}):
        found = paid(told("initial_purchase.first", **missing))
        assert (str(found.amount), found.currency) == ("10.84", "USD")


@pytest.mark.parametrize("name", ["renewal.renewal", "non_renewing_purchase", "expiration"])
def test_a_negative_price_is_a_refund_in_an_event_of_any_type(name: str) -> None:
    back = {"price": -5.43, "priceInPurchasedCurrency": -5, "transactionId": "700002050000012"}
    refund = paid(told(name, **back))
    assert (refund.kind, refund.amount, refund.recurrence) == (Kind.REFUND, 5, None)
    assert refund.original_id == "700002050000012"


def test_a_cancellation_by_support_that_gives_nothing_back_is_no_refund() -> None:
    found = told("cancellation.unsubscribe", cancelReason="CUSTOMER_SUPPORT")
    assert found == Ignored("no_money_moved")


def test_refunds_are_held_against_the_charge_they_share_an_id_with() -> None:
    charge, refund = paid(told("renewal.after_trial")), paid(told("cancellation.refund"))
    assert refund.original_id == charge.transaction_id != refund.transaction_id
    assert charge.occurred_at < refund.occurred_at


def test_of_a_family_only_the_one_who_pays_counts() -> None:
    assert paid(told("renewal.family_organizer")).amount
    shared = told("initial_purchase.trial", isFamilyShare=True)
    assert shared == Ignored("family_share")


def test_what_is_free_without_a_trial_is_no_trial() -> None:
    for name, period in (("initial_purchase.first", "INTRO"), ("renewal.renewal", "TRIAL")):
        found = told(name, periodType=period, **FREE)
        assert isinstance(found, Ignored)
        assert found.reason == "zero_amount"


def test_a_trial_and_the_charge_after_it_are_one_subscription_and_two_movements() -> None:
    trial, first = paid(told("initial_purchase.trial")), paid(told("renewal.after_trial"))
    assert trial.subscription_id == first.subscription_id
    assert trial.transaction_id != first.transaction_id
    assert first.recurrence is Recurrence.FIRST
    late = paid(told("renewal.after_trial", isTrialConversion=False, periodType="TRIAL"))
    assert late.recurrence is Recurrence.FIRST


def test_a_user_id_that_is_a_uuid_is_a_visitor_only_if_the_source_says_so() -> None:
    assert paid(told("renewal.renewal", originalAppUserId=VISITOR)).visitor_id is None
    settings = {"app_user_id_is_visitor": True}
    found = paid(told("renewal.renewal", settings, originalAppUserId=VISITOR))
    assert found.visitor_id == VISITOR
    assert paid(told("renewal.published", settings)).visitor_id is None


@pytest.mark.parametrize("attributes", [None, [], {"email": {"work": 1}, "name": 7}])
def test_attributes_that_are_no_texts_do_no_harm(attributes: Any) -> None:
    found = paid(told("initial_purchase.first", userAttributes=attributes))
    assert (found.email, found.name, found.visitor_id) == (None, None, None)


def test_a_test_without_an_id_is_known_by_its_delivery() -> None:
    request = replace(recorded("test").request, body=b'{"type": "test", "data": {}}')
    (event,) = mapping.events(LOADED, request, {})
    assert event.id == request.headers.get("svix-id")


def test_a_payload_in_another_format_is_refused_by_name_and_not_misread() -> None:
    body = b'{"type": "renewal", "data": {"id": "evt_1", "event": {"price": 9.99}}}'
    request = replace(recorded("renewal.renewal").request, body=body)
    (event,) = mapping.events(LOADED, request, LOADED.defaults())
    with pytest.raises(PayloadError, match=r"\$\.data\.transactionId"):
        mapping.payment(LOADED, event)
