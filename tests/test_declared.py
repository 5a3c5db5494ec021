"""Providers without Python: what a `mapping:` block says, and what each mistake in one is answered with."""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import simplejson
import yaml
from command import run
from helpers import NOON, VISITOR, Clock, DataFast, Way, attempts, states
from hypothesis import given
from hypothesis import strategies as st

from relay import config as configuration
from relay import declared, mapping, money, preview
from relay.config import Config, Source, checks
from relay.errors import ConfigError, PayloadError, VerificationError
from relay.flow import trust, verify
from relay.model import Headers, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Provider
from relay.store import Store

EXAMPLE = Path(__file__).parents[1] / "config.example.yaml"
SECRET = "a-secret-of-our-own"
NEWER = "the-secret-that-follows"
BLOCKS = {
    name: source["mapping"]
    for name, source in yaml.safe_load(EXAMPLE.read_text("utf-8"))["sources"].items()
    if source["provider"] == "mapping"
}

# The least that is right; the tests of mistakes count on its lines.
LEAST = """\
destinations:
  main:
    api_key: df_abc123
sources:
  billing:
    provider: mapping
    destination: main
    secrets: [a-secret-of-our-own]
    mapping:
      signature:
        scheme: hmac
        header: X-Signature
      id: id
      type: type
      types:
        paid:
          kind: charge
      payment:
        transaction_id: invoice
        amount: amount
        unit: minor
        currency: currency
"""
EVENT = {
    "id": "evt_1",
    "type": "paid",
    "invoice": "in_1",
    "amount": 2999,
    "currency": "EUR",
}


def load(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "relay.yaml"
    file.write_text(text, "utf-8")
    return configuration.load(file, {})


def changed(*changes: tuple[str, str]) -> str:
    """LEAST, with some of its text replaced."""
    text = LEAST
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def read(tmp_path: Path, *changes: tuple[str, str]) -> Source:
    return load(tmp_path, changed(*changes)).sources["billing"]


def received(event: Any, at: datetime = NOON) -> Received:
    body = event if isinstance(event, bytes) else simplejson.dumps(event).encode()
    return Received(body, Headers([("Content-Type", "application/json")]), at)


def means(source: Source, event: Any) -> Payment | Ignored:
    """What the one event in a request means."""
    (found,) = mapping.events(source.provider, received(event), {})
    return mapping.payment(source.provider, found, source.currency)


def paid(source: Source, event: Any) -> Payment:
    found = means(source, event)
    assert isinstance(found, Payment), found
    return found


def refusal(source: Source, event: Any) -> tuple[str, str]:
    """Why an event cannot be mapped, and the path that is told."""
    with pytest.raises(PayloadError) as caught:
        means(source, event)
    return caught.value.reason, caught.value.path


# The example, all the way


def billing_event(
    id: str, type: str = "invoice.paid", of: str | None = None, **data: Any
) -> dict[str, Any]:
    """An event as the example's own billing system sends it."""
    return {
        "id": id,
        "type": type,
        "created_at": "2026-03-01T12:00:00Z",
        "livemode": True,
        "data": {
            "id": of or f"in_{id}",
            "amount": 2999,
            "currency": "eur",
            "customer": {"id": "cus_1", "email": "ada@example.com", "name": "Ada"},
            "metadata": {"datafast_visitor_id": VISITOR},
            **data,
        },
    }


def signed(*events: dict[str, Any], secret: str = SECRET, at: datetime = NOON) -> Received:
    """A request as the example's billing system signs it, by the formula and not by our code."""
    body = json.dumps({"events": events}).encode()
    stamp = str(int(at.timestamp()))
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-Billing-Timestamp": stamp,
        "X-Billing-Signature": f"sha256={digest}",
    }
    return Received(body, Headers(headers.items()), at, "https://relay.example.com/webhooks/shop")


@pytest.fixture
def billing(configure: Callable[..., Config], store: Store, clock: Clock) -> Way:
    """A relay whose one source is the example's billing system."""
    return declared_way("billing", configure, store, clock)


def declared_way(
    name: str, configure: Callable[..., Config], store: Store, clock: Clock, **source: Any
) -> Way:
    block = {"provider": "mapping", "mapping": BLOCKS[name], "secrets": [SECRET]} | source
    return Way(configure(source=block), store, clock)


def test_a_payment_arrives_with_all_that_is_known_of_it(billing: Way, sandbox: DataFast) -> None:
    sandbox.know(VISITOR)
    billing.send(signed(billing_event("1", subscription="sub_1")))
    assert states(billing.store) == {"1": ("delivered", "attributed")}
    (sent,) = attempts(billing.store, "1")
    assert json.loads(sent.sent) == {
        "amount": 29.99,
        "currency": "EUR",
        "transaction_id": "in_1",
        "datafast_visitor_id": VISITOR,
        "email": "ada@example.com",
        "name": "Ada",
        "customer_id": "cus_1",
        "timestamp": "2026-03-01T12:00:00.000Z",
    }


def test_a_renewal_is_one_by_its_condition(billing: Way, sandbox: DataFast) -> None:
    event = billing_event("1", subscription="sub_1", billing_reason="subscription_cycle")
    billing.send(signed(event))
    (record,) = sandbox.records()
    assert record["renewal"] is True


def test_a_refund_in_part_leaves_the_rest(billing: Way) -> None:
    refund = billing_event("2", "invoice.refunded", of="in_1", refund={"id": "re_1", "amount": 500})
    billing.send(signed(billing_event("1")))
    billing.send(signed(refund))
    assert billing.until_settled("2").state == "delivered"
    *_, sent = attempts(billing.store, "2")
    body = json.loads(sent.sent)
    assert (body["amount"], body["refunded"], body["currency"]) == (5.00, True, "EUR")


