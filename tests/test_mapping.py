"""An event becomes a payment, and a payment the bytes that are posted."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
import simplejson
from hypothesis import given
from hypothesis import strategies as st

from relay import mapping, provider
from relay.errors import FetchError, PayloadError
from relay.fetch import RecordedApi
from relay.model import Event, Headers, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Provider

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VISITOR = "a3ab2331-989f-4cfa-91c6-2461c9e3c6bd"
PAID = Payment(
    kind=Kind.CHARGE,
    transaction_id="pay_1",
    amount=Decimal("29.99"),
    currency="EUR",
    occurred_at=NOON,
    recurrence=Recurrence.ONE_TIME,
)
REQUEST = Received(b"{}", Headers(), NOON)


def posted(payment: Payment, id: str | None = None) -> dict[str, Any]:
    """What DataFast reads; its numbers exact."""
    return simplejson.loads(mapping.body(payment, id).json, use_decimal=True)


# What is posted


def test_a_charge_holds_what_money_needs_and_nothing_that_is_not_known() -> None:
    assert posted(PAID) == {
        "amount": Decimal("29.99"),
        "currency": "EUR",
        "transaction_id": "pay_1",
        "timestamp": "2026-03-01T12:00:00.000Z",
    }


def test_everything_that_is_known_is_told() -> None:
    whole = replace(
        PAID,
        recurrence=Recurrence.RENEWAL,
        visitor_id=VISITOR,
        email="ada@example.com",
        name="Ada Example",
        customer_id="cus_1",
    )
    assert posted(whole) == posted(PAID) | {
        "renewal": True,
        "datafast_visitor_id": VISITOR,
        "email": "ada@example.com",
        "name": "Ada Example",
        "customer_id": "cus_1",
    }


@pytest.mark.parametrize(
    ("kind", "recurrence", "flags"),
    [
        (Kind.CHARGE, Recurrence.ONE_TIME, set()),
        (Kind.CHARGE, Recurrence.FIRST, set()),
        (Kind.CHARGE, Recurrence.UNKNOWN, set()),
        (Kind.CHARGE, None, set()),
        (Kind.CHARGE, Recurrence.RENEWAL, {"renewal"}),
        (Kind.REFUND, None, {"refunded"}),
        (Kind.DISPUTE, None, {"refunded"}),
        (Kind.TRIAL, None, {"is_free_trial"}),
    ],
)
def test_a_flag_is_sent_only_when_it_is_true(
    kind: Kind, recurrence: Recurrence | None, flags: set[str]
) -> None:
    told = posted(replace(PAID, kind=kind, recurrence=recurrence))
    assert {name for name, value in told.items() if value is True} == flags
    assert False not in told.values()


def test_a_refund_can_be_posted_under_another_id() -> None:
    refund = replace(PAID, kind=Kind.REFUND, transaction_id="re_1", original_id="pay_1")
    assert posted(refund)["transaction_id"] == "re_1"
    assert posted(refund, "pay_1")["transaction_id"] == "pay_1"


@pytest.mark.parametrize(
    ("amount", "text"),
    [("29.99", "29.99"), ("24.20", "24.20"), ("0.1", "0.1"), ("500", "500"), ("0.001", "0.001"),
     ("1234567890123.45", "1234567890123.45"), ("0", "0")],
)  # fmt: skip
def test_an_amount_stands_in_the_bytes_digit_by_digit(amount: str, text: str) -> None:
    body = mapping.body(replace(PAID, amount=Decimal(amount)))
    assert f'"amount": {text},' in body.json


@given(st.decimals(0, 10**14, places=4) | st.integers(0, 10**14).map(Decimal))
def test_no_amount_loses_a_digit_on_its_way(amount: Decimal) -> None:
    text = mapping.body(replace(PAID, amount=amount)).json
    assert f'"amount": {amount:f},' in text
    assert simplejson.loads(text, use_decimal=True)["amount"] == amount


@pytest.mark.parametrize(
    ("occurred_at", "text"),
    [
        (NOON, "2026-03-01T12:00:00.000Z"),
        (NOON.replace(microsecond=123_999), "2026-03-01T12:00:00.123Z"),
        (NOON.astimezone(timezone(timedelta(hours=5, minutes=30))), "2026-03-01T12:00:00.000Z"),
    ],
)
def test_a_time_is_told_in_utc_to_the_millisecond(occurred_at: datetime, text: str) -> None:
    assert posted(replace(PAID, occurred_at=occurred_at))["timestamp"] == text


def test_letters_stay_what_they_are() -> None:
    body = mapping.body(replace(PAID, name='Zoë 🎉 O\'Neil "Z"')).json
    assert "Zoë 🎉" in body
    assert json.loads(body.encode())["name"] == 'Zoë 🎉 O\'Neil "Z"'


# What is left out, and what is refused


@pytest.mark.parametrize(
    ("field", "wire", "value"),
    [
        ("visitor_id", "datafast_visitor_id", "undefined"),
        ("visitor_id", "datafast_visitor_id", "c232ab00-9414-11ec-b3c8-9f6bdeced846"),
        ("visitor_id", "datafast_visitor_id", ""),
        ("email", "email", "no address"),
        ("email", "email", "ada@"),
        ("email", "email", "ada@example.com, grace@example.com"),
    ],
)
def test_what_datafast_would_refuse_and_money_does_not_need_is_left_out_and_named(
    field: str, wire: str, value: str
) -> None:
    body = mapping.body(replace(PAID, **{field: value}))
    assert wire not in body.fields
    assert list(body.left_out) == [wire]
    assert body.left_out[wire]
    assert value not in body.left_out[wire] or not value
    assert body.fields["transaction_id"] == "pay_1"


def test_what_is_left_out_takes_nothing_else_with_it() -> None:
    body = mapping.body(replace(PAID, visitor_id="x", email="y", name="Ada", customer_id="cus_1"))
    assert set(body.left_out) == {"datafast_visitor_id", "email"}
    assert (body.fields["name"], body.fields["customer_id"]) == ("Ada", "cus_1")


@pytest.mark.parametrize(
    "change",
    [
        {"amount": Decimal("-0.01")},
        {"amount": Decimal("NaN")},
        {"amount": Decimal("Infinity")},
        {"currency": "eur"},
        {"currency": "EURO"},
        {"currency": "EUR\n"},
        {"currency": None},
        {"transaction_id": "x" * 256},
    ],
    ids=repr,
)
def test_what_money_needs_is_never_left_out(change: dict[str, Any]) -> None:
    with pytest.raises(PayloadError) as caught:
        mapping.body(replace(PAID, **change))
    assert caught.value.reason == "wrong_payment"
    assert next(iter(change)) in caught.value.message


@given(
    visitor=st.none() | st.text() | st.just(VISITOR),
    email=st.none() | st.text() | st.emails(),
    name=st.none() | st.text(),
    customer=st.none() | st.text(),
)
def test_whatever_the_customer_is_called_the_payment_is_told(
    visitor: str | None, email: str | None, name: str | None, customer: str | None
) -> None:
    payment = replace(PAID, visitor_id=visitor, email=email, name=name, customer_id=customer)
    body = mapping.body(payment)
    assert {k: body.fields[k] for k in posted(PAID)} == mapping.body(PAID).fields
    assert not mapping.SCHEMA.validate(body.fields)
    assert json.loads(body.json)


def test_every_field_of_the_documentation_is_in_the_schema() -> None:
    assert set(mapping.SCHEMA.fields) == {
        *("amount", "currency", "transaction_id", "datafast_visitor_id", "email", "name"),
        *("customer_id", "renewal", "refunded", "is_free_trial", "timestamp"),
    }


# What an event means


def made_up(mapper: Mapper, **more: Any) -> Provider:
    """A provider whose `paid` becomes what the mapper says."""
    return replace(
        provider.load("razorpay"),
        events={"paid": mapper},
        ignored={"created": "not_paid"},
        **more,
    )


def paid(**changes: Any) -> Provider:
    return made_up(lambda _: replace(PAID, **changes))


EVENT = Event("evt_1", "paid", Payload({}))


def test_a_payment_is_what_its_mapper_says() -> None:
    assert mapping.payment(paid(), EVENT) == PAID


def test_a_type_that_is_known_to_mean_nothing_says_why() -> None:
    assert mapping.payment(paid(), replace(EVENT, type="created")) == Ignored("not_paid")


def test_an_unknown_type_is_ignored_as_such() -> None:
    assert mapping.payment(paid(), replace(EVENT, type="new")) == Ignored("unknown_type")


def test_a_mapper_may_find_nothing_to_tell() -> None:
    nothing = made_up(lambda _: Ignored("no_money_moved"))
    assert mapping.payment(nothing, EVENT) == Ignored("no_money_moved")


def test_an_amount_of_zero_is_no_payment() -> None:
    found = mapping.payment(paid(amount=Decimal("0.00"), visitor_id=VISITOR), EVENT)
    assert isinstance(found, Ignored)
    assert found.reason == "zero_amount"
    assert found.visitor_id == VISITOR  # what it knows of the customer may serve another payment


def test_an_amount_that_is_not_told_is_for_refunds_of_a_known_payment_only() -> None:
    refund = {"kind": Kind.REFUND, "amount": None, "currency": None, "recurrence": None}
    found = mapping.payment(paid(**refund, original_id="pay_1"), EVENT)
    assert isinstance(found, Payment)
    assert found.amount is None
    for wrong in (refund, {"amount": None}):
        with pytest.raises(PayloadError) as caught:
            mapping.payment(paid(**wrong), EVENT)
        assert caught.value.reason == "missing_amount"


def test_a_trial_is_free_and_has_a_currency() -> None:
    trial = paid(kind=Kind.TRIAL, amount=Decimal("9.99"), currency=None)
    found = mapping.payment(trial, EVENT)
    assert isinstance(found, Payment)
    assert (found.amount, found.currency, found.recurrence) == (0, "USD", None)
    assert posted(found)["amount"] == 0
    told = mapping.payment(paid(kind=Kind.TRIAL, currency="EUR"), EVENT)
    assert isinstance(told, Payment)
    assert told.currency == "EUR"


def test_the_sources_currency_stands_in_only_where_none_is_named() -> None:
    found = mapping.payment(paid(currency=None), EVENT, "GBP")
    assert isinstance(found, Payment)
    assert found.currency == "GBP"
    assert mapping.payment(paid(), EVENT, "GBP") == PAID


def test_without_any_currency_it_says_which_setting_is_missing() -> None:
    with pytest.raises(PayloadError) as caught:
        mapping.payment(paid(currency=None), EVENT)
    assert caught.value.reason == "missing_currency"
    assert "`currency`" in caught.value.message


# The events of a request


def parsing(*found: Event) -> Provider:
    return made_up(lambda _: PAID, parse=lambda _: list(found))


def test_an_event_that_stands_twice_in_a_request_is_one() -> None:
    found = mapping.events(parsing(EVENT, EVENT, replace(EVENT, id="evt_2")), REQUEST, {})
    assert [it.id for it in found] == ["evt_1", "evt_2"]


def test_every_event_knows_its_sources_settings() -> None:
    (found,) = mapping.events(parsing(EVENT), REQUEST, {"api_key": "k"})
    assert found.settings == {"api_key": "k"}


@pytest.mark.parametrize(
    "change",
    [{"id": ""}, {"id": "x" * 256}, {"id": "a\x00"}, {"id": "\ud800"}, {"type": "x" * 256}],
)
def test_an_id_that_no_table_could_hold_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(PayloadError) as caught:
        mapping.events(parsing(replace(EVENT, **change)), REQUEST, {})
    assert caught.value.reason == "bad_id"


def test_an_event_is_found_by_its_id() -> None:
    assert mapping.find([EVENT], "evt_1") is EVENT
    assert mapping.find([EVENT], "evt_2") is None


def test_a_complete_event_asks_nobody() -> None:
    assert mapping.complete(paid(), EVENT, RecordedApi([])) == [EVENT]


def test_a_thin_event_becomes_what_was_fetched_with_the_same_settings() -> None:
    thin = made_up(lambda _: PAID, fetch=lambda event, _: [replace(event, id="child", settings={})])
    (found,) = mapping.complete(thin, replace(EVENT, settings={"a": 1}), RecordedApi([]))
    assert (found.id, found.settings) == ("child", {"a": 1})


@pytest.mark.parametrize(
    "error", [KeyError("x"), TypeError(), RecursionError(), ZeroDivisionError()]
)
def test_an_adapter_that_breaks_costs_no_event(error: Exception) -> None:
    def break_(*_: Any) -> Any:
        raise error

    broken = made_up(break_, parse=break_, fetch=break_)
    for ask in (
        lambda: mapping.events(broken, REQUEST, {}),
        lambda: mapping.complete(broken, EVENT, RecordedApi([])),
        lambda: mapping.payment(broken, EVENT),
    ):
        with pytest.raises(PayloadError) as caught:
            ask()
        assert caught.value.reason == "adapter_error"
        assert type(error).__name__ in caught.value.message


def test_what_an_adapter_refuses_on_purpose_is_told_as_it_is() -> None:
    def refuse(*_: Any) -> Any:
        raise FetchError("fetch_503", "not now")

    with pytest.raises(FetchError):
        mapping.complete(made_up(refuse, fetch=refuse), EVENT, RecordedApi([]))
