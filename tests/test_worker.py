"""The worker: at once when something comes, clean when it stops, and nothing kills it."""

import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import Postgres
from helpers import DataFast, attempts, captured, poll, row, states
from sqlalchemy.engine import make_url

from relay import flow, settle, worker
from relay.config import Config
from relay.model import State
from relay.store import Filter, Store
from relay.store import engine as engines
from relay.worker import Worker

OpenStore = Callable[[], Store]
PAID = "payment.captured:pay_1"
FOREVER = timedelta(minutes=10)

sqlite_only = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
postgresql_only = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)


class Running:
    """A worker in a thread."""

    def __init__(self, config: Config, store: Store) -> None:
        self.beats = 0
        self.worker = Worker(config, store, beat=self.beat)
        self.thread = threading.Thread(target=self.worker.run, daemon=True)

    def beat(self) -> None:
        self.beats += 1

    def start(self) -> "Running":
        self.thread.start()
        poll("the worker is alive", self.worker.store.last_beat)
        return self

    def stop(self) -> None:
        self.worker.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def sandbox(start_sandbox: Callable[..., DataFast]) -> DataFast:
    return start_sandbox(real_time=True)


@pytest.fixture
def begin(config: Config, open_store: OpenStore) -> Iterator[Callable[..., Running]]:
    """Starts workers, each with a store of its own; stops them in the end."""
    running: list[Running] = []

    def begin_(config: Config = config, prepare: Callable[[Worker], None] | None = None) -> Running:
        found = Running(config, open_store())
        if prepare is not None:
            prepare(found.worker)
        running.append(found)
        return found.start()

    yield begin_
    for each in running:
        each.stop()


Begin = Callable[..., Running]


def accept(config: Config, store: Store, *ids: str) -> None:
    """As a web process would, in another process: through a store of its own."""
    for id in ids or ["pay_1"]:
        flow.accept(config.sources["shop"], captured(id, at=datetime.now(UTC)), store)


def settled(store: Store) -> bool:
    return not store.counted(Filter(state=State.PENDING))


# At once


def test_an_idle_worker_takes_up_what_comes_without_looking_for_it(
    begin: Begin,
    config: Config,
    store: Store,
    sandbox: DataFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "LONGEST_SLEEP", FOREVER)
    begin()
    for n in range(5):
        accept(config, store, f"pay_{n}")
        poll("it is recorded", lambda wanted=n + 1: len(sandbox.ids()) == wanted)


def test_what_comes_between_looking_and_sleeping_is_not_overheard(
    begin: Begin,
    config: Config,
    open_store: OpenStore,
    sandbox: DataFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "LONGEST_SLEEP", FOREVER)
    web = open_store()
    came: list[datetime | None] = []

    def prepare(it: Worker) -> None:
        look = it.store.first_due

        def look_and_let_something_come(gate: str = "") -> datetime | None:
            found = look(gate)
            if not gate and not came:
                came.append(found)
                accept(config, web)
            return found

        it.store.first_due = look_and_let_something_come  # type: ignore[method-assign]

    begin(prepare=prepare)
    poll("it is recorded", lambda: sandbox.ids() == ["pay_1"])
    assert came == [None]


def test_a_replay_wakes_it_too(
    begin: Begin,
    config: Config,
    store: Store,
    sandbox: DataFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "LONGEST_SLEEP", FOREVER)
    begin()
    sandbox.fail(status=400, count=1)
    accept(config, store)
    poll("it is dead", lambda: row(store, PAID).state is State.DEAD)
    store.replay(Filter(), datetime.now(UTC))
    poll("it is delivered", lambda: row(store, PAID).state is State.DELIVERED)


def test_a_retry_is_made_when_it_is_due(
    begin: Begin,
    config: Config,
    store: Store,
    sandbox: DataFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "LONGEST_SLEEP", FOREVER)
    monkeypatch.setattr(settle, "SCHEDULE", (timedelta(milliseconds=50),))
    sandbox.fail(status=503, count=3)
    begin()
    accept(config, store)
    poll("it is delivered", lambda: row(store, PAID).state is State.DELIVERED)
    assert [it.status for it in attempts(store, PAID)] == [503, 503, 503, 200]


