"""The traps of GoCardless."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import simplejson

from providers import gocardless
from relay import mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.fetch import RecordedApi
from relay.model import Document, Event, Headers, Ignored, Kind, Payment
from relay.payload import Payload
from relay.samples import Sample

HOME = Path(__file__).parent
LOADED = provider.load("gocardless")
SUBSCRIPTION = "payments.confirmed.subscription.first"
VISITOR = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"
OTHER_VISITOR = "11111111-2222-4333-8444-555555555555"


class Api:
    """The recorded answers, and what was asked for. `changes` are made to them by path."""

    def __init__(self, sample: Sample, changes: Mapping[str, Any] | None = None) -> None:
        documents = [
            changed(each, (changes or {}).get(each.path or "", {})) for each in sample.documents
        ]
        self.recorded = RecordedApi([each for each in documents if each])
        self.asked: list[str] = []
        self.headers: list[Mapping[str, str] | None] = []

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        self._note(path, headers)
        return self.recorded.get(path, headers)

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        self._note(path, headers)
        return self.recorded.get_or_none(path, headers)

    def _note(self, path: str, headers: Mapping[str, str] | None) -> None:
        self.asked.append(path)
        self.headers.append(headers)


def changed(document: Document, change: Mapping[str, Any] | None) -> Document | None:
    """The answer with some fields of its one resource replaced; None takes it away."""
    if change is None:
        return None
    body = simplejson.loads(document.body)
    if change:
        next(iter(body.values())).update(change)
    return replace(document, body=simplejson.dumps(body).encode())


def sample(name: str) -> Sample:
    return samples.read(HOME / f"{name}.http")


def events(name: str, **fields: Any) -> list[Event]:
    """The events of a sample; `fields` are written over those of each event."""
    recorded = sample(name)
    body = simplejson.loads(recorded.request.body)
    for event in body["events"]:
        event.update(fields)
    request = replace(recorded.request, body=simplejson.dumps(body).encode())
    return mapping.events(LOADED, request, LOADED.defaults() | {"api_key": "example-token"})


def told(name: str, api: Api | None = None, **fields: Any) -> Payment | Ignored:
    """What the first event of a sample becomes."""
    (event,) = mapping.complete(LOADED, events(name, **fields)[0], api or Api(sample(name)))
    return mapping.payment(LOADED, event)


def paid(found: Payment | Ignored) -> Payment:
    assert isinstance(found, Payment), found
    return found


def test_a_signature_in_capitals_is_refused() -> None:
    recorded = sample("payments.confirmed")
    claimed = recorded.request.headers.get("webhook-signature") or ""
    shouted = Headers([("Webhook-Signature", claimed.upper())])
    with pytest.raises(VerificationError):
        LOADED.signature.verify(replace(recorded.request, headers=shouted), recorded.trust())


def test_a_request_of_250_events_is_250_events() -> None:
    recorded = sample("payments.confirmed")
    (event,) = simplejson.loads(recorded.request.body)["events"]
    body = {"events": [event | {"id": f"EV000EXAMPLE{number:03}"} for number in range(250)]}
    request = replace(recorded.request, body=simplejson.dumps(body).encode())
    assert len({each.id for each in mapping.events(LOADED, request, {})}) == 250


def test_an_unreadable_time_of_one_event_leaves_the_other_events_of_its_request_alone() -> None:
    recorded = sample("payments.confirmed.batch")
    broken = recorded.request.body.replace(b"2026-03-04T11:05:13.962Z", b"yesterday", 1)
    found = gocardless.parse(replace(recorded.request, body=broken))
    assert [each.occurred_at is None for each in found] == [True, False, False, False]


# What is asked of the API


@pytest.mark.parametrize("name", ["payments.paid_out", "refunds.created", "mandates.cancelled"])
def test_what_moves_no_money_asks_nothing(name: str) -> None:
    api = Api(sample(name))
    assert isinstance(told(name, api), Ignored)
    assert api.asked == []


def test_a_charge_asks_for_the_payment_and_who_paid_with_token_and_version() -> None:
    api = Api(sample("payments.confirmed"))
    told("payments.confirmed", api)
    assert api.asked == [
        "/payments/PM000ONETIME01",
        "/mandates/MD000EXAMPLE01",
        "/customers/CU000EXAMPLE01",
    ]
    wanted = {"Authorization": "Bearer example-token", "GoCardless-Version": "2015-07-06"}
    assert all(headers == wanted for headers in api.headers)


def test_a_payment_that_failed_at_once_costs_one_question() -> None:
    api = Api(sample("payments.failed"))
    assert told("payments.failed", api) == Ignored("no_money_moved")
    assert api.asked == ["/events?payment=PM000NEVERPD01"]


def test_a_refund_that_failed_before_it_was_paid_costs_one_question() -> None:
    api = Api(sample("refunds.failed"))
    assert told("refunds.failed", api) == Ignored("refund_failed")
    assert api.asked == ["/events?refund=RF000EXAMPLE02"]


@pytest.mark.parametrize(
    "id",
    ["../customers", "PM1/../../x", "PM1?x=1", "PM1&y=2", "PM 1", "PM1\nx", "PM%2e", "ＰＭ１"],  # noqa: RUF001
)
@pytest.mark.parametrize("name", ["payments.confirmed", "payments.failed", "refunds.paid.full"])
def test_an_id_that_is_none_never_reaches_a_path(name: str, id: str) -> None:
    api = Api(sample(name))
    with pytest.raises(PayloadError, match="no id of a") as error:
        told(name, api, links={"payment": id, "refund": id})
    assert error.value.reason == "bad_id"
    assert api.asked == []


def test_a_linked_id_that_is_none_is_passed_over_where_the_money_does_not_need_it() -> None:
    links = {"mandate": "../x", "subscription": "SB1?x"}
    api = Api(sample(SUBSCRIPTION), {"/payments/PM000SUBFIRST1": {"links": links}})
    assert paid(told(SUBSCRIPTION, api)).amount == 10
    assert api.asked == ["/payments/PM000SUBFIRST1"]


def test_without_mandate_and_customer_the_money_is_told_all_the_same() -> None:
    away = dict.fromkeys(("/mandates/MD000EXAMPLE01", "/subscriptions/SB000EXAMPLE01"))
    found = paid(told(SUBSCRIPTION, Api(sample(SUBSCRIPTION), away)))
    assert (found.amount, found.currency) == (10, "GBP")
    assert (found.email, found.name, found.customer_id, found.visitor_id) == (None,) * 4


@pytest.mark.parametrize("key", ["id", "amount", "currency"])
def test_what_the_money_needs_and_is_missing_is_named(key: str) -> None:
    api = Api(sample("payments.confirmed"), {"/payments/PM000ONETIME01": {key: None}})
    with pytest.raises(PayloadError) as error:
        told("payments.confirmed", api)
    assert error.value.path == f"$.payment.{key}"


def test_a_charge_without_its_time_is_not_told() -> None:
    with pytest.raises(PayloadError) as error:
        told("payments.confirmed", created_at=None)
    assert error.value.path == "$.event.created_at"


# The visitor


def test_the_payments_own_visitor_comes_first() -> None:
    own = {"/payments/PM000SUBFIRST1": {"metadata": {"datafast_visitor_id": OTHER_VISITOR}}}
    assert paid(told(SUBSCRIPTION, Api(sample(SUBSCRIPTION), own))).visitor_id == OTHER_VISITOR


def test_the_visitor_of_a_subscription_reaches_its_payments() -> None:
    assert paid(told(SUBSCRIPTION)).visitor_id == VISITOR


def test_the_events_own_metadata_is_not_the_payments() -> None:
    api = Api(sample(SUBSCRIPTION), {"/subscriptions/SB000EXAMPLE01": {"metadata": {}}})
    note = {"datafast_visitor_id": VISITOR}
    assert paid(told(SUBSCRIPTION, api, metadata=note)).visitor_id is None


@pytest.mark.parametrize(
    ("start_date", "expected"),
    [("2026-03-03", "2026-03-03T00:00:00+00:00"), (None, "2026-02-20T10:01:00+00:00")],
)
def test_a_subscription_begins_when_its_first_payment_is_charged(
    start_date: str | None, expected: str
) -> None:
    api = Api(sample(SUBSCRIPTION), {"/subscriptions/SB000EXAMPLE01": {"start_date": start_date}})
    assert paid(told(SUBSCRIPTION, api)).subscribed_at == datetime.fromisoformat(expected)


# Money that goes back, and returns


def test_both_tellings_of_a_late_failure_are_one_movement() -> None:
    early, settled = told("payments.failed.late"), told("payments.late_failure_settled")
    ids = {(paid(each).kind, paid(each).transaction_id) for each in (early, settled)}
    assert ids == {(Kind.DISPUTE, "PM000LATEFAIL1:late_failure")}


def test_a_payment_that_failed_and_was_collected_later_is_no_late_failure() -> None:
    before_it_was_confirmed = "2026-03-03T06:31:00.100Z"
    found = told("payments.failed.late", created_at=before_it_was_confirmed)
    assert found == Ignored("no_money_moved")


def test_a_chargeback_and_a_late_failure_of_one_payment_are_two_movements() -> None:
    links = {"payment": "PM000LATEFAIL1"}
    api = Api(sample("payments.late_failure_settled"))
    found = paid(told("payments.charged_back", api, links=links))
    assert found.transaction_id == "PM000LATEFAIL1:charged_back"
    assert found.original_id == "PM000LATEFAIL1"


@pytest.mark.parametrize(
    "name", ["refunds.failed.late", "refunds.bounced", "refunds.funds_returned"]
)
def test_a_refund_that_was_paid_and_comes_back_returns_once_whatever_it_is_called(
    name: str,
) -> None:
    refund, returned = paid(told("refunds.paid.full")), paid(told(name))
    assert returned.kind is Kind.REINSTATED
    assert returned.transaction_id == f"{refund.transaction_id}:returned"
    assert (returned.amount, returned.original_id) == (refund.amount, refund.original_id)


def test_a_refund_whose_history_may_not_be_read_is_not_said_to_return() -> None:
    api = Api(sample("refunds.bounced"), {"/events?refund=RF000EXAMPLE01": None})
    assert told("refunds.bounced", api) == Ignored("refund_failed")


def test_a_chargeback_that_is_cancelled_gives_back_what_it_took() -> None:
    taken, again = paid(told("payments.charged_back")), paid(told("payments.chargeback_cancelled"))
    assert (taken.kind, again.kind) == (Kind.DISPUTE, Kind.REINSTATED)
    assert (taken.amount, taken.original_id) == (again.amount, again.original_id)
    assert taken.transaction_id != again.transaction_id


def test_a_refund_tells_its_own_amount_and_not_the_sum_of_all() -> None:
    sum_of_all = {"/payments/PM000PARTLY001": {"amount_refunded": 900}}
    found = paid(told("refunds.paid.partial", Api(sample("refunds.paid.partial"), sum_of_all)))
    assert str(found.amount) == "1.50"


def test_a_refund_of_a_mandate_names_no_payment_and_still_its_customer() -> None:
    links = {"mandate": "MD000EXAMPLE01"}
    api = Api(sample("refunds.paid.full"), {"/refunds/RF000EXAMPLE01": {"links": links}})
    found = paid(told("refunds.paid.full", api))
    assert (found.transaction_id, found.original_id) == ("RF000EXAMPLE01", None)
    assert found.email == "jordan@example.com"


# Tests


@pytest.mark.parametrize("action", ["confirmed", "charged_back", "late_failure_settled"])
def test_an_event_made_up_by_the_dashboard_is_a_test_even_about_a_real_payment(
    action: str,
) -> None:
    made_up = {"id": "EVTESTJZ4276PM", "resource_type": "payments", "action": action}
    assert paid(told("payments.confirmed", **made_up)).test


@pytest.mark.parametrize("type", sorted(gocardless.EVENTS))
def test_an_event_made_up_by_the_dashboard_about_nothing_is_ignored(type: str) -> None:
    resource_type, action = type.split(".")
    made_up = {"id": "EVTESTJZ4276PM", "resource_type": resource_type, "action": action}
    found = told("payments.confirmed", links={"payment": "index_ID_123"}, **made_up)
    assert isinstance(found, Ignored)


def test_what_the_sandbox_says_is_a_test_and_nothing_else_is() -> None:
    (event,) = events("payments.confirmed")
    for base, test in (
        ("https://api-sandbox.gocardless.com/", True),
        ("https://api.gocardless.com", False),
    ):
        settings = {**event.settings, "api_base": base}
        api = Api(sample("payments.confirmed"))
        (whole,) = mapping.complete(LOADED, replace(event, settings=settings), api)
        assert paid(mapping.payment(LOADED, whole)).test is test