def test_a_list_of_events_becomes_that_many(billing: Way, sandbox: DataFast) -> None:
    steps = billing.send(signed(*(billing_event(str(number)) for number in range(3))))
    assert len(steps) == 3
    assert sorted(sandbox.ids()) == ["in_0", "in_1", "in_2"]


def test_what_moves_no_money_is_ignored_and_remembered(billing: Way, sandbox: DataFast) -> None:
    sandbox.know(VISITOR)
    customer = billing_event("1", "customer.created")
    voided = billing_event("2", "invoice.voided", metadata={})
    unknown = billing_event("3", "coupon.created")
    payment = billing_event("4", metadata={})
    billing.send(signed(customer, voided, unknown))
    billing.send(signed(payment))
    assert states(billing.store) == {
        "1": ("ignored", "no_money_moved"),
        "2": ("ignored", "never_paid"),
        "3": ("ignored", "unknown_type"),
        "4": ("delivered", "attributed"),
    }
    (record,) = sandbox.records()
    assert record["datafast_visitor_id"] == VISITOR


def test_a_trial_and_a_test_are_what_the_block_says(billing: Way, sandbox: DataFast) -> None:
    test = billing_event("2") | {"livemode": False}
    billing.send(signed(billing_event("1", "trial.started", subscription="sub_1"), test))
    assert states(billing.store)["2"] == ("ignored", "test_event")
    (record,) = sandbox.records()
    assert (record["transaction_id"], record["is_free_trial"]) == ("sub_1:trial", True)


def test_a_form_with_a_token_arrives_too(
    configure: Callable[..., Config], store: Store, clock: Clock, sandbox: DataFast
) -> None:
    shop = declared_way("ticket-shop", configure, store, clock)
    order = {
        "number": "A-17",
        "total": "29.90",
        "paid": NOON.timestamp(),
        "email": "ada@example.com",
    }
    body = urlencode({"data": json.dumps({"order": order})}).encode()
    headers = Headers([("Authorization", f"Bearer {SECRET}")])
    shop.send(Received(body, headers, NOON))
    (sent,) = attempts(store, "A-17")
    assert '"amount": 29.90' in sent.sent
    assert sandbox.ids() == ["A-17"]


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda it: replace(it, body=it.body.replace(b"2999", b"9999")), "bad_signature"),
        (
            lambda it: replace(it, headers=it.headers.replaced(x_billing_signature="sha256=ab")),
            "malformed_header",
        ),
        (
            lambda it: replace(it, headers=it.headers.replaced(x_billing_timestamp="1772366401")),
            "bad_signature",
        ),
        (lambda it: replace(it, headers=Headers()), "missing_header"),
        (lambda it: replace(it, received_at=NOON + timedelta(seconds=301)), "stale_timestamp"),
        (lambda it: replace(it, received_at=NOON - timedelta(seconds=301)), "stale_timestamp"),
    ],
)
def test_a_forgery_is_not_stored(
    forge: Callable[[Received], Received], reason: str, billing: Way
) -> None:
    with pytest.raises(VerificationError) as caught:
        billing.accept(forge(signed(billing_event("1"))))
    assert caught.value.reason == reason
    assert states(billing.store) == {}


def test_a_secret_can_be_rotated(
    configure: Callable[..., Config], store: Store, clock: Clock
) -> None:
    way = declared_way("billing", configure, store, clock, secrets=[NEWER, SECRET])
    for number, secret in enumerate((SECRET, NEWER)):
        way.accept(signed(billing_event(str(number)), secret=secret))
    assert set(states(store)) == {"0", "1"}
    with pytest.raises(VerificationError):
        way.accept(signed(billing_event("2"), secret="another-one"))


def test_a_mended_block_mends_what_was_unreadable(
    configure: Callable[..., Config], store: Store, clock: Clock
) -> None:
    wrong = declared_way(
        "billing", configure, store, clock, mapping=BLOCKS["billing"] | {"events": "evnets"}
    )
    request = signed(billing_event("1"))
    assert wrong.accept(request).dead == "missing_field: evnets: there are no events here"
    (dead,) = states(store).values()
    assert dead[0] == "dead"
    mended = declared_way("billing", configure, store, clock)
    found = mended.courier.read(claimed(store, wrong, clock), mended.source)
    assert [it.id for it in found.events] == ["1"]


def claimed(store: Store, way: Way, clock: Clock) -> Any:
    """The one delivery that there is, after a replay."""
    from relay.store import Filter

    store.replay(Filter(), clock())
    (found,) = way.claim()
    return found


# What a block can say


def test_the_least_block_is_a_provider(tmp_path: Path) -> None:
    source = read(tmp_path)
    assert isinstance(source.provider, Provider)
    assert (source.provider.name, source.provider.title) == ("mapping", "Your own")
    assert paid(source, EVENT) == Payment(
        kind=Kind.CHARGE,
        transaction_id="in_1",
        amount=Decimal("29.99"),
        currency="EUR",
        occurred_at=NOON,
        recurrence=Recurrence.UNKNOWN,
    )


@pytest.mark.parametrize(
    ("unit", "amount", "currency", "exact"),
    [
        ("minor", 2999, "EUR", "29.99"),
        ("minor", "2999", "eur", "29.99"),
        ("minor", -500, "JPY", "500"),
        ("minor", 1234, "KWD", "1.234"),
        ("major", Decimal("29.990"), "EUR", "29.990"),
        ("major", "0.1", "EUR", "0.1"),
        ("major", 500, "JPY", "500"),
        ("major", Decimal("123456789012.34"), "EUR", "123456789012.34"),
    ],
)
def test_both_units_are_exact(
    unit: str, amount: Any, currency: str, exact: str, tmp_path: Path
) -> None:
    source = read(tmp_path, ("unit: minor", f"unit: {unit}"))
    found = paid(source, EVENT | {"amount": amount, "currency": currency})
    assert (str(found.amount), found.currency) == (exact, currency.upper())


