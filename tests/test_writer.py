"""Group commit: one commit for all who wait, and nobody returns before its own."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from helpers import poll
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from relay.errors import StoreUnavailableError
from relay.store.engine import open_engines
from relay.store.writer import LARGEST_BATCH, Writer

INSERT = text("INSERT INTO workers (name, seen_at) VALUES (:name, 0)")


class Desk:
    """A writer, what it committed and how often, and a second connection that looks."""

    def __init__(self, writes: Engine, reads: Engine) -> None:
        self.commits = 0
        self.batches: list[int] = []
        self.writer = Writer(writes, self.committed)
        self.reads = reads

    def committed(self) -> None:
        self.commits += 1

    def insert(self, connection: Connection, names: list[Any]) -> list[str]:
        self.batches.append(len(names))
        for name in names:
            if isinstance(name, Exception):
                raise name
            connection.execute(INSERT, {"name": name})
        return [f"wrote {name}" for name in names]

    def write(self, name: Any) -> str:
        return self.writer.many(self.insert, name)

    def names(self) -> set[str]:
        with self.reads.connect() as connection:
            return set(connection.execute(text("SELECT name FROM workers")).scalars())

    def hold(self, pool: ThreadPoolExecutor) -> Callable[[], None]:
        """Keep a commit under way; what lets it go on."""
        entered, go_on = threading.Event(), threading.Event()

        def work(_: Connection) -> None:
            entered.set()
            go_on.wait(30)

        pool.submit(self.writer.one, work)
        assert entered.wait(30)
        return go_on.set


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    writes, reads = open_engines(database_url)
    desk = Desk(writes, reads)
    yield desk
    desk.writer.close()
    writes.dispose()
    reads.dispose()


def test_all_who_wait_share_one_commit_and_get_their_own_results(desk: Desk) -> None:
    with ThreadPoolExecutor(9) as pool:
        go_on = desk.hold(pool)
        writes = [pool.submit(desk.write, f"w{n}") for n in range(8)]
        poll("all wait", lambda: len(desk.writer._waiting) == 8)
        assert desk.names() == set()
        go_on()
        assert [it.result(30) for it in writes] == [f"wrote w{n}" for n in range(8)]
    assert desk.batches == [8]
    assert desk.commits == 2
    assert desk.names() == {f"w{n}" for n in range(8)}


def test_nobody_returns_before_its_commit(desk: Desk) -> None:
    def write_and_look(name: str) -> bool:
        desk.write(name)
        return name in desk.names()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_look, [f"w{n}" for n in range(80)]))


def test_writes_of_different_kinds_keep_their_order_in_one_commit(desk: Desk) -> None:
    order: list[str] = []

    def note(kind: str) -> Callable[[Connection], None]:
        return lambda _: order.append(kind)

    with ThreadPoolExecutor(5) as pool:
        go_on = desk.hold(pool)
        calls = [
            lambda: desk.writer.one(note("a")),
            lambda: desk.write("w1"),
            lambda: desk.write("w2"),
            lambda: desk.writer.one(note("b")),
        ]
        for index, call in enumerate(calls):
            pool.submit(call)
            poll("it waits", lambda wanted=index + 1: len(desk.writer._waiting) == wanted)
        go_on()
    assert order == ["a", "b"]
    assert desk.batches == [2]
    assert desk.commits == 2


def test_an_error_reaches_only_its_own_caller(desk: Desk) -> None:
    wrong = ValueError("this one")
    with ThreadPoolExecutor(9) as pool:
        go_on = desk.hold(pool)
        names: list[Any] = ["w0", "w1", wrong, "w3", "w1"]
        writes = []
        for index, name in enumerate(names):
            writes.append(pool.submit(desk.write, name))
            poll("it waits", lambda wanted=index + 1: len(desk.writer._waiting) == wanted)
        go_on()
        errors = [it.exception(30) for it in writes]
    assert errors[2] is wrong
    assert isinstance(errors[4], IntegrityError)
    assert [errors[n] for n in (0, 1, 3)] == [None] * 3
    assert desk.names() == {"w0", "w1", "w3"}


def test_after_an_error_the_next_write_works(desk: Desk) -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            desk.write(ValueError("no"))
    assert desk.write("w1") == "wrote w1"


def test_nothing_of_a_write_that_failed_is_stored(desk: Desk) -> None:
    def half(connection: Connection) -> None:
        connection.execute(INSERT, {"name": "half"})
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        desk.writer.one(half)
    desk.write("whole")
    assert desk.names() == {"whole"}


def test_a_database_that_is_gone_fails_all_who_wait_and_nothing_is_tried_alone(desk: Desk) -> None:
    with ThreadPoolExecutor(4) as pool:
        go_on = desk.hold(pool)
        names: list[Any] = ["w0", OSError("gone"), "w2"]
        writes = [pool.submit(desk.write, name) for name in names]
        poll("all wait", lambda: len(desk.writer._waiting) == 3)
        go_on()
        errors = [it.exception(30) for it in writes]
    assert all(isinstance(error, StoreUnavailableError) for error in errors)
    assert desk.batches == [3]
    assert desk.names() == set()
    assert desk.write("w1") == "wrote w1"


def test_a_commit_takes_no_more_than_its_share_and_leaves_nobody_behind(desk: Desk) -> None:
    count = LARGEST_BATCH + 20
    with ThreadPoolExecutor(count + 1) as pool:
        go_on = desk.hold(pool)
        writes = [pool.submit(desk.write, f"w{n}") for n in range(count)]
        poll("all wait", lambda: len(desk.writer._waiting) == count)
        go_on()
        assert len([it.result(30) for it in writes]) == count
    assert desk.batches == [LARGEST_BATCH, 20]


def test_under_stress_everybody_gets_what_is_theirs(desk: Desk) -> None:
    dice = random.Random(7)
    names: list[Any] = [f"w{n}" for n in range(400)]
    for n in range(0, 400, 9):
        names[n] = ValueError(str(n))
    dice.shuffle(names)

    def write(name: Any) -> Any:
        try:
            return desk.write(name)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(24) as pool:
        results = list(pool.map(write, names))
    for name, result in zip(names, results, strict=True):
        assert result == (name if isinstance(name, ValueError) else f"wrote {name}")
    assert desk.names() == {name for name in names if isinstance(name, str)}
    assert desk.writer._waiting == []
    assert not desk.writer._led


def test_a_connection_that_was_cut_meanwhile_costs_nobody_a_write(postgres: Any) -> None:
    name = postgres.create(migrated=True)
    writes, reads = open_engines(postgres.url(name))
    desk = Desk(writes, reads)
    desk.write("w1")
    assert postgres.cut(name)
    assert desk.write("w2") == "wrote w2"
    assert desk.batches == [1, 1, 1]
    assert desk.names() == {"w1", "w2"}
    desk.writer.close()
    writes.dispose()
    reads.dispose()
    postgres.drop(name)


def test_a_commit_that_was_cut_off_is_not_repeated(postgres: Any) -> None:
    name = postgres.create(migrated=True)
    writes, reads = open_engines(postgres.url(name))
    desk = Desk(writes, reads)
    desk.write("w1")

    def write_and_cut(connection: Connection, names: list[Any]) -> list[str]:
        written = desk.insert(connection, names)
        postgres.cut(name)
        return written

    with pytest.raises(StoreUnavailableError):
        desk.writer.many(write_and_cut, "w2")
    assert desk.batches == [1, 1]
    assert desk.names() == {"w1"}
    desk.writer.close()
    writes.dispose()
    reads.dispose()
    postgres.drop(name)


def test_a_deadlock_costs_nobody_a_write(postgres: Any) -> None:
    name = postgres.create(migrated=True)
    engines = [open_engines(postgres.url(name)) for _ in range(2)]
    desks = [Desk(*pair) for pair in engines]
    for row in ("a", "b"):
        desks[0].write(row)
    met = threading.Barrier(2)
    tries: list[str] = []

    def lock(first: str, second: str) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            tries.append(first)
            touch = text("UPDATE workers SET seen_at = seen_at + 1 WHERE name = :name")
            connection.execute(touch, {"name": first})
            if tries.count(first) == 1:
                met.wait(30)
            connection.execute(touch, {"name": second})

        return work

    with ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(desks[0].writer.one, lock("a", "b")),
            pool.submit(desks[1].writer.one, lock("b", "a")),
        ]
        for call in calls:
            call.result(30)
    assert len(tries) == 3
    for desk, pair in zip(desks, engines, strict=True):
        desk.writer.close()
        for engine in pair:
            engine.dispose()
    postgres.drop(name)
