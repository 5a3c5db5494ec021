"""Everything durable, on both engines: stored once, claimed by one, paced, and never half written."""

import select
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Postgres
from helpers import LEASE, NOON, arrival, attempts, count, fill, gate, poll, row, seen, states
from sqlalchemy.engine import make_url

from relay.errors import StoreUnavailableError
from relay.model import (
    Attempt,
    Decision,
    Delivery,
    Document,
    Event,
    Lane,
    Outcome,
    Result,
    State,
)
from relay.payload import Payload
from relay.store import Filter, Store, inbox
from relay.store import engine as engines

OpenStore = Callable[[], Store]
KEY = "gate_1"
OTHER = "gate_2"
SECOND = timedelta(seconds=1)

sqlite_only = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
postgresql_only = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)


def claim(store: Store, now: datetime = NOON + SECOND, limit: int = 10) -> list[Delivery]:
    return store.claim(now, LEASE, limit)


def tried(result: Result = Result.UNAVAILABLE) -> Attempt:
    return Attempt(NOON, SECOND, "{}", Outcome(result, "what was said", 200, "the answer"))


def again(reason: str = "later", at: datetime = NOON, **rest: Any) -> Decision:
    return Decision(State.PENDING, reason, at, **rest)


def at_once(stores: list[Store], calls: list[Callable[[Store], Any]]) -> list[Any]:
    """Each call in a thread of its own, on the stores in turn, all beginning together."""
    together = threading.Barrier(len(calls))

    def run(index: int) -> Any:
        together.wait(30)
        return calls[index](stores[index % len(stores)])

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, range(len(calls))))


# In


def test_an_event_is_stored_once_and_counted_however_often_it_comes(store: Store) -> None:
    assert [store.add(arrival("evt_1")) for _ in range(3)] == [1, 0, 0]
    assert seen(store) == {"evt_1": 3}


def test_an_event_that_stands_twice_in_one_batch_is_stored_once(store: Store) -> None:
    batch = [arrival("a", "b"), arrival("a"), arrival("c", "a")]
    fresh = store._writer.one(lambda connection: inbox.add_all(connection, batch))
    assert fresh == [2, 0, 1]
    assert seen(store) == {"a": 3, "b": 1, "c": 1}
    assert count(store, "requests") == 2


def test_an_event_that_comes_in_many_threads_at_once_is_stored_once(store: Store) -> None:
    added = at_once([store], [lambda it: it.add(arrival("evt_1"))] * 20)
    assert sorted(added) == [0] * 19 + [1]
    assert seen(store) == {"evt_1": 20}
    assert count(store, "requests") == 1


def test_an_event_that_comes_to_two_processes_at_once_is_stored_once(
    open_store: OpenStore,
) -> None:
    stores = [open_store(), open_store()]
    calls = [lambda it, n=n: it.add(arrival(f"evt_{n % 5}")) for n in range(20)]
    assert sum(at_once(stores, calls)) == 5
    assert seen(stores[0]) == {f"evt_{n}": 4 for n in range(5)}
    assert count(stores[0], "requests") == 5


def test_the_same_events_in_opposite_order_do_not_block_each_other(open_store: OpenStore) -> None:
    stores = [open_store(), open_store()]
    for turn in range(15):
        ids = [f"evt_{turn}_{n}" for n in range(8)]
        calls = [
            lambda it, ids=ids: it.add(arrival(*ids)),
            lambda it, ids=ids: it.add(arrival(*reversed(ids))),
        ]
        assert sum(at_once(stores, calls)) == 8
    assert set(seen(stores[0]).values()) == {2}


def test_the_same_event_of_two_sources_is_two_events(store: Store) -> None:
    assert store.add(arrival("evt_1", source="one")) == 1
    assert store.add(arrival("evt_1", source="two")) == 1


def test_a_request_whose_events_are_all_known_leaves_no_orphan(store: Store) -> None:
    store.add(arrival("a", "b"))
    assert store.add(arrival("b", "a")) == 0
    assert count(store, "requests") == 1
    assert store.add(arrival("b", "c")) == 1
    assert count(store, "requests") == 2


def test_a_request_comes_back_as_it_arrived(store: Store) -> None:
    sent = arrival("evt_1", body=bytes(range(256)))
    store.add(sent)
    (delivery,) = claim(store)
    assert delivery.request == sent.request
    assert (delivery.source, delivery.event_id, delivery.event_type) == ("shop", "evt_1", "paid")
    assert store.shown(delivery.id)["request"] == sent.request