def test_what_waits_for_a_slot_goes_when_the_slot_opens(
    begin: Begin,
    configure: Callable[..., Config],
    store: Store,
    sandbox: DataFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "LONGEST_SLEEP", FOREVER)
    config = configure(destination={"rate_limit": 600})
    accept(config, store, *(f"pay_{n}" for n in range(8)))
    begin(config)
    poll("all are recorded", lambda: len(sandbox.ids()) == 8)
    poll("all are settled", lambda: settled(store))
    assert sorted(sandbox.ids()) == [f"pay_{n}" for n in range(8)]
    assert sandbox.posts() == 8


def test_several_workers_share_the_work_and_do_none_of_it_twice(
    begin: Begin, config: Config, store: Store, sandbox: DataFast
) -> None:
    begin()
    begin()
    ids = [f"pay_{n}" for n in range(40)]
    accept(config, store, *ids)
    poll("all are settled", lambda: settled(store))
    assert Counter(sandbox.ids()) == Counter(ids)
    assert sandbox.posts() == 40


# Stopping


@pytest.mark.parametrize("threads", [1, 2])
def test_stopping_finishes_what_is_under_way_and_begins_nothing(
    begin: Begin,
    configure: Callable[..., Config],
    store: Store,
    sandbox: DataFast,
    threads: int,
) -> None:
    config = configure(worker={"threads": threads})
    sandbox.fail(latency_ms=400)
    sending = threading.Event()

    def prepare(it: Worker) -> None:
        send = it.courier.forwarder.send

        def say_and_send(*arguments: Any) -> Any:
            sending.set()
            return send(*arguments)

        it.courier.forwarder.send = say_and_send  # type: ignore[method-assign]

    running = begin(config, prepare)
    accept(config, store, *(f"pay_{n}" for n in range(4)))
    assert sending.wait(30)
    running.stop()
    found = Counter(it.state for it in store.listed(Filter()))
    assert found[State.DELIVERED] == len(sandbox.ids()) >= 1
    assert found[State.PENDING] >= 4 - 2 * threads
    waiting = store.listed(Filter(state=State.PENDING))
    assert [it.lease for it in waiting] == [None] * len(waiting)
    assert store.last_beat() is None  # it said goodbye
    sandbox.mend()
    begin(config)
    poll("the rest is delivered", lambda: settled(store))
    assert sorted(sandbox.ids()) == [f"pay_{n}" for n in range(4)]


def test_what_waited_too_long_for_a_thread_is_given_back_before_its_lease_ends(
    begin: Begin, configure: Callable[..., Config], store: Store, sandbox: DataFast
) -> None:
    config = configure(worker={"threads": 1})
    sandbox.fail(latency_ms=300)

    def prepare(it: Worker) -> None:
        it.lease = timedelta(milliseconds=800)

    accept(config, store, *(f"pay_{n}" for n in range(4)))
    begin(config, prepare)
    poll("all are settled", lambda: settled(store))
    assert sorted(sandbox.ids()) == [f"pay_{n}" for n in range(4)]
    assert sandbox.posts() == 4


def test_a_worker_that_is_stopped_before_it_begins_does_nothing(
    config: Config, store: Store, sandbox: DataFast
) -> None:
    accept(config, store)
    running = Running(config, store)
    running.worker.stop()
    running.worker.run()
    assert sandbox.posts() == 0
    assert row(store, PAID).state is State.PENDING


def test_its_supervisor_hears_from_it(begin: Begin) -> None:
    running = begin()
    poll("a few beats", lambda: running.beats >= 2)


