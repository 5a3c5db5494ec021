"""Refunds: what DataFast holds in the end is right, whichever reading and policy."""

from collections.abc import Callable

import pytest
from helpers import NOON, Clock, DataFast, Way, attempts, captured, disputed, refunded, row

from relay.config import Config
from relay.model import Decision, State
from relay.sandbox import Options
from relay.store import Filter, Store

READINGS = ["original_id", "refund_id"]
REFUND = "refund.processed:rfnd_1"

each_reading = pytest.mark.parametrize("reading", READINGS)


@pytest.fixture
def begin(
    start_sandbox: Callable[..., DataFast],
    configure: Callable[..., Config],
    store: Store,
    clock: Clock,
) -> Callable[[str, str], tuple[Way, DataFast]]:
    """A relay of this policy before a sandbox of this reading."""

    def begin_(policy: str, reading: str) -> tuple[Way, DataFast]:
        sandbox = start_sandbox(Options(rate_limit=0, refunds=reading))
        config = configure(url=sandbox.url, destination={"refunds": policy})
        return Way(config, store, clock), sandbox

    return begin_


Begin = Callable[[str, str], tuple[Way, DataFast]]


def held(sandbox: DataFast) -> list[tuple[str, str, str]]:
    return sorted((it["kind"], it["transaction_id"], it["amount"]) for it in sandbox.records())


def posted(way: Way, event_id: str) -> list[str]:
    """What came of each POST for an event."""
    return [it.result for it in attempts(way.store, event_id)]


@pytest.mark.parametrize(
    ("policy", "reading", "id", "posts"),
    [
        ("auto", "original_id", "pay_1", ["refunded"]),
        ("auto", "refund_id", "rfnd_1", ["duplicate", "refunded"]),
        ("original_id", "original_id", "pay_1", ["refunded"]),
        ("refund_id", "refund_id", "rfnd_1", ["refunded"]),
        ("refund_id", "original_id", "rfnd_1", ["refunded"]),
    ],
)
def test_a_full_refund_is_held_once(
    begin: Begin, policy: str, reading: str, id: str, posts: list[str]
) -> None:
    way, sandbox = begin(policy, reading)
    way.send(captured(), refunded())
    way.until_settled(REFUND)
    assert held(sandbox) == [("payment", "pay_1", "29.99"), ("refund", id, "29.99")]
    assert posted(way, REFUND) == posts


def test_a_policy_that_does_not_fit_loses_a_refund_and_this_can_be_seen(begin: Begin) -> None:
    """That is why there is `auto`: under the payment's id it reads as the payment again."""
    way, sandbox = begin("original_id", "refund_id")
    way.send(captured(), refunded())
    way.until_settled(REFUND)
    assert held(sandbox) == [("payment", "pay_1", "29.99")]
    assert (row(way.store, REFUND).state, row(way.store, REFUND).reason) == (
        State.DELIVERED,
        "duplicate",
    )


@each_reading
@pytest.mark.parametrize("policy", ["auto", "refund_id"])
def test_partial_refunds_are_held_each_under_its_own_id(
    begin: Begin, policy: str, reading: str
) -> None:
    way, sandbox = begin(policy, reading)
    way.send(captured(), refunded("rfnd_1", amount=1000), refunded("rfnd_2", amount=1999))
    assert held(sandbox) == [
        ("payment", "pay_1", "29.99"),
        ("refund", "rfnd_1", "10.00"),
        ("refund", "rfnd_2", "19.99"),
    ]


@each_reading
def test_a_dispute_is_held_as_a_refund(begin: Begin, reading: str) -> None:
    way, sandbox = begin("auto", reading)
    way.send(captured(), disputed())
    id = {"original_id": "pay_1", "refund_id": "disp_1"}[reading]
    assert held(sandbox) == [("payment", "pay_1", "29.99"), ("refund", id, "29.99")]


@each_reading
def test_a_refund_that_comes_again_is_held_once(begin: Begin, reading: str) -> None:
    way, sandbox = begin("auto", reading)
    for _ in range(3):
        way.send(captured(), refunded())
        way.until_settled(REFUND)
    assert len(held(sandbox)) == 2


@each_reading
@pytest.mark.parametrize("policy", ["auto", "refund_id"])
def test_a_refund_of_a_payment_never_seen_goes_under_its_own_id(
    begin: Begin, policy: str, reading: str
) -> None:
    way, sandbox = begin(policy, reading)
    way.send(refunded())
    assert held(sandbox) == [("refund", "rfnd_1", "29.99")]