def test_what_cannot_be_read_is_kept_dead_and_is_not_due(store: Store) -> None:
    store.add(arrival("evt_1", dead="missing_field: $.id"))
    assert states(store) == {"evt_1": (State.DEAD, "missing_field: $.id")}
    assert store.first_due() is None
    assert claim(store) == []


def test_one_write_that_fails_does_not_spoil_its_neighbours(store: Store) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        entered.set()
        go_on.wait(30)

    ids: list[Any] = ["a", "b", None, "c", "d"]
    with ThreadPoolExecutor(6) as pool:
        holder = pool.submit(store._writer.one, hold)
        assert entered.wait(30)
        writes = [pool.submit(store.add, arrival(id)) for id in ids]
        poll("all wait for one commit", lambda: len(store._writer._waiting) == len(ids))
        go_on.set()
        holder.result(30)
        results = [write.exception(30) or write.result() for write in writes]
    assert [result for result in results if result == 1] == [1] * 4
    assert isinstance(results[2], Exception)
    assert not isinstance(results[2], StoreUnavailableError)
    assert sorted(seen(store)) == ["a", "b", "c", "d"]
    assert count(store, "requests") == 4


# A database that cannot be written


@contextmanager
def pragma(store: Store, words: str, undo: str) -> Iterator[None]:
    """Both on the one connection that writes."""

    def say(words: str) -> None:
        store._writer.close()
        with store._writes.connect() as connection:
            connection.connection.driver_connection.execute(f"PRAGMA {words}").fetchall()

    say(words)
    yield
    say(undo)


@sqlite_only
def test_a_full_disk_stores_nothing_and_is_well_again_when_there_is_room(store: Store) -> None:
    pages = store.read(lambda it: it.exec_driver_sql("PRAGMA page_count").scalar())
    body = b"x" * 40_000
    stored = []
    with pragma(store, f"max_page_count={pages + 35}", "max_page_count=1000000"):
        for n in range(3):
            store.add(arrival(f"evt_{n}", body=body))
            stored.append(f"evt_{n}")
        with pytest.raises(StoreUnavailableError, match="full"):
            store.add(arrival("evt_9", body=body))
    assert store.add(arrival("evt_9", body=body)) == 1
    assert sorted(seen(store)) == [*stored, "evt_9"]


@sqlite_only
def test_a_database_that_is_read_only_stores_nothing(store: Store) -> None:
    with pragma(store, "query_only=ON", "query_only=OFF"):
        with pytest.raises(StoreUnavailableError, match="readonly"):
            store.add(arrival("evt_1"))
        assert seen(store) == {}
    assert store.add(arrival("evt_1")) == 1


@sqlite_only
def test_a_database_that_stays_locked_stores_nothing(
    monkeypatch: pytest.MonkeyPatch, database_url: str, open_store: OpenStore
) -> None:
    monkeypatch.setattr(engines, "SQLITE_BUSY_MS", 50)
    store = open_store()
    other = sqlite3.connect(make_url(database_url).database, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            store.add(arrival("evt_1"))
        assert seen(store) == {}  # reading goes on
        other.execute("ROLLBACK")
    finally:
        other.close()
    assert store.add(arrival("evt_1")) == 1


def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/missing/relay.db")
    try:
        with pytest.raises(StoreUnavailableError):
            store.add(arrival("evt_1"))
        with pytest.raises(StoreUnavailableError):
            store.first_due()
    finally:
        store.close()


@postgresql_only
def test_a_server_that_restarted_costs_at_most_one_write(
    store: Store, database_url: str, postgres: Postgres
) -> None:
    store.add(arrival("evt_1"))
    assert store.first_due() == NOON
    assert postgres.cut(make_url(database_url).database or "") >= 2
    assert store.first_due() == NOON
    try:
        store.add(arrival("evt_2"))
    except StoreUnavailableError:
        assert sorted(seen(store)) == ["evt_1"]
        store.add(arrival("evt_2"))
    assert seen(store) == {"evt_1": 1, "evt_2": 1}


@postgresql_only
def test_a_server_that_is_away_is_unavailable_until_it_is_back(
    store: Store, database_url: str, postgres: Postgres
) -> None:
    name = make_url(database_url).database or ""
    store.add(arrival("evt_1"))
    postgres.allow(name, connections=False)
    postgres.cut(name)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            store.add(arrival("evt_2"))
        with pytest.raises(StoreUnavailableError):
            store.first_due()
    postgres.allow(name, connections=True)
    assert store.add(arrival("evt_2")) == 1


@postgresql_only
def test_a_server_that_became_a_reader_is_unavailable(
    store: Store, database_url: str, postgres: Postgres
) -> None:
    name = make_url(database_url).database or ""
    postgres._admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailableError, match="read-only"):
        store.add(arrival("evt_1"))