@pytest.fixture(scope="module")
def in_both_units(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    folder = tmp_path_factory.mktemp("units")
    return {unit: read(folder, ("unit: minor", f"unit: {unit}")) for unit in ("minor", "major")}


@given(
    amount=st.decimals(Decimal("0.001"), 10**14, allow_nan=False, places=3),
    currency=st.sampled_from(["EUR", "JPY", "KWD"]),
    unit=st.sampled_from(["minor", "major"]),
    as_text=st.booleans(),
)
def test_no_amount_changes_by_a_digit(
    in_both_units: dict[str, Source],
    amount: Decimal,
    currency: str,
    unit: str,
    as_text: bool,  # noqa: FBT001
) -> None:
    written: Any = amount
    if unit == "minor":
        decimals = money.exponent(currency) or 0
        amount = amount.quantize(Decimal(1).scaleb(-decimals))
        written = int(amount.scaleb(decimals))
    event = EVENT | {"amount": str(written) if as_text else written, "currency": currency}
    found = means(in_both_units[unit], event)
    assert found.amount == amount if isinstance(found, Payment) else amount == 0


@pytest.mark.parametrize(
    ("path", "data", "exact"),
    [
        ("sum(lines[].amount)", {"lines": [{"amount": Decimal("0.1")}] * 3}, "0.3"),
        ("sum(lines)", {"lines": [1, Decimal("0.20")]}, "1.20"),
        (
            "sum(lines)",
            {"lines": [123456789012345, Decimal("0.00000000000000000001")]},
            "123456789012345.00000000000000000001",
        ),
        ("abs(amount)", {"amount": Decimal("-29.99")}, "29.99"),
        ("to_number(amount)", {"amount": "29.99"}, "29.99"),
        ("max(lines)", {"lines": [1, Decimal("2.50")]}, "2.50"),
        ("max_by(lines, &at).amount", {"lines": [{"at": Decimal("1.5"), "amount": 7}]}, "7"),
        ("amount || `29.90`", {}, "29.90"),
        ("[amount, `1`][?@ > `0.5`] | [0]", {"amount": Decimal("0.6")}, "0.6"),
        ("a.price[-1]", {"a": {"price": [1, Decimal("2.10")]}}, "2.10"),
    ],
)
def test_what_jmespath_computes_is_exact(
    path: str, data: dict[str, Any], exact: str, tmp_path: Path
) -> None:
    source = read(tmp_path, ("amount: amount", f'amount: "{path}"'), ("unit: minor", "unit: major"))
    event = {key: value for key, value in EVENT.items() if key != "amount"} | data
    assert paid(source, event).amount == Decimal(exact)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("avg(lines)", {"lines": [1, 2]}),
        ("avg(lines)", {"lines": [Decimal("0.1"), 0, 0]}),
        ("sum(lines)", {"lines": ["0.1"]}),
        ("sum(lines)", {}),
        ("ceil(amount)", {"amount": "29.5"}),
        ("to_number(amount)", {"amount": "29,99"}),
    ],
)
def test_what_is_not_exact_or_no_number_is_refused(
    path: str, data: dict[str, Any], tmp_path: Path
) -> None:
    source = read(tmp_path, ("amount: amount", f'amount: "{path}"'), ("unit: minor", "unit: major"))
    reason, told = refusal(source, EVENT | data)
    assert (reason in {"wrong_type", "missing_field"}, told) == (True, path)


@pytest.mark.parametrize(
    ("path", "data", "text"),
    [
        ("to_string(a)", 29, "29"),
        ("to_string(a)", Decimal("29.90"), "29.90"),
        ("to_string(a)", "x", "x"),
        ("to_string(a)", {"b": Decimal("0.1")}, '{"b":0.1}'),
        ("type(a)", Decimal("0.1"), "number"),
        ("type(a)", [], "array"),
        ("type(a)", None, "null"),
        ("join('-', [to_string(a), 'x'])", 7, "7-x"),
    ],
)
def test_functions_know_a_fraction_for_a_number(path: str, data: Any, text: str) -> None:
    assert declared.Expression(path).of(Payload({"a": data})).value == text


@pytest.mark.parametrize(
    ("time", "value"),
    [
        ("iso", "2026-03-01T13:00:00+01:00"),
        ("seconds", 1772366400),
        ("seconds", "1772366400"),
        ("milliseconds", 1772366400000),
    ],
)
def test_times_are_read_as_the_block_says(time: str, value: Any, tmp_path: Path) -> None:
    source = read(
        tmp_path,
        ("type: type\n", f"type: type\n      occurred_at: at\n      time: {time}\n"),
        ("unit: minor\n", "unit: minor\n        subscribed_at: since\n"),
    )
    found = paid(source, EVENT | {"at": value, "since": value})
    assert (found.occurred_at, found.subscribed_at) == (NOON, NOON)
    assert paid(source, EVENT | {"at": value, "since": None}).subscribed_at is None


def test_a_time_that_is_wanted_and_not_there_is_told_by_its_path(tmp_path: Path) -> None:
    source = read(tmp_path, ("type: type\n", "type: type\n      occurred_at: data.at\n"))
    assert refusal(source, EVENT) == ("missing_field", "data.at")
    late = received(EVENT | {"data": {"at": "2026-03-01T12:00:00"}}, NOON + timedelta(days=1))
    (event,) = source.provider.parse(late)
    assert event.occurred_at is None
    with pytest.raises(PayloadError, match="no zone"):
        mapping.payment(source.provider, event)


RULES = """\
        paid:
          - {kind: charge, when: "reason == 'first'", recurrence: first}
          - {kind: charge, when: again, recurrence: renewal}
          - {kind: ignore, when: "status != 'paid'", reason: not_paid}
          - {kind: charge, when: "amount > `0`", recurrence: one_time}
"""