@each_reading
def test_a_refund_waits_while_its_payment_is_still_on_its_way(begin: Begin, reading: str) -> None:
    way, sandbox = begin("auto", reading)
    sandbox.fail(status=503, count=1)
    way.send(captured())
    assert held(sandbox) == []
    way.send(refunded())
    assert held(sandbox) == []
    assert row(way.store, REFUND).reason == "waits_for_original"
    assert posted(way, REFUND) == []
    way.until_settled(REFUND)
    id = {"original_id": "pay_1", "refund_id": "rfnd_1"}[reading]
    assert held(sandbox) == [("payment", "pay_1", "29.99"), ("refund", id, "29.99")]


@each_reading
@pytest.mark.parametrize("policy", ["auto", "refund_id"])
def test_a_refund_that_comes_before_its_payment_does_not_take_its_place(
    begin: Begin, policy: str, reading: str
) -> None:
    way, sandbox = begin(policy, reading)
    way.send(refunded())
    way.send(captured())
    assert held(sandbox) == [("payment", "pay_1", "29.99"), ("refund", "rfnd_1", "29.99")]


def test_a_swallowed_refund_stays_under_its_own_id_through_an_outage(begin: Begin) -> None:
    way, sandbox = begin("auto", "refund_id")
    way.send(captured())
    way.accept(refunded())
    way.deliver()  # swallowed as a duplicate of the payment
    assert posted(way, REFUND) == ["duplicate"]
    sandbox.fail(status=503, count=2)
    way.until_settled(REFUND)
    assert posted(way, REFUND) == ["duplicate", "unavailable", "unavailable", "refunded"]
    assert held(sandbox) == [("payment", "pay_1", "29.99"), ("refund", "rfnd_1", "29.99")]


def test_a_refund_whose_answer_was_lost_is_not_made_twice(begin: Begin) -> None:
    way, sandbox = begin("auto", "original_id")
    way.send(captured())
    sandbox.fail(drop=True, when="after", count=1)
    way.send(refunded())
    way.until_settled(REFUND)
    assert posted(way, REFUND) == ["unavailable", "duplicate"]
    assert held(sandbox) == [("payment", "pay_1", "29.99"), ("refund", "pay_1", "29.99")]


@each_reading
def test_a_replayed_refund_is_not_made_twice(begin: Begin, reading: str) -> None:
    way, sandbox = begin("auto", reading)
    way.send(captured(), refunded())
    before = held(sandbox)
    for _ in range(2):
        assert way.store.replay(Filter(), way.clock()) == 2
        sandbox.fail(status=429, count=1)
        way.until_settled("payment.captured:pay_1")
        way.until_settled(REFUND)
    assert held(sandbox) == before
    assert len(before) == 2


@each_reading
def test_a_refund_that_was_never_posted_finds_its_id_in_a_replay(
    begin: Begin, reading: str
) -> None:
    way, sandbox = begin("auto", reading)
    way.accept(captured())
    way.accept(refunded())
    for delivery in way.claim():
        way.store.settle(delivery, Decision(State.DEAD, "unknown_source"), NOON)
    way.store.replay(Filter(), way.clock())
    way.until_settled("payment.captured:pay_1")
    way.until_settled(REFUND)
    id = {"original_id": "pay_1", "refund_id": "rfnd_1"}[reading]
    assert held(sandbox) == [("payment", "pay_1", "29.99"), ("refund", id, "29.99")]


def test_a_refund_whose_worker_died_after_the_post_is_not_made_twice(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    way, sandbox = begin("auto", "original_id")
    way.send(captured())
    way.accept(refunded())
    (delivery,) = way.claim()
    with monkeypatch.context() as patch:

        def die(*_: object, **__: object) -> None:
            raise SystemExit

        patch.setattr(way.store, "settle", die)
        with pytest.raises(SystemExit):
            way.courier.deliver(delivery, way.source)
    assert len(held(sandbox)) == 2
    way.clock.pass_(minutes=5)
    way.until_settled(REFUND)
    assert held(sandbox) == [("payment", "pay_1", "29.99"), ("refund", "pay_1", "29.99")]


def test_a_refund_that_waits_for_its_payment_waits_longer_each_time(begin: Begin) -> None:
    way, sandbox = begin("auto", "original_id")
    sandbox.fail(status=503)
    way.send(captured(), refunded())
    waits = []
    for _ in range(14):
        refund = row(way.store, REFUND)
        waits.append((refund.due_at - way.clock()).total_seconds())
        way.wait(REFUND)
        for delivery in way.claim():
            if delivery.event_id == REFUND:
                way.courier.deliver(delivery, way.source)
    assert waits[0] == 1
    assert waits == sorted(waits)
    assert waits[-1] == 300
    assert refund.first_due_at == NOON
    assert posted(way, REFUND) == []