# Claiming


def test_claims_go_live_before_retry_before_parked_before_replay(store: Store) -> None:
    for lane in Lane:
        store.add(arrival(lane.value))
    for delivery in claim(store):
        lane = Lane(delivery.event_id)
        if lane in {Lane.RETRY, Lane.PARKED}:
            store.settle(delivery, again(lane=lane), NOON)
        else:
            store.settle(delivery, Decision(State.IGNORED, "for_now"), NOON)
    store.replay(Filter(id=row(store, "replay").id), NOON - 9 * SECOND)  # due longest, and last
    store.add(arrival("live_2", at=NOON + SECOND))
    order = []
    while claimed := claim(store, limit=2):
        order += [delivery.event_id for delivery in claimed]
    assert order == ["live_2", "retry", "parked", "replay"]


def test_within_a_lane_the_oldest_goes_first(store: Store) -> None:
    for n in (3, 1, 2):
        store.add(arrival(f"evt_{n}", at=NOON + n * SECOND))
    later = NOON + 9 * SECOND
    assert [it.event_id for it in claim(store, later, 2)] == ["evt_1", "evt_2"]
    assert [it.event_id for it in claim(store, later, 2)] == ["evt_3"]


def test_what_is_not_due_is_not_claimed(store: Store) -> None:
    store.add(arrival("evt_1", at=NOON))
    assert store.first_due() == NOON
    assert claim(store, NOON - SECOND) == []
    assert len(claim(store, NOON)) == 1


def test_a_lease_hides_a_delivery_until_it_is_over(store: Store) -> None:
    fill(store, 1)
    now = NOON + SECOND
    assert len(claim(store, now)) == 1
    assert claim(store, now + LEASE - SECOND) == []
    assert store.first_due() == now + LEASE
    assert len(claim(store, now + LEASE)) == 1


def test_who_lost_its_lease_changes_nothing_but_its_attempt_is_kept(store: Store) -> None:
    (id,) = fill(store, 1)
    store.open_gates([KEY])
    (slow,) = claim(store)
    (quick,) = claim(store, NOON + SECOND + LEASE)
    assert slow.lease != quick.lease
    done = Decision(State.DELIVERED, "recorded")
    assert not store.settle(slow, done, NOON, gate=KEY, attempt=tried(Result.RECORDED))
    assert states(store) == {id: (State.PENDING, "")}
    store.wait_for_slot(slow, KEY, NOON)
    assert row(store, id).gate == ""
    assert store.settle(quick, done, NOON, gate=KEY, attempt=tried(Result.DUPLICATE))
    assert states(store) == {id: (State.DELIVERED, "recorded")}
    assert [it.result for it in attempts(store, id)] == ["recorded", "duplicate"]


def test_two_claimers_never_get_the_same_event(open_store: OpenStore) -> None:
    stores = [open_store(), open_store()]
    ids = fill(stores[0], 60)

    def take_all(store: Store) -> list[str]:
        mine = []
        while claimed := claim(store, limit=3):
            mine += [it.event_id for it in claimed]
        # PostgreSQL passes over what another is claiming: look until nothing is due.
        while (due := store.first_due()) is not None and due <= NOON + SECOND:
            mine += [it.event_id for it in claim(store, limit=3)]
        return mine

    taken = at_once(stores, [take_all] * 6)
    assert Counter(id for mine in taken for id in mine) == Counter(ids)