@pytest.mark.parametrize(
    ("data", "meaning"),
    [
        ({"reason": "first", "again": True}, "first"),
        ({"reason": "cycle", "again": True}, "renewal"),
        ({"again": False, "status": "paid"}, "one_time"),
        ({"again": 0, "status": "paid"}, "one_time"),
        ({"again": [], "status": "open"}, "not_paid"),
        ({"again": "", "status": "paid", "amount": -1}, "no_rule_holds"),
    ],
)
def test_the_first_rule_that_holds_counts(
    data: dict[str, Any], meaning: str, tmp_path: Path
) -> None:
    source = read(tmp_path, ("        paid:\n          kind: charge\n", RULES))
    found = means(source, EVENT | data)
    assert meaning == (found.reason if isinstance(found, Ignored) else found.recurrence)


BACK = """\
        paid: {kind: charge}
        back: {kind: refund, transaction_id: refund, original_id: invoice}
        all: {kind: refund, transaction_id: refund, original_id: invoice, amount_is: rest}
        sum: {kind: refund, transaction_id: refund, original_id: invoice, amount_is: so_far}
        disputed: {kind: dispute, transaction_id: refund, original_id: invoice}
        won: {kind: reinstated, transaction_id: refund, original_id: invoice, unit: major}
        yen: {kind: charge, currency_is: JPY}
"""


@pytest.mark.parametrize(
    ("type", "kind", "amount", "cumulative"),
    [
        ("back", Kind.REFUND, "29.99", False),
        ("all", Kind.REFUND, None, False),
        ("sum", Kind.REFUND, "29.99", True),
        ("disputed", Kind.DISPUTE, "29.99", False),
        ("won", Kind.REINSTATED, "2999", False),
    ],
)
def test_money_that_is_taken_back_or_returns(
    type: str,
    kind: Kind,
    amount: str | None,
    cumulative: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    source = read(tmp_path, ("        paid:\n          kind: charge\n", BACK))
    found = paid(source, EVENT | {"type": type, "refund": "re_1"})
    assert (found.kind, found.transaction_id, found.original_id) == (kind, "re_1", "in_1")
    assert found.amount == (Decimal(amount) if amount else None)
    assert (found.cumulative, found.recurrence) == (cumulative, None)


def test_a_rules_own_currency_comes_before_the_one_that_is_read(tmp_path: Path) -> None:
    source = read(tmp_path, ("        paid:\n          kind: charge\n", BACK))
    found = paid(source, EVENT | {"type": "yen"})
    assert (found.amount, found.currency) == (Decimal(2999), "JPY")


@pytest.mark.parametrize(
    "changes",
    [
        [("        currency: currency\n", "        currency_is: JPY\n")],
        [("        currency: currency\n", ""), ("billing:\n", "billing:\n    currency: JPY\n")],
        [("currency: currency", "currency: none"), ("billing:\n", "billing:\n    currency: JPY\n")],
    ],
)
def test_a_currency_can_be_fixed_in_the_block_or_the_source(
    changes: list[tuple[str, str]], tmp_path: Path
) -> None:
    found = paid(read(tmp_path, *changes), EVENT)
    assert (found.amount, found.currency) == (Decimal(2999), "JPY")


def test_a_test_and_a_broken_visitor_are_told_as_they_are(tmp_path: Path) -> None:
    more = "unit: minor\n        test: test\n        visitor_id: metadata\n"
    source = read(tmp_path, ("unit: minor\n", more))
    found = paid(source, EVENT | {"test": "1", "metadata": {"df_visitor_id": "broken"}})
    assert (found.test, found.visitor_id) == (True, "broken")
    assert paid(source, EVENT | {"metadata": VISITOR}).visitor_id == VISITOR
    assert refusal(source, EVENT | {"test": "perhaps"}) == ("wrong_type", "test")


def test_an_event_that_moves_no_money_may_be_of_another_shape(tmp_path: Path) -> None:
    more = "unit: minor\n        email: email\n        customer_id: customer\n        test: test\n"
    rule = "paid:\n          kind: ignore"
    source = read(tmp_path, ("unit: minor\n", more), ("paid:\n          kind: charge", rule))
    event = EVENT | {"email": "ada@example.com", "customer": {"id": 1}, "test": []}
    assert means(source, event) == Ignored(
        "no_money_moved", email="ada@example.com", occurred_at=NOON
    )


def test_a_form_without_a_field_is_the_event_itself(tmp_path: Path) -> None:
    source = read(tmp_path, ("      id: id", "      body: form\n      id: id"))
    found = paid(source, urlencode(EVENT).encode())
    assert (found.amount, found.transaction_id) == (Decimal("29.99"), "in_1")


# What an event lacks


@pytest.mark.parametrize(
    ("without", "path"),
    [("id", "id"), ("type", "type"), ("invoice", "invoice"), ("amount", "amount")],
)
def test_what_is_needed_and_missing_is_told_by_its_path(
    without: str, path: str, tmp_path: Path
) -> None:
    event = {key: value for key, value in EVENT.items() if key != without}
    assert refusal(read(tmp_path), event) == ("missing_field", path)


@pytest.mark.parametrize("value", [None, "", "XXQ", 1, {}, []])
def test_a_currency_that_is_none_is_told_by_its_path(value: Any, tmp_path: Path) -> None:
    assert refusal(read(tmp_path), EVENT | {"currency": value})[1] == "currency"


@pytest.mark.parametrize("body", [b'{"events": []}', b"{}", b'{"events": null}', b'{"events": {}}'])
def test_a_body_without_events_is_kept_and_not_passed_over(body: bytes, tmp_path: Path) -> None:
    source = read(tmp_path, ("      id: id", "      events: events\n      id: id"))
    with pytest.raises(PayloadError) as caught:
        source.provider.parse(received(body))
    assert (caught.value.reason, caught.value.path) == ("missing_field", "events")


def test_two_events_with_one_id_are_not_taken_for_one(tmp_path: Path) -> None:
    source = read(tmp_path)
    same = source.provider.parse(received([EVENT, EVENT]))
    assert [it.id for it in same] == ["evt_1"]
    with pytest.raises(PayloadError) as caught:
        source.provider.parse(received([EVENT, EVENT | {"invoice": "in_2"}]))
    assert (caught.value.reason, caught.value.path) == ("repeated_id", "id")


OTHERS = (None, [], {}, "", "x", -1, 10**40, True, 1.5, "\ud800", "2018-19-12T00:00:00Z")


def variants(whole: Any) -> Iterator[bytes]:
    """The body with each of its keys removed or of another type, and bodies that are none."""
    yield from (b"", b"[]", b"null", b"0", b"\xff", b"[" * 100_000, b"{}", b'{"a":', b"a[b]=1&a=2")
    for holder, key in list(places(whole)):
        kept = holder[key]
        for other in OTHERS:
            holder[key] = other
            yield simplejson.dumps(whole).encode()
        holder[key] = kept


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def outcome(source: Source, request: Received) -> str:
    """`mapped`, or the slug of the PayloadError; anything else fails the test."""
    try:
        preview.preview(source.provider, request, currency=source.currency)
    except PayloadError as error:
        if error.reason == "adapter_error":
            pytest.fail(error.message)
        return error.reason
    return "mapped"


@pytest.mark.parametrize(
    "type", ["invoice.paid", "invoice.refunded", "trial.started", "invoice.voided"]
)
def test_broken_variants_are_payload_errors_and_nothing_else(type: str, billing: Way) -> None:
    event = billing_event("1", type, refund={"id": "re_1", "amount": 1}, subscription="sub_1")
    assert outcome(billing.source, received({"events": [event]})) == "mapped"
    came = {outcome(billing.source, received(it)) for it in variants({"events": [event]})}
    assert came >= {"mapped", "malformed_json", "missing_field", "wrong_type"}


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*EVENT, "lines"]), inner, max_size=5)
    ),
    max_leaves=15,
)
PATHS = (
    "amount", "sum(lines)", "lines[?id].amount | [0]", "max_by(lines, &amount)", "sort(lines)[0]",
    "join('-', lines)", "merge(@, lines[0])", "keys(@)[0]", "length(type)", "to_number(id)", "!id",
    "avg(lines)", "ceil(amount)", "floor(id)", "reverse(id)", "contains(lines, 'x')", "lines[::0]",
    "map(&amount, lines)", "to_string(@)", "not_null(id, type)", "values(@)[*].id", "@ < `1.5`",
)  # fmt: skip


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Source]:
    """Sources whose every path is one of the more daring."""
    folder = tmp_path_factory.mktemp("wild")
    found = {
        path: read(
            folder,
            ("kind: charge", f'kind: charge\n          when: "{path} || `1`"'),
            ("amount: amount", f'amount: "{path}"'),
            ("transaction_id: invoice", f'transaction_id: "{path} || invoice"'),
            ("currency: currency", f'currency: currency\n        visitor_id: "{path}"'),
        )
        for path in PATHS
    }

    def source(path: str) -> Source:
        return found[path]  # hypothesis would write a whole dictionary out

    return source


