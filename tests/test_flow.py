"""The way of an event, from the provider's bytes to DataFast's record: once, whatever happens."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import yaml
from helpers import (
    EMAIL,
    KEY,
    LEASE,
    NOON,
    SECRET,
    VISITOR,
    Clock,
    DataFast,
    Way,
    attempts,
    captured,
    count,
    disputed,
    gate,
    refunded,
    row,
    seen,
    signed,
    states,
)

from relay import provider, samples
from relay.app import create_app
from relay.config import Config
from relay.errors import PayloadError, VerificationError
from relay.flow import Accepted
from relay.log import JsonLines
from relay.model import Headers, Kind, Lane, Payment, Received, Recurrence, State, Trust
from relay.rehearse import StandIn
from relay.sandbox import Options
from relay.store import Filter, Store
from relay.worker import log_step

Configure = Callable[..., Config]
PAID = "payment.captured:pay_1"
DELIVERED = (State.DELIVERED, "recorded")


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    found = StandIn()
    yield found
    found.close()


# Once


def test_a_payment_is_recorded_at_datafast_with_all_that_is_known(
    way: Way, sandbox: DataFast
) -> None:
    sandbox.know(VISITOR)
    assert way.accept(captured(visitor=VISITOR)) == Accepted(1, 1)
    assert sandbox.records() == []  # accepting only stores
    (step,) = way.deliver_all()
    assert (step.decision.state, step.kept) == (State.DELIVERED, True)
    assert states(way.store) == {PAID: (State.DELIVERED, "attributed")}
    (record,) = sandbox.records()
    assert (record["transaction_id"], record["amount"], record["currency"]) == (
        "pay_1",
        "29.99",
        "EUR",
    )
    assert (record["email"], record["attributed"]) == (EMAIL, True)
    assert record["datafast_visitor_id"] == VISITOR
    assert record["timestamp"] == "2026-03-01T12:00:00.000Z"
    event = row(way.store, PAID)
    assert (event.kind, event.transaction_id, event.mark) == ("charge", "pay_1", None)
    (attempt,) = attempts(way.store, PAID)
    assert (attempt.result, attempt.status) == ("attributed", 200)
    assert '"amount": 29.99' in attempt.sent


def test_a_forgery_is_not_stored(way: Way) -> None:
    genuine = captured()
    with pytest.raises(VerificationError):
        way.accept(replace(genuine, body=genuine.body.replace(b"2999", b"9999")))
    with pytest.raises(VerificationError):
        way.accept(replace(genuine, headers=Headers([("x-razorpay-event-id", "evt_1")])))
    assert (count(way.store, "requests"), count(way.store, "events")) == (0, 0)


def test_however_often_it_is_told_it_is_recorded_once(way: Way, sandbox: DataFast) -> None:
    for n in range(3):
        assert way.accept(captured()) == Accepted(1, 1 if n == 0 else 0)
    way.deliver_all()
    way.send(captured())
    assert seen(way.store) == {PAID: 4}
    assert sandbox.ids() == ["pay_1"]
    assert sandbox.posts() == 1


@pytest.mark.parametrize("first", ["payment.captured", "subscription.charged"])
def test_a_payment_that_two_types_of_event_tell_of_is_sent_once(
    way: Way, sandbox: DataFast, first: str
) -> None:
    types = ["payment.captured", "subscription.charged"]
    for type in sorted(types, key=lambda it: it != first):
        way.send(captured(type=type))
    told, again = f"{first}:pay_1", next(f"{it}:pay_1" for it in types if it != first)
    assert states(way.store) == {told: DELIVERED, again: (State.IGNORED, "already_told")}
    assert sandbox.posts() == 1


def test_what_happened_twice_is_sent_twice(way: Way, sandbox: DataFast) -> None:
    way.send(captured("pay_1"), captured("pay_2"))
    assert sandbox.ids() == ["pay_1", "pay_2"]


def test_the_same_payment_of_two_sources_is_each_its_own(
    configure: Configure, store: Store, clock: Clock, sandbox: DataFast
) -> None:
    other = {"provider": "razorpay", "destination": "site", "secrets": [SECRET]}
    config = configure(sources={"other": other})
    Way(config, store, clock).send(captured())
    Way(config, store, clock, "other").send(captured())
    assert [it.reason for it in store.listed(Filter())] == ["duplicate", "recorded"]
    assert sandbox.ids() == ["pay_1"]


def test_a_teller_that_died_makes_room_for_another(way: Way, sandbox: DataFast) -> None:
    sandbox.fail(status=400, count=1)
    way.send(captured(type="payment.captured"))
    assert row(way.store, PAID).state is State.DEAD
    way.send(captured(type="subscription.charged"))
    assert row(way.store, "subscription.charged:pay_1").state is State.DELIVERED
    way.store.replay(Filter(state=State.DEAD), way.clock())
    way.deliver_all()
    assert states(way.store)[PAID] == (State.IGNORED, "already_told")
    assert sandbox.ids() == ["pay_1"]


# A worker that dies, an answer that is lost


def test_a_crash_between_the_post_and_writing_it_down_records_it_once(
    way: Way, sandbox: DataFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    way.accept(captured())
    (delivery,) = way.claim()
    with monkeypatch.context() as patch:

        def die(*_: object, **__: object) -> None:
            raise SystemExit

        patch.setattr(way.store, "settle", die)
        with pytest.raises(SystemExit):
            way.courier.deliver(delivery, way.source)
    assert sandbox.ids() == ["pay_1"]
    assert states(way.store) == {PAID: (State.PENDING, "")}
    assert way.deliver() == []  # leased
    way.clock.now += LEASE
    way.deliver_all()
    assert states(way.store) == {PAID: (State.DELIVERED, "duplicate")}
    assert sandbox.ids() == ["pay_1"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_answer_that_is_lost_records_it_once(way: Way, sandbox: DataFast, when: str) -> None:
    sandbox.fail(drop=True, when=when, count=1)
    way.send(captured())
    assert states(way.store) == {PAID: (State.PENDING, "unavailable")}
    way.until_settled(PAID)
    assert row(way.store, PAID).state is State.DELIVERED
    assert sandbox.ids() == ["pay_1"]
    assert [it.status for it in attempts(way.store, PAID)] == [None, 200]


def test_a_worker_that_was_too_slow_changes_nothing(way: Way, sandbox: DataFast) -> None:
    way.accept(captured())
    (slow,) = way.claim()
    way.clock.now += LEASE
    way.deliver_all()
    step = way.courier.deliver(slow, way.source)
    assert not step.kept
    assert states(way.store) == {PAID: DELIVERED}
    assert [it.result for it in attempts(way.store, PAID)] == ["recorded", "duplicate"]
    assert sandbox.ids() == ["pay_1"]


# What cannot be read


def unreadable() -> Received:
    return signed("payment.captured", {}, "evt_1", NOON)


def test_what_cannot_be_mapped_is_kept_dead_with_the_place(way: Way, sandbox: DataFast) -> None:
    way.send(unreadable())
    ((state, reason),) = states(way.store).values()
    assert state is State.DEAD
    assert "$.payload" in reason
    assert sandbox.posts() == 0
    assert way.deliver_all() == []


def test_what_cannot_be_read_at_all_is_kept_dead_and_counted(way: Way) -> None:
    request = bytes_signed(b"not JSON")
    accepted = way.accept(request)
    assert (accepted.events, accepted.new) == (1, 1)
    assert accepted.dead is not None
    assert accepted.dead.startswith("malformed_json: ")
    assert way.accept(request).new == 0
    ((state, reason),) = states(way.store).values()
    assert (state, reason) == (State.DEAD, accepted.dead)
    (event,) = way.store.listed(Filter())
    assert way.store.shown(event.id)["request"].body == b"not JSON"


def bytes_signed(body: bytes) -> Received:
    """These very bytes, signed."""
    request = Received(body, Headers([("Content-Type", "application/json")]), NOON)
    trust = Trust((SECRET,), 300, {"test": False}, lambda _: b"")
    return provider.load("razorpay").signature.sign(request, trust)


class Mended:
    """A source whose adapter was mended since, in what it parses or maps."""

    def __init__(self, way: Way) -> None:
        self.way = way

    def __call__(self, **changes: Any) -> None:
        source = self.way.source
        mended = replace(source, provider=replace(source.provider, **changes))
        self.way.config = replace(self.way.config, sources={source.name: mended})


def test_a_mended_adapter_makes_a_dead_request_whole_in_a_replay(
    way: Way, sandbox: DataFast
) -> None:
    genuine, parse = captured(), way.source.provider.parse

    def cannot(_: Received) -> Any:
        raise PayloadError("missing_field", "$.id", "text is missing")

    mend = Mended(way)
    mend(parse=cannot)
    assert way.accept(genuine).dead == "missing_field: $.id: text is missing"
    (dead,) = way.store.listed(Filter())
    mend(parse=parse)
    way.store.replay(Filter(id=dead.id), way.clock())
    steps = way.deliver_all()
    assert [it.added for it in steps] == [1, 0]
    assert states(way.store) == {dead.event_id: (State.IGNORED, "became_1_events"), PAID: DELIVERED}
    assert row(way.store, PAID).parent == dead.id
    assert row(way.store, PAID).lane is Lane.REPLAY
    assert sandbox.ids() == ["pay_1"]
    assert way.accept(genuine).new == 0  # and it is known from now on


def test_a_mended_mapper_makes_a_dead_event_whole_in_a_replay(way: Way, sandbox: DataFast) -> None:
    mapper = way.source.provider.events["payment.captured"]

    def cannot(_: Any) -> Any:
        raise PayloadError("wrong_type", "$.amount", "a number is wanted")

    mend = Mended(way)
    mend(events={"payment.captured": cannot})
    way.send(captured())
    assert states(way.store) == {PAID: (State.DEAD, "wrong_type: $.amount: a number is wanted")}
    mend(events={"payment.captured": mapper})
    assert way.store.replay(Filter(state=State.DEAD), way.clock()) == 1
    way.deliver_all()
    assert states(way.store) == {PAID: DELIVERED}
    assert sandbox.ids() == ["pay_1"]


@pytest.mark.parametrize(
    "odd",
    [
        {"transaction_id": "p" * 300},
        {"transaction_id": "r" * 20, "original_id": "p" * 300, "kind": Kind.REFUND},
        {"currency": "EURO"},
        {"customer_id": "c" * 10_000},
    ],
    ids=["long id", "long original", "currency", "long customer"],
)
def test_values_of_odd_sizes_end_the_same_on_both_engines(way: Way, odd: dict[str, Any]) -> None:
    values = {
        "kind": Kind.CHARGE,
        "transaction_id": "pay_1",
        "amount": Decimal(1),
        "currency": "EUR",
        "occurred_at": NOON,
        "recurrence": Recurrence.ONE_TIME,
    }
    Mended(way)(events={"payment.captured": lambda _: Payment(**values | odd)})
    way.send(captured())
    state, reason = states(way.store)[PAID]
    assert state is (State.DELIVERED if "customer_id" in odd else State.DEAD), reason


# What is not for DataFast


def test_test_events_are_kept_and_not_sent(
    configure: Configure, store: Store, clock: Clock, sandbox: DataFast
) -> None:
    way = Way(configure(source={"test": True}), store, clock)
    way.send(captured())
    assert states(store) == {PAID: (State.IGNORED, "test_event")}
    assert sandbox.posts() == 0


def test_test_events_are_sent_where_the_source_says_so(
    configure: Configure, store: Store, clock: Clock, sandbox: DataFast
) -> None:
    Way(configure(source={"test": True, "test_events": "forward"}), store, clock).send(captured())
    assert sandbox.ids() == ["pay_1"]


@pytest.mark.parametrize(
    ("policy", "ended"), [("refund", DELIVERED), ("ignore", (State.IGNORED, "dispute"))]
)
def test_disputes_follow_their_policy(
    configure: Configure,
    store: Store,
    clock: Clock,
    sandbox: DataFast,
    policy: str,
    ended: tuple[State, str],
) -> None:
    way = Way(configure(source={"disputes": policy}), store, clock)
    way.send(disputed(of="pay_unseen"))
    (found,) = states(store).values()
    assert found[0] is ended[0]
    assert [it["refunded"] for it in sandbox.records()] == [True] * (policy == "refund")


def test_a_payment_of_nothing_is_not_sent(way: Way, sandbox: DataFast) -> None:
    way.send(captured(amount=0))
    assert states(way.store) == {PAID: (State.IGNORED, "zero_amount")}
    assert sandbox.posts() == 0


def test_types_without_money_are_kept_with_the_reason(way: Way, sandbox: DataFast) -> None:
    way.send(signed("order.paid", {}, "evt_1", NOON), signed("never.heard.of", {}, "evt_2", NOON))
    assert states(way.store) == {
        "evt_1": (State.IGNORED, "told_by_payment.captured"),
        "evt_2": (State.IGNORED, "unknown_type"),
    }
    assert sandbox.posts() == 0


def test_a_visitor_id_that_is_none_is_left_out_and_marked(way: Way, sandbox: DataFast) -> None:
    way.send(captured(visitor="undefined"))
    assert states(way.store) == {PAID: DELIVERED}
    assert row(way.store, PAID).mark == "datafast_visitor_id left out: not a UUID v4"
    assert sandbox.records()[0]["datafast_visitor_id"] is None


# Answers


def test_a_visitor_who_comes_late_is_attributed(way: Way, sandbox: DataFast) -> None:
    not_found = f'{{"message": "First event not found for visitor {VISITOR}"}}'
    sandbox.know(VISITOR)
    sandbox.fail(status=200, body=not_found, count=2)
    way.send(captured(visitor=VISITOR))
    event = row(way.store, PAID)
    assert (event.state, event.reason, event.lane) == (
        State.PENDING,
        "visitor_not_found",
        Lane.PARKED,
    )
    assert timedelta(minutes=2) <= event.due_at - NOON <= timedelta(minutes=2.4)
    way.until_settled(PAID)
    assert states(way.store) == {PAID: (State.DELIVERED, "attributed")}


def test_a_visitor_who_never_comes_is_recorded_without(way: Way, sandbox: DataFast) -> None:
    """The real answer records the payment; asked again it says "duplicate", and that is the end."""
    way.send(captured(visitor=VISITOR))
    assert row(way.store, PAID).lane is Lane.PARKED
    assert sandbox.ids() == ["pay_1"]
    way.until_settled(PAID)
    assert row(way.store, PAID).state is State.DELIVERED
    assert sandbox.ids() == ["pay_1"]
    assert not sandbox.records()[0]["attributed"]


def test_a_visitor_who_is_not_found_for_hours_is_done_without(way: Way, sandbox: DataFast) -> None:
    sandbox.fail(status=200, body='{"message": "First event not found for visitor x"}')
    way.send(captured(visitor=VISITOR))
    way.until_settled(PAID)
    assert states(way.store) == {PAID: (State.DELIVERED, "visitor_not_found")}
    assert len(attempts(way.store, PAID)) == 5
    assert timedelta(hours=7) < way.clock() - NOON < timedelta(hours=9)


def test_an_answer_that_is_not_understood_is_asked_again(way: Way, sandbox: DataFast) -> None:
    sandbox.fail(status=200, body="nonsense", when="after", count=2)
    way.send(captured())
    assert states(way.store) == {PAID: (State.PENDING, "unknown")}
    way.until_settled(PAID)
    assert [it.result for it in attempts(way.store, PAID)] == ["unknown", "unknown", "duplicate"]
    assert sandbox.ids() == ["pay_1"]


def test_hostile_answers_are_kept_and_asked_again(way: Way, sandbox: DataFast) -> None:
    sandbox.fail(
        status=503,
        body='{"message": "a\\u0000b\\ud800", "x": "\x00"}',
        headers={"Retry-After": "9" * 5_000, "X-RateLimit-Reset": "9" * 15},
        count=1,
    )
    way.send(captured())
    assert states(way.store) == {PAID: (State.PENDING, "unavailable")}
    assert row(way.store, PAID).due_at == NOON + timedelta(hours=12)
    way.until_settled(PAID)
    assert sandbox.ids() == ["pay_1"]


def test_an_outage_is_waited_for_by_the_schedule(way: Way, sandbox: DataFast) -> None:
    sandbox.fail(status=503, count=3)
    way.send(captured())
    event = row(way.store, PAID)
    assert (event.state, event.reason, event.lane) == (State.PENDING, "unavailable", Lane.RETRY)
    assert timedelta(seconds=5) <= event.due_at - NOON <= timedelta(seconds=6)
    way.until_settled(PAID)
    assert [it.status for it in attempts(way.store, PAID)] == [503, 503, 503, 200]
    assert row(way.store, PAID).attempt == 4
    assert sandbox.ids() == ["pay_1"]


def test_an_outage_of_days_ends_dead_and_a_replay_brings_it_back(
    way: Way, sandbox: DataFast
) -> None:
    sandbox.fail(status=503)
    way.send(captured())
    way.until_settled(PAID)
    assert states(way.store) == {PAID: (State.DEAD, "gave_up: unavailable")}
    assert way.clock() - NOON <= timedelta(days=3, minutes=15)
    sandbox.mend()
    way.store.replay(Filter(), way.clock())
    way.clock.pass_(minutes=10)  # until the breaker closes
    way.deliver_all()
    assert states(way.store) == {PAID: DELIVERED}
    assert sandbox.ids() == ["pay_1"]


def test_a_dead_destination_is_left_alone(way: Way, sandbox: DataFast) -> None:
    sandbox.fail(status=503)
    for n in range(20):
        way.send(captured(f"pay_{n}"))
    assert sandbox.posts() == 5
    assert gate(way.store, way.gate).reason == "unavailable"
    sandbox.mend()
    way.clock.pass_(minutes=1)
    way.deliver_all()
    assert len(sandbox.ids()) == 20


def test_a_refusal_is_dead_with_datafasts_words(way: Way, sandbox: DataFast) -> None:
    body = '{"status": "error", "error": {"code": 400, "message": "currency is wrong"}}'
    sandbox.fail(status=400, body=body)
    way.send(captured())
    assert states(way.store) == {PAID: (State.DEAD, "rejected: currency is wrong")}


@pytest.mark.parametrize("unit", ["seconds", "milliseconds"])
def test_a_limit_is_waited_for_until_its_reset(
    start_sandbox: Callable[..., DataFast],
    configure: Configure,
    store: Store,
    clock: Clock,
    unit: Any,
) -> None:
    sandbox = start_sandbox(Options(rate_limit=3, reset_unit=unit))
    way = Way(configure(url=sandbox.url), store, clock)  # which paces nothing itself
    for n in range(5):
        way.accept(captured(f"pay_{n}"))
    way.deliver_all()
    assert len(sandbox.ids()) == 3
    assert way.store.gate_opens_at(way.gate) == NOON + timedelta(minutes=1)
    reasons = sorted(it.reason for it in store.listed(Filter(state=State.PENDING)))
    assert reasons == ["", "throttled"]
    assert sandbox.posts() == 4
    way.clock.pass_(seconds=59)
    way.deliver_all()
    assert sandbox.posts() == 4
    way.clock.pass_(seconds=1)
    way.deliver_all()
    assert len(sandbox.ids()) == 5
    assert {it.failures for it in store.listed(Filter())} == {0}


def test_a_limit_is_met_without_being_refused(
    start_sandbox: Callable[..., DataFast], configure: Configure, store: Store, clock: Clock
) -> None:
    sandbox = start_sandbox(Options(rate_limit=60))
    way = Way(configure(url=sandbox.url, destination={"rate_limit": 60}), store, clock)
    for n in range(70):
        way.accept(captured(f"pay_{n}"))
    for _ in range(200):
        way.deliver_all()
        clock.pass_(seconds=0.5)
    assert len(sandbox.ids()) == 70
    assert sandbox.app.test_client().get("/sandbox/requests").json["by_status"] == {"200": 70}


@pytest.mark.parametrize("days", [1, 5])
def test_a_bad_key_pauses_the_destination_and_loses_nothing(
    way: Way, sandbox: DataFast, configure: Configure, store: Store, clock: Clock, days: int
) -> None:
    sandbox.put("tokens", revoked=[KEY])
    for n in range(5):
        way.send(captured(f"pay_{n}"))
    assert sandbox.posts() == 1  # the first one was enough
    assert {it.state for it in store.listed(Filter())} == {State.PENDING}
    assert gate(store, way.gate).reason == "unauthorised"
    for _ in range(days * 4):
        clock.pass_(hours=6)
        way.deliver_all()
    assert sandbox.posts() == 1 + days * 4
    assert {it.failures for it in store.listed(Filter())} == {0}
    mended = Way(configure(destination={"api_key": "df_another_key"}), store, clock)
    mended.deliver_all()
    assert sorted(sandbox.ids()) == [f"pay_{n}" for n in range(5)]


def test_after_days_without_a_key_a_failure_or_two_are_not_the_end(
    way: Way, sandbox: DataFast, clock: Clock
) -> None:
    sandbox.put("tokens", revoked=[KEY])
    way.send(captured())
    clock.pass_(days=5)
    way.deliver_all()
    sandbox.put("tokens")
    sandbox.fail(status=503, count=3)
    clock.pass_(hours=1)
    way.deliver_all()
    assert states(way.store)[PAID] == (State.PENDING, "unavailable")
    way.until_settled(PAID)
    assert states(way.store) == {PAID: DELIVERED}
    assert sandbox.ids() == ["pay_1"]


# Thin events


def mollie(
    configure: Configure, standin: StandIn, name: str = "mollie", **rest: Any
) -> tuple[Config, Any]:
    """A source for Mollie (or another), whose API is stood in for."""
    rehearsed = standin.rehearse(provider.load(name))
    block = {
        "provider": name,
        "destination": "site",
        "secrets": list(rehearsed.rehearsal.secrets),
        "hold_seconds": 0,
        **rehearsed.settings,
        **rest,
    }
    return configure(sources={"thin": yaml.safe_load(yaml.safe_dump(block))}), rehearsed


def thin_sample(rehearsed: Any, name: str) -> tuple[Received, dict[str, Any]]:
    (sample,) = [it for it in samples.of("mollie") if it.name == name]
    return rehearsed.sign(replace(sample.request, received_at=NOON)), dict(sample.expected)


THIN = [it.name for it in samples.of("mollie") if it.expected.get("payments")]


@pytest.mark.parametrize("name", THIN)
def test_a_thin_event_is_fetched_and_becomes_what_it_is(
    configure: Configure, store: Store, clock: Clock, standin: StandIn, name: str
) -> None:
    config, rehearsed = mollie(configure, standin, test_events="forward")
    way = Way(config, store, clock, "thin")
    request, expected = thin_sample(rehearsed, name)
    way.send(request)
    wanted = {it["event_id"] for it in [*expected["payments"], *expected["ignored"]]}
    assert wanted < set(states(store))
    for payment in expected["payments"]:
        way.until_settled(payment["event_id"])
        child = row(store, payment["event_id"])
        assert child.state is State.DELIVERED
        assert store.documents(child.id) != []
    (hint,) = [it for it in store.listed(Filter()) if it.parent is None]
    assert (hint.state, hint.reason) == (State.IGNORED, f"became_{len(wanted)}_events")


def test_a_thin_event_that_stays_one_event_keeps_what_was_answered(
    configure: Configure, store: Store, clock: Clock, sandbox: DataFast, standin: StandIn
) -> None:
    config, rehearsed = mollie(configure, standin, "gocardless")
    (sample,) = [it for it in samples.of("gocardless") if it.name == "payments.confirmed"]
    way = Way(config, store, clock, "thin")
    way.send(rehearsed.sign(replace(sample.request, received_at=NOON)))
    (event,) = store.listed(Filter())
    event = way.until_settled(event.event_id)
    assert (event.state, event.parent) == (State.DELIVERED, None)
    recorded = [(it.path, it.body) for it in sample.documents]
    assert [(it.path, it.body) for it in store.documents(event.id)] == recorded
    assert sandbox.ids() == [event.transaction_id]


def test_a_hint_that_comes_again_is_asked_again_and_recorded_once(
    configure: Configure, store: Store, clock: Clock, sandbox: DataFast, standin: StandIn
) -> None:
    config, rehearsed = mollie(configure, standin, test_events="forward")
    way = Way(config, store, clock, "thin")
    request, _ = thin_sample(rehearsed, THIN[0])
    first = len(way.send(request))
    way.clock.pass_(days=1)
    for each in store.listed(Filter(state=State.PENDING)):
        way.until_settled(each.event_id)
    posts = sandbox.posts()
    assert first >= 2
    (step,) = way.send(request)  # only the hint itself: what it becomes is known
    assert (step.added, step.decision.state) == (0, State.IGNORED)
    assert sandbox.posts() == posts


def test_a_child_is_replayed_from_what_was_answered_then(
    configure: Configure, store: Store, clock: Clock, sandbox: DataFast
) -> None:
    standin = StandIn()
    try:
        config, rehearsed = mollie(configure, standin, test_events="forward")
        way = Way(config, store, clock, "thin")
        request, expected = thin_sample(rehearsed, THIN[0])
        sandbox.fail(status=400)
        way.send(request)
    finally:
        standin.close()  # the provider's API is gone
    sandbox.mend()
    id = expected["payments"][0]["event_id"]
    assert row(store, id).state is State.DEAD
    store.replay(Filter(id=row(store, id).id), clock())
    way.until_settled(id)
    assert row(store, id).state is State.DELIVERED


def test_a_provider_whose_api_is_away_is_asked_again(
    configure: Configure, store: Store, clock: Clock
) -> None:
    standin = StandIn()
    config, rehearsed = mollie(configure, standin)
    standin.close()
    way = Way(config, store, clock, "thin")
    request, _ = thin_sample(rehearsed, THIN[0])
    way.send(request)
    (hint,) = store.listed(Filter())
    assert (hint.state, hint.reason, hint.lane) == (State.PENDING, "fetch_unavailable", Lane.RETRY)
    way.until_settled(hint.event_id)
    assert row(store, hint.event_id).reason == "gave_up: fetch_unavailable"


def test_what_the_providers_api_does_not_know_is_dead_with_the_reason(
    configure: Configure, store: Store, clock: Clock, standin: StandIn
) -> None:
    config, rehearsed = mollie(configure, standin)
    way = Way(config, store, clock, "thin")
    (sample, *_) = [it for it in samples.of("mollie") if it.request.body.startswith(b"id=tr_")]
    unknown = replace(sample.request, body=b"id=tr_neverHeardOf", received_at=NOON)
    way.send(rehearsed.sign(unknown))
    ((state, reason),) = states(store).values()
    assert state is State.DEAD
    assert reason.startswith("fetch_404: ")


# What may be seen


@contextmanager
def log_lines() -> Iterator[list[str]]:
    """Every line, made as in production, from all loggers, at the most talkative level."""
    lines: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    keeper = Keeper()
    keeper.setFormatter(JsonLines())
    loggers = {name: logging.getLogger(name) for name in ("root", "werkzeug", "urllib3")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for name, logger in loggers.items():  # the noisy ones as relay.log.configure says
        logger.setLevel(logging.DEBUG if name == "root" else logging.WARNING)
    loggers["root"].addHandler(keeper)
    try:
        yield lines
    finally:
        loggers["root"].removeHandler(keeper)
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def test_no_log_line_of_a_whole_run_holds_what_is_nobodys_business(
    sandbox: DataFast, configure: Configure, store: Store, clock: Clock, standin: StandIn
) -> None:
    config, rehearsed = mollie(configure, standin, test_events="forward")
    way = Way(config, store, clock)
    client = create_app(config, store).test_client()
    sandbox.know(VISITOR)
    genuine = captured(visitor=VISITOR)
    thin, _ = thin_sample(rehearsed, THIN[0])

    def post(request: Received, path: str = "/webhooks/shop") -> int:
        return client.post(path, data=request.body, headers=[*request.headers.pairs]).status_code

    def deliver() -> None:
        for _ in range(20):
            for delivery in way.claim():
                step = way.courier.deliver(delivery, config.sources[delivery.source])
                log_step(delivery, step, 0.1)
            clock.pass_(seconds=30)

    with log_lines() as lines:
        assert [post(it) for it in (genuine, genuine, refunded())] == [200] * 3
        assert (
            post(bytes_signed(b'{"event": "payment.captured", "email": "ada@example.com"}')) == 200
        )
        assert post(bytes_signed(b"not JSON: ada@example.com")) == 200
        assert post(replace(genuine, body=genuine.body + b" ")) == 401
        assert post(genuine, "/webhooks/unknown") == 404
        assert post(thin, f"/webhooks/thin/{thin.url_secret}") == 200
        assert post(thin, "/webhooks/thin/wrong-secret-of-the-url") == 401
        clock.now = max(clock.now, *(it.due_at for it in store.listed(Filter()) if it.due_at))
        sandbox.fail(status=400, body=f'{{"error": {{"message": "no: {EMAIL}"}}}}', count=1)
        deliver()
        sandbox.fail(status=401, count=1)
        way.accept(captured("pay_2"))
        deliver()
    together = " ".join(lines)
    for event in ("stored", "unreadable", "refused"):
        assert f"webhook.{event}" in together
    assert '"result": "unauthorised"' in together
    signatures = [value for name, value in genuine.headers.pairs if "signature" in name]
    assert signatures
    secrets = [SECRET, KEY, EMAIL, VISITOR, thin.url_secret, "wrong-secret", "@", *signatures]
    secrets += [str(value) for value in rehearsed.settings.values() if "http" not in str(value)]
    secrets += ['"email"', '"payload"', "29.99", "not JSON:"]
    for line in lines:
        for secret in secrets:
            assert str(secret) not in line, line