def test_a_claim_tells_what_was_tried_before(store: Store) -> None:
    fill(store, 1)
    store.open_gates([KEY])
    (first,) = claim(store)
    assert (first.attempt, first.failures, first.lane, first.reason) == (0, 0, Lane.LIVE, "")
    store.settle(first, again("unavailable"), NOON, gate=KEY, attempt=tried())
    (second,) = claim(store)
    assert (second.attempt, second.failures) == (1, 1)
    assert (second.lane, second.reason) == (Lane.RETRY, "unavailable")
    store.settle(second, again("throttled", counts=False), NOON, gate=KEY, attempt=tried())
    (third,) = claim(store)
    assert (third.attempt, third.failures) == (2, 1)


def test_every_attempt_is_kept_with_what_was_sent_and_answered(store: Store) -> None:
    (id,) = fill(store, 1)
    (delivery,) = claim(store)
    store.settle(delivery, Decision(State.DELIVERED, "recorded"), NOON, attempt=tried())
    (attempt,) = attempts(store, id)
    assert (attempt.started_at, attempt.duration_ms) == (NOON, 1000)
    assert (attempt.sent, attempt.status) == ("{}", 200)
    assert (attempt.message, attempt.answer) == ("what was said", "the answer")


# Slots and gates


def wait_at_gate(store: Store, *ids: str, now: datetime = NOON, key: str = KEY) -> None:
    for id in ids:
        store.add(arrival(id, at=now))
    for delivery in claim(store, now):
        store.wait_for_slot(delivery, key, now)


def test_exactly_what_is_allowed_passes_whoever_asks(open_store: OpenStore) -> None:
    stores = [open_store(), open_store()]
    stores[0].open_gates([KEY, OTHER])
    passed = []
    for tick in range(300):
        now = NOON + tick * timedelta(milliseconds=200)
        passed += [now for it in stores if it.take_slot(KEY, 60, now)]
    assert len(passed) == 60
    assert len(set(passed)) == 60
    assert stores[0].take_slot(OTHER, 60, NOON)  # each token has its own


def test_of_many_who_ask_at_the_same_moment_one_passes(open_store: OpenStore) -> None:
    stores = [open_store(), open_store()]
    stores[0].open_gates([KEY])
    for n in range(3):
        now = NOON + n * 2 * SECOND
        calls = [lambda it, now=now: it.take_slot(KEY, 60, now)] * 8
        assert at_once(stores, calls).count(True) == 1


def test_of_many_who_claim_with_a_slot_one_gets_the_event(open_store: OpenStore) -> None:
    stores = [open_store(), open_store()]
    stores[0].open_gates([KEY])
    wait_at_gate(stores[0], *(f"evt_{n}" for n in range(8)))
    calls = [lambda it: it.claim_ready(KEY, 60, NOON, LEASE)] * 8
    assert sum(len(found) for found in at_once(stores, calls)) == 1


def test_live_overtakes_replay_at_the_gate(store: Store) -> None:
    store.open_gates([KEY])
    store.add(arrival("old"))
    (old,) = claim(store)
    store.settle(old, Decision(State.DEAD, "rejected"), NOON)
    store.replay(Filter(), NOON)
    wait_at_gate(store)
    wait_at_gate(store, "new", now=NOON + 5 * SECOND)
    later = NOON + 9 * SECOND
    taken = [store.claim_ready(KEY, 60, later + n * 2 * SECOND, LEASE)[0] for n in range(2)]
    assert [(it.event_id, it.lane, it.has_slot) for it in taken] == [
        ("new", Lane.LIVE, True),
        ("old", Lane.REPLAY, True),
    ]


def test_what_waits_at_a_gate_keeps_its_turn_and_is_not_mapped_again(store: Store) -> None:
    store.open_gates([KEY])
    wait_at_gate(store, "evt_1")
    assert claim(store) == []
    assert (store.first_due(), store.first_due(KEY)) == (None, NOON)
    (delivery,) = store.claim_ready(KEY, 60, NOON, LEASE)
    assert store.claim_ready(KEY, 60, NOON + 2 * SECOND, LEASE) == []  # leased
    late = NOON + LEASE + SECOND
    (taken_over,) = store.claim_ready(KEY, 60, late, LEASE)
    assert taken_over.id == delivery.id


def close(store: Store, until: datetime) -> None:
    store.add(arrival("evt_closer"))
    (delivery,) = claim(store)
    decision = again("unauthorised", until, counts=False, closes_until=until)
    store.settle(delivery, decision, NOON, gate=KEY, attempt=tried(Result.UNAUTHORISED))


