"""The traps of RevenueCat."""

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
LOADED = provider.load("revenuecat")
VISITOR = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def told(name: str, settings: dict[str, Any] | None = None, /, **changes: Any) -> Payment | Ignored:
    """What a recorded event becomes, with some of its fields changed."""
    request = recorded(name).request
    body = simplejson.loads(request.body, use_decimal=True)
    body["event"].update(changes)
    request = replace(request, body=simplejson.dumps(body, use_decimal=True).encode())
    (event,) = mapping.events(LOADED, request, LOADED.defaults() | (settings or {}))
    return mapping.payment(LOADED, event)


def paid(found: Payment | Ignored) -> Payment:
    assert isinstance(found, Payment), found
    return found


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["example-revenuecat-token"],
        ["Bearer Bearer example-revenuecat-token"],
        ["bearer example-revenuecat-token"],
        ["Bearer example-revenuecat-token", "Bearer example-revenuecat-token"],
    ],
    ids=["none", "without_its_prefix", "prefixed_twice", "in_other_letters", "doubled"],
)
def test_only_the_whole_value_of_the_header_is_accepted(values: list[str]) -> None:
    sample = recorded("RENEWAL.renewal")
    headers = Headers([("Authorization", value) for value in values])
    with pytest.raises(VerificationError):
        LOADED.signature.verify(replace(sample.request, headers=headers), sample.trust())


def test_the_price_in_dollars_is_told_only_where_the_local_one_is_unknown() -> None:
    known = paid(told("INITIAL_PURCHASE.first"))
    assert (str(known.amount), known.currency) == ("7.99", "EUR")
    for missing in ({"currency": None}, {"price_in_purchased_currency": None}):
        found = paid(told("INITIAL_PURCHASE.first", **missing))
        assert (str(found.amount), found.currency) == ("8.14", "USD")


def test_a_charge_whose_price_is_not_known_is_never_guessed() -> None:
    with pytest.raises(PayloadError, match=r"\$\.event\.price"):
        told("RENEWAL.only-dollars-known", price=None)


def test_what_is_free_without_a_trial_is_no_trial() -> None:
    free = {"price": 0, "price_in_purchased_currency": 0}
    assert told("INITIAL_PURCHASE.family-share", period_type="TRIAL") == Ignored("family_share")
    assert told("NON_RENEWING_PURCHASE.granted", period_type="TRIAL") == Ignored("granted_for_free")
    intro = told("INITIAL_PURCHASE.first", period_type="INTRO", **free)
    assert isinstance(intro, Ignored)
    assert intro.reason == "zero_amount"


def test_a_customer_who_comes_back_to_a_trial_is_no_renewal() -> None:
    assert paid(told("RENEWAL.renewal", period_type="TRIAL")).kind is Kind.TRIAL


def test_a_trial_and_the_charge_after_it_are_one_subscription_and_two_movements() -> None:
    trial, first = paid(told("INITIAL_PURCHASE.trial")), paid(told("RENEWAL.after-trial"))
    assert trial.subscription_id == first.subscription_id
    assert trial.transaction_id != first.transaction_id
    assert first.recurrence is Recurrence.FIRST


@pytest.mark.parametrize("price", [None, 0])
def test_a_refund_by_support_is_one_whatever_its_price_says(price: int | None) -> None:
    unknown = {"price": price, "price_in_purchased_currency": price}
    refund = paid(told("CANCELLATION.refund", **unknown))
    assert (refund.kind, refund.amount, refund.currency) == (Kind.REFUND, None, None)
    assert told("CANCELLATION.refund", period_type="TRIAL", **unknown) == Ignored("no_money_moved")


def test_a_negative_price_is_a_refund_for_any_reason_and_a_positive_one_is_none() -> None:
    assert paid(told("CANCELLATION.refund", cancel_reason="DEVELOPER_INITIATED")).amount
    positive = {"price": 8.14, "price_in_purchased_currency": 7.99}
    left = told("CANCELLATION.unsubscribe", **positive)
    assert left == Ignored("no_money_moved")


def test_a_refund_and_its_reversal_are_held_against_the_charge_they_share_an_id_with() -> None:
    charge, refund, back = (
        paid(told(name)) for name in ("RENEWAL.renewal", "CANCELLATION.refund", "REFUND_REVERSED")
    )
    assert refund.original_id == back.original_id == charge.transaction_id
    assert len({charge.transaction_id, refund.transaction_id, back.transaction_id}) == 3
    assert charge.occurred_at < refund.occurred_at < back.occurred_at


def test_a_user_id_that_is_a_uuid_is_a_visitor_only_if_the_source_says_so() -> None:
    user = {"app_user_id": VISITOR, "original_app_user_id": VISITOR}
    assert paid(told("NON_RENEWING_PURCHASE", **user)).visitor_id is None
    settings = {"app_user_id_is_visitor": True}
    assert paid(told("NON_RENEWING_PURCHASE", settings, **user)).visitor_id == VISITOR
    user["app_user_id"] = "user_1001"
    assert paid(told("NON_RENEWING_PURCHASE", settings, **user)).visitor_id == VISITOR


def test_an_id_that_revenuecat_made_up_is_no_reference_of_the_owners() -> None:
    web = paid(told("INITIAL_PURCHASE.web"))
    assert (web.customer_id or "").startswith("$RCAnonymousID:")
    assert web.reference is None