# What goes wrong


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[Any]:
    return [it for it in list(caplog.records) if it.getMessage() == event]


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that often says that it is alive, and does not wait long for a lock."""
    monkeypatch.setattr(worker, "BEAT_EVERY_S", 0.0)
    monkeypatch.setattr(worker, "LONGEST_SLEEP", timedelta(milliseconds=50))
    monkeypatch.setattr(engines, "SQLITE_BUSY_MS", 50)
    caplog.set_level(logging.INFO, logger="relay")


@sqlite_only
@pytest.mark.usefixtures("restless")
def test_a_locked_database_is_waited_for(
    begin: Begin,
    config: Config,
    open_store: OpenStore,
    sandbox: DataFast,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = begin()
    other = sqlite3.connect(make_url(database_url).database, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        poll("it is noticed", lambda: said(caplog, "worker.store_unavailable"))
        other.execute("ROLLBACK")
    finally:
        other.close()
    store = open_store()
    accept(config, store)
    poll("it is recorded", lambda: sandbox.ids() == ["pay_1"])
    assert running.thread.is_alive()


@postgresql_only
@pytest.mark.usefixtures("restless")
def test_a_database_server_that_is_away_is_waited_for(
    begin: Begin,
    config: Config,
    open_store: OpenStore,
    sandbox: DataFast,
    database_url: str,
    postgres: Postgres,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = make_url(database_url).database or ""
    running = begin()
    postgres.allow(name, connections=False)
    postgres.cut(name)
    poll("it is noticed", lambda: len(said(caplog, "worker.store_unavailable")) >= 3)
    postgres.allow(name, connections=True)
    store = open_store()
    poll("it is alive again", store.last_beat)
    monkeypatch.setattr(worker, "LONGEST_SLEEP", FOREVER)  # its bell hangs again, too
    accept(config, store)
    poll("it is recorded", lambda: sandbox.ids() == ["pay_1"])
    assert running.thread.is_alive()


def test_an_event_of_a_source_that_is_gone_is_dead_and_says_what_to_do(
    begin: Begin, configure: Callable[..., Config], store: Store, sandbox: DataFast
) -> None:
    config = configure()
    accept(config, store)
    shop = config.sources["shop"]
    begin(replace(config, sources={"renamed": replace(shop, name="renamed")}))
    poll("it is dead", lambda: row(store, PAID).state is State.DEAD)
    assert row(store, PAID).reason.startswith("unknown_source: put the source back")
    assert sandbox.posts() == 0


@pytest.mark.usefixtures("restless")
def test_what_breaks_a_delivery_breaks_neither_the_worker_nor_the_event(
    begin: Begin,
    config: Config,
    store: Store,
    sandbox: DataFast,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken: list[str] = []

    def prepare(it: Worker) -> None:
        it.lease = timedelta(milliseconds=500)
        send = it.courier.forwarder.send

        def break_twice(*arguments: Any) -> Any:
            if len(broken) < 2:
                broken.append("once more")
                raise RuntimeError("broken")
            return send(*arguments)

        it.courier.forwarder.send = break_twice  # type: ignore[method-assign]

    running = begin(prepare=prepare)
    accept(config, store)
    poll("it is delivered", lambda: row(store, PAID).state is State.DELIVERED)
    assert len(said(caplog, "delivery.failed")) == 2
    assert sandbox.ids() == ["pay_1"]
    assert running.thread.is_alive()


@pytest.mark.usefixtures("restless")
def test_what_an_older_worker_leaves_at_its_gate_is_taken_up(
    begin: Begin, config: Config, store: Store, sandbox: DataFast
) -> None:
    """While a configuration is replaced, the old worker still drains with the old key."""
    accept(config, store)
    now = datetime.now(UTC)
    (delivery,) = store.claim(now, timedelta(minutes=5), 1)
    begin()
    store.wait_for_slot(delivery, "the gate of an old key", now)
    poll("it is delivered", lambda: row(store, PAID).state is State.DELIVERED)
    assert sandbox.ids() == ["pay_1"]


@pytest.mark.usefixtures("restless")
def test_every_stage_is_one_line_with_its_ids(
    begin: Begin,
    config: Config,
    store: Store,
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = begin()
    accept(config, store)
    poll("it is delivered", lambda: states(store)[PAID][0] is State.DELIVERED)
    running.stop()
    (line,) = said(caplog, "delivery.attempted")
    assert (line.source, line.event_id, line.attempt) == ("shop", PAID, 1)
    assert (line.state, line.result, line.status) == ("delivered", "recorded", 200)
    for event in ("worker.started", "worker.draining", "worker.stopped"):
        assert len(said(caplog, event)) == 1