@pytest.mark.parametrize("rate", [0, 60])
def test_nothing_passes_a_closed_gate_and_everything_waits(store: Store, rate: int) -> None:
    store.open_gates([KEY, OTHER])
    until = NOON + timedelta(minutes=5)
    close(store, until)
    wait_at_gate(store, "evt_1")
    assert gate(store, KEY).reason == "unauthorised"
    assert store.gate_opens_at(KEY) == until
    assert not store.take_slot(KEY, rate, until - SECOND)
    assert store.claim_ready(KEY, rate, until - SECOND, LEASE) == []
    assert store.take_slot(OTHER, rate, NOON)
    passed = [store.claim_ready(KEY, rate, until + n * 2 * SECOND, LEASE)[0] for n in range(2)]
    assert [it.event_id for it in passed] == ["evt_1", "evt_closer"]  # live before retry


def test_a_gate_is_open_again_with_the_first_good_answer_after_its_time(store: Store) -> None:
    store.open_gates([KEY])
    until = NOON + timedelta(minutes=5)
    close(store, until)
    (delivery,) = store.claim_ready(KEY, 0, until, LEASE)
    done = Decision(State.DELIVERED, "recorded")
    store.settle(delivery, done, until, gate=KEY, attempt=tried(Result.RECORDED))
    assert (gate(store, KEY).closed_until, gate(store, KEY).reason) == (None, "")


def test_a_good_answer_that_was_on_its_way_does_not_open_a_closed_gate(store: Store) -> None:
    store.open_gates([KEY])
    store.add(arrival("evt_1"))
    (delivery,) = claim(store)
    close(store, NOON + timedelta(minutes=5))
    done = Decision(State.DELIVERED, "recorded")
    store.settle(delivery, done, NOON + SECOND, gate=KEY, attempt=tried(Result.RECORDED))
    assert gate(store, KEY).closed_until == NOON + timedelta(minutes=5)


def test_failures_in_a_row_open_the_breaker_ever_longer(store: Store) -> None:
    store.open_gates([KEY])
    fill(store, 8)
    pauses = []
    for delivery in claim(store):
        store.settle(delivery, again(at=NOON + LEASE), NOON, gate=KEY, attempt=tried())
        closed_until = gate(store, KEY).closed_until
        pauses.append(closed_until and (closed_until - NOON).total_seconds())
    assert pauses == [None, None, None, None, 30, 60, 120, 240]
    assert gate(store, KEY).streak == 8


def test_a_good_answer_ends_the_streak(store: Store) -> None:
    store.open_gates([KEY])
    fill(store, 6)
    *failing, good = claim(store)
    for delivery in failing:
        store.settle(delivery, again(at=NOON + LEASE), NOON, gate=KEY, attempt=tried())
    assert gate(store, KEY).streak == 5
    store.settle(
        good, Decision(State.DELIVERED, "x"), NOON, gate=KEY, attempt=tried(Result.RECORDED)
    )
    assert (gate(store, KEY).streak, gate(store, KEY).closed_until) == (0, None)


def test_what_waits_for_a_gate_that_is_gone_is_mapped_anew(store: Store) -> None:
    store.open_gates([KEY, OTHER])
    wait_at_gate(store, "evt_1")
    wait_at_gate(store, "evt_2", key=OTHER)
    store.open_gates([OTHER, "gate_3"])
    assert [it.event_id for it in claim(store)] == ["evt_1"]
    assert store.first_due(OTHER) == NOON
    assert store.take_slot("gate_3", 60, NOON)


def test_opening_gates_again_leaves_them_as_they_are(store: Store) -> None:
    store.open_gates([KEY])
    assert store.take_slot(KEY, 60, NOON)
    store.open_gates([KEY])
    assert not store.take_slot(KEY, 60, NOON)


# Thin events, documents, replays


def children(*ids: str) -> list[Event]:
    return [Event(id, "paid", Payload({}), NOON) for id in ids]


DOCUMENTS = [Document("/v2/a", b"\x00first", NOON), Document("/v2/b", b"second", NOON)]


def test_an_event_becomes_others_each_once_with_what_was_fetched(store: Store) -> None:
    store.add(arrival("hint", "b"))
    hint = next(it for it in claim(store) if it.event_id == "hint")
    assert store.expand(hint, children("a", "b"), DOCUMENTS, NOON) == 1
    assert store.expand(hint, children("a", "b", "c"), [], NOON) == 1
    a = row(store, "a")
    assert (a.parent, a.request, a.state, a.due_at) == (
        hint.id,
        row(store, "hint").request,
        State.PENDING,
        NOON,
    )
    assert store.documents(a.id) == DOCUMENTS
    assert store.documents(row(store, "c").id) == []