@pytest.mark.parametrize("path", PATHS)
@given(data=TREES, event=st.dictionaries(st.sampled_from([*EVENT, "lines"]), TREES))
def test_no_event_breaks_a_block(
    wild: Callable[[str], Source], path: str, data: Any, event: dict[str, Any]
) -> None:
    for body in (data, EVENT | event):
        outcome(wild(path), received(body))


# Mistakes


def mistakes(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return [str(problem) for problem in caught.value.problems]


IN = "sources.billing.mapping"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        # Paths
        (
            "amount: amount",
            'amount: "data.items["',
            f"line 20, {IN}.payment.amount: JMESPath, column 12: it ends too early",
        ),
        (
            "      id: id",
            "      id: $.id",
            (
                f"line 13, {IN}.id: JMESPath, column 1: '$' is out of place here; "
                "a path begins with its first name, without $"
            ),
        ),
        (
            "amount: amount",
            "amount: data.total-amount",
            (
                f"line 20, {IN}.payment.amount: JMESPath, column 11: '-' is out of place here; "
                'a name with a dash stands in double quotes: "customer-id"'
            ),
        ),
        (
            "kind: charge",
            "kind: charge\n          when: status = 'paid'",
            (
                f"line 18, {IN}.types.paid.when: JMESPath, column 8: '=' is out of place here; "
                "write == to compare"
            ),
        ),
        (
            "kind: charge",
            "kind: charge\n          when: amount > 0",
            (
                f"line 18, {IN}.types.paid.when: JMESPath, column 10: "
                "write the number in backticks: `0`"
            ),
        ),
        (
            "kind: charge",
            'kind: charge\n          when: status == "paid"',
            (
                f"line 18, {IN}.types.paid.when: JMESPath, column 11: "
                "\"paid\" is the name of a field; write a text as 'paid'"
            ),
        ),
        (
            "kind: charge",
            "kind: charge\n          when: status == `paid`",
            (
                f"line 18, {IN}.types.paid.when: JMESPath, column 11: "
                "in backticks stands JSON; write a text in 'single quotes'"
            ),
        ),
        (
            "kind: charge",
            "kind: charge\n          when: starts_wiht(a, 'x')",
            (
                f"line 18, {IN}.types.paid.when: JMESPath, column 1: "
                "there is no function 'starts_wiht'; did you mean 'starts_with'?"
            ),
        ),
        (
            "kind: charge",
            "kind: charge\n          when: a && starts_with(a)",
            f"line 18, {IN}.types.paid.when: JMESPath, column 6: starts_with() takes 2, not 1",
        ),
        (
            "      type: type",
            '      type: "\'paid"',
            f"line 14, {IN}.type: JMESPath, column 1: what begins with ' does not end",
        ),
        (
            "      type: type",
            "      type: ''",
            f"line 14, {IN}.type: JMESPath, column 1: write the path of a value, such as data.id",
        ),
        (
            "      type: type",
            "      type: 5",
            f"line 14, {IN}.type: this must be text; put it in quotes",
        ),
        # The block and its parts
        (
            "      id: id",
            "      idd: id",
            (
                f"line 9, {IN}.id: this setting is missing; config.example.yaml shows it|"
                f"line 13, {IN}.idd: there is no setting 'idd'; did you mean 'id'?"
            ),
        ),
        (
            "        amount: amount",
            "        amout: amount",
            (
                f"line 16, {IN}.types.paid: this rule has no `amount`; "
                "write it here, or in `payment` for all rules|"
                f"line 20, {IN}.payment.amout: there is no setting 'amout'; did you mean 'amount'?"
            ),
        ),
        (
            "        unit: minor",
            "        unit: cents",
            f"line 21, {IN}.payment.unit: write one of: minor, major",
        ),
        (
            "        currency: currency",
            "        currency_is: EURO",
            f"line 22, {IN}.payment.currency_is: this is no code of ISO 4217, such as EUR",
        ),
        (
            "        currency: currency",
            "        currency: currency\n        currency_is: EUR",
            f"line 23, {IN}.payment.currency_is: `currency` says it already; keep one",
        ),
        (
            "      id: id",
            "      id: id\n      field: data",
            f"line 14, {IN}.field: this goes with `body: form`; take it out",
        ),
        (
            "      id: id",
            "      id: id\n      time: unix",
            f"line 14, {IN}.time: write one of: iso, seconds, milliseconds",
        ),
        # Types
        (
            "kind: charge",
            "kind: payment",
            (
                f"line 17, {IN}.types.paid.kind: "
                "write one of: charge, refund, trial, dispute, reinstated, ignore"
            ),
        ),
        (
            "kind: charge",
            "knd: charge",
            (
                f"line 16, {IN}.types.paid.kind: this setting is missing; config.example.yaml shows it|"
                f"line 17, {IN}.types.paid.knd: there is no setting 'knd'; did you mean 'kind'?"
            ),
        ),
        (
            "        paid:\n          kind: charge",
            "        paid: charge",
            (
                f"line 16, {IN}.types.paid: "
                "write ignore, or what it means: a list of rules, each with a `kind`"
            ),
        ),
        (
            "        paid:\n          kind: charge",
            "        paid:",
            (
                f"line 16, {IN}.types.paid: "
                "write ignore, or what it means: a list of rules, each with a `kind`"
            ),
        ),
        (
            "        paid:\n          kind: charge",
            "        paid:\n          - charge",
            (
                f"line 17, {IN}.types.paid[0]: "
                "this must hold settings of its own, indented, one a line"
            ),
        ),
        (
            "          kind: charge",
            "          - kind: charge\n          - kind: refund",
            (
                f"line 17, {IN}.types.paid[0]: "
                "this rule has no `when`, so the next one is never reached; put it last"
            ),
        ),
        (
            "kind: charge",
            "kind: refund\n          recurrence: renewal",
            f"line 18, {IN}.types.paid.recurrence: this goes with `kind: charge`; take it out",
        ),
        (
            "kind: charge",
            "kind: charge\n          amount_is: rest",
            (
                f"line 18, {IN}.types.paid.amount_is: "
                "this goes with `kind: refund` or `kind: dispute`; take it out|"
                f"line 16, {IN}.types.paid: this rule has no `original_id`; "
                "write it here, or in `payment` for all rules"
            ),
        ),
        (
            "kind: charge",
            "kind: ignore\n          reason: not paid",
            (
                f"line 18, {IN}.types.paid.reason: "
                "write a few words joined by _, such as no_money_moved"
            ),
        ),
        (
            "        transaction_id: invoice\n",
            "",
            (
                f"line 16, {IN}.types.paid: this rule has no `transaction_id`; "
                "write it here, or in `payment` for all rules"
            ),
        ),
        (
            "        currency: currency\n",
            "",
            (
                f"line 16, {IN}.types.paid: this rule has no `currency`; "
                "write it here, or in `payment` for all rules"
            ),
        ),
        # The signature
        (
            "        header: X-Signature\n",
            "",
            (
                f"line 10, {IN}.signature.header: "
                "`scheme: hmac` needs it: the name of the header in which it comes"
            ),
        ),
        (
            "scheme: hmac",
            "scheme: url_secret",
            (
                f"line 12, {IN}.signature.header: "
                "this does not go with `scheme: url_secret`; take it out"
            ),
        ),
        (
            "scheme: hmac",
            "scheme: rsa",
            (
                f"line 11, {IN}.signature.scheme: "
                "write one of: hmac, standard_webhooks, static_token, url_secret"
            ),
        ),
        (
            "scheme: hmac",
            "scheme: hmac\n        algorithm: crc32",
            f"line 12, {IN}.signature.algorithm: write one of: sha256, sha512, sha1, md5",
        ),
        (
            "header: X-Signature",
            "header: 'X Signature'",
            f"line 12, {IN}.signature.header: write a header's name, such as X-Billing-Signature",
        ),
        (
            "scheme: hmac",
            "scheme: hmac\n        template: '{timestamp}'\n        timestamp_header: X-Time",
            (
                f"line 12, {IN}.signature.template: "
                "write {body} into it, once: what is not in it is not signed"
            ),
        ),
        (
            "scheme: hmac",
            "scheme: hmac\n        template: '{timestamp}.{body}'",
            (
                f"line 12, {IN}.signature.template: "
                "{timestamp} needs `timestamp_header`: the name of the header in which it comes"
            ),
        ),
        (
            "scheme: hmac",
            "scheme: hmac\n        timestamp_header: X-Time",
            (
                f"line 12, {IN}.signature.timestamp_header: "
                "this time is not signed; write {timestamp} into `template`, or take this out"
            ),
        ),
        (
            "scheme: hmac",
            "scheme: hmac\n        template: '{id}.{body}'",
            (
                f"line 12, {IN}.signature.template: "
                "there is no {id}; there are {timestamp} and {body}"
            ),
        ),
        (
            "      signature:\n        scheme: hmac\n        header: X-Signature\n",
            "",
            f"line 9, {IN}.signature: this setting is missing; config.example.yaml shows it",
        ),
        # The source
        (
            "provider: mapping",
            "provider: razorpay",
            "line 9, sources.billing.mapping: there is no setting 'mapping'; there are: ",
        ),
        (
            "    mapping:",
            "    maping:",
            (
                "line 5, sources.billing.mapping: "
                "this block is missing; `relay providers mapping` prints one|"
                "line 9, sources.billing.maping: there is no setting 'maping'; "
                "did you mean 'mapping'?"
            ),
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_to_write(
    old: str, new: str, told: str, tmp_path: Path
) -> None:
    found = mistakes(tmp_path, changed((old, new)))
    wanted = told.split("|")
    assert len(found) == len(wanted), found
    for each in wanted:
        assert any(it.startswith(each) for it in found), found


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = changed(
        ("destination: main", "destination: man"),
        ("scheme: hmac", "scheme: hamc"),
        ("id: id", "id: id["),
        ("kind: charge", "kind: charge\n          when: =="),
        ("amount: amount", "amount: $.amount"),
        ("unit: minor", "unit: cents\n        refrence: order"),
    )
    lines = [int(re.match(r"line (\d+)", it)[1]) for it in mistakes(tmp_path, text)]  # type: ignore[index]
    assert lines == [7, 11, 13, 18, 21, 22, 23]


def test_a_mistake_of_a_mistyped_source_is_told_beside_those_of_its_block(tmp_path: Path) -> None:
    text = changed(("    mapping:", "    tolerance: 5\n    mapping:"), ("id: id", "id: id["))
    assert [it.partition(":")[0] for it in mistakes(tmp_path, text)] == [
        "line 9, sources.billing.tolerance",
        "line 14, sources.billing.mapping.id",
    ]


@pytest.mark.parametrize(
    ("scheme", "secret", "words"),
    [
        ("standard_webhooks", "whsec_!", "base64"),
        ("url_secret", "short", "16 to 128"),
        ("hmac\n        header: X-Signature", "' blank'", "white space"),
        ("hmac\n        header: X-Signature", "todo", "placeholder"),
    ],
)
def test_a_secret_is_looked_at_as_the_scheme_wants(
    scheme: str, secret: str, words: str, tmp_path: Path
) -> None:
    text = changed(
        ("scheme: hmac\n        header: X-Signature", f"scheme: {scheme}"),
        ("a-secret-of-our-own", secret),
    )
    (told,) = mistakes(tmp_path, text)
    assert told.startswith("line 8, sources.billing.secrets[0]: ")
    assert words in told


def test_a_path_from_the_environment_that_is_not_set_is_one_mistake(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, changed(("      id: id", "      id: ${ID_PATH}")))
    assert "ID_PATH is not set" in told


@given(text=st.text(max_size=30) | st.text("ab.[]{}()*?|&=!<>'\"`-,:@ 01$\\", max_size=30))
def test_no_text_breaks_the_check_of_a_path(text: str) -> None:
    problem = checks.expression(text)
    if problem is None:
        declared.Expression(text)
    else:
        assert re.match(r"JMESPath, column [0-9]+: ", problem)


def test_a_path_that_is_nested_too_deep_is_a_mistake() -> None:
    assert checks.expression("(" * 50_000) is not None
    assert checks.expression("!" * 50_000 + "a") is not None


WORDS = st.sampled_from(
    [
        *(
            "mapping",
            "signature",
            "types",
            "payment",
            "id",
            "type",
            "events",
            "kind",
            "when",
            "unit",
        ),
        *("scheme", "header", "template", "prefix", "amount", "currency", "currency_is", "body"),
        *("paid", "timestamp_header", "recurrence", "amount_is", "reason", "field", "time"),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [*("hmac", "charge", "refund", "ignore", "a.b", "{body}", "{timestamp}.{body}", "minor")]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=20,
)


@given(block=VALUES | st.dictionaries(WORDS, VALUES), part=WORDS, value=VALUES)
def test_no_block_raises_anything_but_a_config_error(
    block: Any, part: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tree = yaml.safe_load(LEAST)
    for mapping_ in (block, tree["sources"]["billing"]["mapping"] | {part: value}):
        tree["sources"]["billing"]["mapping"] = mapping_
        file = tmp_path_factory.getbasetemp() / "any.yaml"
        file.write_text(yaml.dump(tree, allow_unicode=True), "utf-8", errors="surrogatepass")
        problems: list[Any] = ["none, it is right"]
        try:
            configuration.load(file, {})
        except ConfigError as error:
            problems = error.problems
        assert problems


# The schemes


@pytest.mark.parametrize(
    ("block", "summary"),
    [
        ({"scheme": "hmac", "header": "X-S"}, "HMAC-SHA256 of the body"),
        (
            {"scheme": "hmac", "header": "X-S", "algorithm": "sha512", "encoding": "base64"},
            "HMAC-SHA512 of the body",
        ),
        (
            {
                "scheme": "hmac",
                "header": "X-S",
                "template": "{timestamp}{body}",
                "timestamp_header": "X-T",
                "timestamp_unit": "milliseconds",
            },
            "HMAC-SHA256 of {timestamp}{body}",
        ),
        ({"scheme": "standard_webhooks"}, "Standard Webhooks"),
        ({"scheme": "standard_webhooks", "prefix": "svix-"}, "Standard Webhooks"),
        ({"scheme": "static_token", "header": "X-Token"}, "static token in X-Token"),
        ({"scheme": "url_secret"}, "none: secret in the URL"),
    ],
)
def test_every_scheme_proves_what_it_signs(
    block: dict[str, str], summary: str, tmp_path: Path
) -> None:
    tree = yaml.safe_load(LEAST)
    billing = tree["sources"]["billing"]
    billing["mapping"]["signature"] = block
    file = tmp_path / "relay.yaml"
    billing["secrets"] = ["d2hhdGV2ZXItaXQtaXM="]
    if block["scheme"] == "url_secret":
        billing["secrets"] = ["0123456789abcdef"]
    file.write_text(yaml.dump(tree), "utf-8")
    source = configuration.load(file, {}).sources["billing"]
    assert source.provider.signature.summary == summary
    request = source.provider.signature.sign(received(EVENT), trust(source))
    verify(source, request)
    for name in ("prefix", "header", "timestamp_header"):
        value = block.get(name, "")
        assert any(it.startswith(value.lower()) for it, _ in request.headers.pairs) or not value
    with pytest.raises(VerificationError):
        verify(replace(source, secrets=("b3RoZXI=" * 3,)), request)


def test_milliseconds_of_a_signed_time_are_told_from_seconds(tmp_path: Path) -> None:
    timed = (
        "scheme: hmac\n        template: '{timestamp}.{body}'\n        timestamp_header: X-Time"
        "\n        timestamp_unit: milliseconds"
    )
    source = read(tmp_path, ("scheme: hmac", timed))
    signature = source.provider.signature
    assert signature.signs_time
    request = signature.sign(received(EVENT), trust(source))
    assert request.headers.get("x-time") == "1772366400000"
    verify(source, request)


# The commands


def test_what_is_printed_is_a_block_that_is_right(tmp_path: Path) -> None:
    ran = run("providers", "mapping")
    assert ran.code == 0
    file = tmp_path / "relay.yaml"
    file.write_text(f"destinations:\n  main:\n    api_key: df_abc123\n{ran.out}", "utf-8")
    source = configuration.load(file, {"BILLING_SECRET": SECRET}).sources["billing"]
    assert source.provider.setup.events == ("invoice.paid", "invoice.refunded")
    assert source.provider.setup.secret.endswith("HMAC-SHA256 of {timestamp}.{body}.")


def test_check_and_map_know_the_block(tmp_path: Path) -> None:
    file, body = tmp_path / "relay.yaml", tmp_path / "body.json"
    file.write_text(changed(("currency: currency", "currency: currency")), "utf-8")
    body.write_text(json.dumps(EVENT))
    ran = run("check", "--config", file)
    assert ran.code == 0
    assert "Your own: http://127.0.0.1:8080/webhooks/billing -> main" in ran.out
    ran = run("map", "mapping", body, "--source", "billing", "--config", file)
    assert (ran.code, ran.err) == (0, "")
    (found,) = simplejson.loads(ran.out, use_decimal=True)["payments"]
    assert found["datafast"]["amount"] == Decimal("29.99")
    assert '"amount": 29.99,' in ran.out


def test_map_takes_the_currency_of_the_source_and_the_time_it_is_told(tmp_path: Path) -> None:
    file, body = tmp_path / "relay.yaml", tmp_path / "body.json"
    text = changed(
        ("        currency: currency\n", ""), ("billing:\n", "billing:\n    currency: JPY\n")
    )
    file.write_text(text, "utf-8")
    body.write_text(json.dumps(EVENT))
    at = "2026-03-01T12:00:00Z"
    ran = run("map", "--config", file, "--source", "billing", "mapping", body, "--at", at)
    (found,) = json.loads(ran.out)["payments"]
    assert (found["datafast"]["amount"], found["datafast"]["currency"]) == (2999, "JPY")
    assert found["datafast"]["timestamp"] == "2026-03-01T12:00:00.000Z"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["map", "mapping"], "--source NAME"),
        (["map", "mapping", "--source", "nobody"], "no source is called 'nobody'"),
        (["map", "mapping", "--source", "shop"], "the provider of 'shop' is razorpay"),
        (["map", "razorpay", "--source", "billing"], "the provider of 'billing' is mapping"),
        (["verify", "mapping", "--secret", "x"], "--source NAME"),
    ],
)
def test_a_command_says_which_source_it_wants(args: list[str], words: str, tmp_path: Path) -> None:
    file, body = tmp_path / "relay.yaml", tmp_path / "body.json"
    shop = "  shop:\n    provider: razorpay\n    destination: main\n    secrets: [another-secret]\n"
    file.write_text(LEAST + shop, "utf-8")
    body.write_text(json.dumps(EVENT))
    ran = run(*args, body, "--config", file)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


def test_verify_explains_a_signature_of_the_block(tmp_path: Path) -> None:
    file, body = tmp_path / "relay.yaml", tmp_path / "body.json"
    file.write_text(LEAST, "utf-8")
    body.write_text(json.dumps(EVENT))
    digest = hmac.new(SECRET.encode(), body.read_bytes(), hashlib.sha256).hexdigest()
    args = ("verify", "mapping", body, "--config", file, "--source", "billing", "--secret", SECRET)
    assert run(*args, "--header", f"X-Signature: {digest}").out == "good\n"
    ran = run(*args, "--header", f"X-Signature: {digest[::-1]}")
    assert (ran.code, ran.out.partition(":")[0]) == (1, "bad")


def test_the_sources_settings_count_for_map_with_any_provider(tmp_path: Path) -> None:
    file, body = tmp_path / "relay.yaml", tmp_path / "body.json"
    shop = (
        "  shop:\n    provider: razorpay\n    destination: main\n    test: true\n"
        "    secrets: [another-secret]\n"
    )
    file.write_text(LEAST + shop, "utf-8")
    from helpers import captured

    body.write_bytes(captured().body)
    ran = run("map", "razorpay", body, "--source", "shop", "--config", file)
    assert json.loads(ran.out)["payments"][0]["test"] is True