def test_documents_are_replaced_by_newer_ones(store: Store) -> None:
    fill(store, 1)
    (delivery,) = claim(store)
    store.keep_documents(delivery, DOCUMENTS)
    assert store.documents(delivery.id) == DOCUMENTS
    store.keep_documents(delivery, DOCUMENTS[1:])
    assert store.documents(delivery.id) == DOCUMENTS[1:]


def test_a_replay_makes_exactly_what_it_names_pending_again(store: Store) -> None:
    ids = fill(store, 3)
    dead, delivered, _ = claim(store)
    store.settle(dead, Decision(State.DEAD, "rejected: no"), NOON, attempt=tried())
    store.settle(delivered, Decision(State.DELIVERED, "recorded"), NOON, attempt=tried())
    later = NOON + timedelta(days=9)
    assert store.replay(Filter(state=State.DEAD), later) == 1
    again = row(store, ids[0])
    assert (again.state, again.lane, again.due_at, again.first_due_at) == (
        State.PENDING,
        Lane.REPLAY,
        later,
        later,
    )
    assert (again.reason, again.failures, again.attempt, again.settled_at) == ("", 0, 1, None)
    assert row(store, ids[1]).state is State.DELIVERED


def test_a_replay_stays_a_replay_while_it_is_retried(store: Store) -> None:
    fill(store, 1)
    (first,) = claim(store)
    store.settle(first, Decision(State.DEAD, "rejected"), NOON)
    store.replay(Filter(), NOON)
    (second,) = claim(store)
    store.settle(second, again(), NOON)
    (third,) = claim(store)
    assert third.lane is Lane.REPLAY


def test_a_hint_that_comes_again_is_looked_at_again(store: Store) -> None:
    store.add(arrival("hint", reopens=True))
    (first,) = claim(store)
    assert store.settle(first, Decision(State.IGNORED, "became_1_events"), NOON)
    later = NOON + timedelta(hours=1)
    assert store.add(arrival("hint", at=later, reopens=True)) == 0
    again = row(store, "hint")
    assert (again.state, again.lane, again.due_at) == (State.PENDING, Lane.LIVE, later)
    assert count(store, "requests") == 1


def test_who_is_looking_while_a_hint_comes_again_loses_its_lease(store: Store) -> None:
    store.add(arrival("hint", reopens=True))
    (looking,) = claim(store)
    store.add(arrival("hint", at=NOON + SECOND, reopens=True))
    assert not store.settle(looking, Decision(State.IGNORED, "became_1_events"), NOON)
    assert len(claim(store)) == 1


def test_any_other_event_that_comes_again_is_a_duplicate(store: Store) -> None:
    store.add(arrival("evt_1"))
    (delivery,) = claim(store)
    store.settle(delivery, Decision(State.DELIVERED, "recorded"), NOON)
    store.add(arrival("evt_1", at=NOON + SECOND))
    assert states(store) == {"evt_1": (State.DELIVERED, "recorded")}


# People and health


def test_events_are_found_by_what_people_know_of_them(store: Store) -> None:
    for n in range(3):
        store.add(arrival(f"evt_{n}", at=NOON + n * SECOND, source=f"shop_{n}"))
    (first, *_) = claim(store, NOON + 9 * SECOND)
    notes = {"transaction_id": "pay_1"}
    store.settle(first, Decision(State.DELIVERED, "recorded"), NOON, notes=notes)

    def found(**wanted: Any) -> list[str]:
        rows = store.listed(Filter(**wanted))
        assert store.counted(Filter(**wanted)) == len(rows)
        return [it.event_id for it in rows]

    assert found() == ["evt_2", "evt_1", "evt_0"]
    assert found(source="shop_1") == ["evt_1"]
    assert found(state=State.DELIVERED) == ["evt_0"]
    assert found(transaction_id="pay_1") == ["evt_0"]
    assert found(type="refunded") == []
    assert found(since=NOON + SECOND) == ["evt_2", "evt_1"]
    assert found(until=NOON + SECOND) == ["evt_0"]
    assert found(id=first.id, source="shop_1") == []
    assert store.named("pay_1") == store.named("evt_0") == store.named(str(first.id)) == [first.id]
    assert [it.event_id for it in store.listed(Filter(), 1)] == ["evt_2"]


def test_a_worker_is_known_to_be_alive_until_it_leaves(store: Store) -> None:
    store.probe(NOON)
    assert store.last_beat() is None  # a probe is no worker
    store.beat("one", NOON)
    store.beat("two", NOON - SECOND)
    store.beat("one", NOON + SECOND)
    assert store.last_beat() == NOON + SECOND
    store.leave("one")
    assert store.last_beat() == NOON - SECOND


def test_a_first_sign_of_life_from_many_at_once_breaks_nothing(open_store: OpenStore) -> None:
    stores = [open_store(), open_store()]
    at_once(stores, [lambda it: it.probe(NOON)] * 8)
    assert count(stores[0], "workers") == 1


def test_the_oldest_due_event_is_known(store: Store) -> None:
    assert store.oldest_due(NOON) is None
    store.add(arrival("evt_1", at=NOON))
    assert store.oldest_due(NOON - SECOND) is None
    assert store.oldest_due(NOON + SECOND) == NOON


# The bell


LISTENER = """
import select, sys
from relay.store import Store
store = Store(sys.argv[1])
bell = store.bell.listen()
print("listening", flush=True)
rang, _, _ = select.select([bell], [], [], 30)
print("rang" if rang else "nothing", store.first_due() is not None, flush=True)
store.close()
"""


def hears(bell: int | None, seconds: float = 20) -> bool:
    """Whether the bell rings."""
    assert bell is not None
    return bool(select.select([bell], [], [], seconds)[0])


def test_the_bell_wakes_a_listener_in_another_process(store: Store, database_url: str) -> None:
    command = [sys.executable, "-c", LISTENER, database_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        try:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "listening\n"
            store.add(arrival("evt_1"))
            assert listener.stdout.readline() == "rang True\n"
            assert listener.wait(30) == 0
        finally:
            listener.kill()


def test_the_bell_wakes_a_listener_in_another_thread(open_store: OpenStore) -> None:
    listener, ringer = open_store(), open_store()
    bell = listener.bell.listen()
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(hears, bell)
        ringer.add(arrival("evt_1"))
        assert heard.result(30)


def test_the_bell_is_quiet_after_it_was_heard_and_rings_again(open_store: OpenStore) -> None:
    listener, ringer = open_store(), open_store()
    bell = listener.bell.listen()
    for n in range(3):
        assert not hears(bell, 0)
        ringer.add(arrival(f"evt_{n}"))
        ringer.add(arrival(f"evt_{n}_2"))
        assert hears(bell)
        poll("quiet", lambda: listener.bell.clear() or not hears(bell, 0))


def test_replays_and_what_an_event_became_ring_too(open_store: OpenStore) -> None:
    listener, ringer = open_store(), open_store()
    ringer.add(arrival("hint"))
    (hint,) = claim(ringer)
    bell = listener.bell.listen()
    ringer.expand(hint, children("a"), [], NOON)
    assert hears(bell)
    poll("quiet", lambda: listener.bell.clear() or not hears(bell, 0))
    ringer.replay(Filter(), NOON)
    assert hears(bell)


def test_ringing_with_nobody_listening_is_no_trouble(store: Store) -> None:
    for n in range(3):
        assert store.add(arrival(f"evt_{n}")) == 1


def test_a_listener_that_comes_back_is_heard_by_who_rang_before(open_store: OpenStore) -> None:
    first, ringer = open_store(), open_store()
    first.bell.listen()
    ringer.add(arrival("evt_1"))
    first.close()
    second = open_store()
    bell = second.bell.listen()
    ringer.add(arrival("evt_2"))
    assert hears(bell)


@postgresql_only
def test_a_bell_whose_connection_broke_is_hung_up_anew(
    open_store: OpenStore, database_url: str, postgres: Postgres
) -> None:
    listener = open_store()
    bell = listener.bell.listen()
    postgres.cut(make_url(database_url).database or "")
    assert hears(bell)  # the break is noticed
    listener.bell.clear()
    new = poll("listening again", listener.bell.listen)
    open_store().add(arrival("evt_1"))
    assert hears(new)
