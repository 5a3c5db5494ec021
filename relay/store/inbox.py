"""What comes in: requests and their events, each event once."""

import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Table, delete, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, CursorResult, Dialect

from relay.model import Event, Lane, Received, State
from relay.store.schema import events, requests

# The two engines' inserts that can say ON CONFLICT.
INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

_REQUEST = ("id", "source", "received_at", "method", "url", "headers", "body")
_EVENT = (
    "request",
    "source",
    "event_id",
    "type",
    "occurred_at",
    "received_at",
    "seen",
    "state",
    "reason",
    "lane",
    "due_at",
    "first_due_at",
    "settled_at",
)
_COUNT_KNOWN = (
    " ON CONFLICT (source, event_id) DO UPDATE SET seen = events.seen + excluded.seen"
    " RETURNING source, event_id, seen"
)
# SQLite takes 32,766 values in a statement, PostgreSQL 65,535.
_MOST_ROWS = 500
_2020_NS = 1_577_836_800 * 10**9
_RANDOM_BITS = 11
_drawing = threading.Lock()
_newest = 0


@dataclass(frozen=True)
class Arrival:
    """One verified request and the events in it. `dead` is why they can go no further, if so."""

    source: str
    request: Received
    events: Sequence[Event]
    dead: str | None = None


@dataclass
class _New:
    """One event of this batch; its row counts how often it stands in it."""

    row: dict[str, Any]
    arrival: int
    reopens: bool = False


def add_all(connection: Connection, arrivals: list[Arrival]) -> list[int]:
    """Store requests and events; for each arrival, how many of its events were new.

    An event that is known already is counted, not stored again. That is decided by the database's
    own unique key, so it holds for any number of processes, and waits for a first that is not yet
    committed.
    """
    ids = request_ids(len(arrivals))
    add_request, add_event = _statements(connection.dialect)
    rows = [_request_row(*pair) for pair in zip(ids, arrivals, strict=True)]
    add_request.run(connection, rows)
    found: dict[tuple[str, str], _New] = {}
    for index, arrival in enumerate(arrivals):
        for event in arrival.events:
            key = (arrival.source, event.id)
            if key in found:
                found[key].row["seen"] += 1
            else:
                row = _row(arrival, event, ids[index])
                found[key] = _New(row, index, event.reopens)
    fresh = [0] * len(arrivals)
    known = []
    # In one order everywhere, so that two processes never wait for each other's events.
    events_in_order = [found[key].row for key in sorted(found)]
    for source, event_id, seen in add_event.returned(connection, events_in_order):
        new = found[source, event_id]
        if seen == new.row["seen"]:
            fresh[new.arrival] += 1
        else:
            known.append(new)
    _reopen(connection, [new.row for new in known if new.reopens])
    orphans = [ids[index] for index, count in enumerate(fresh) if not count]
    if orphans:
        connection.execute(delete(requests).where(requests.c.id.in_(orphans)))
    return fresh


def request_ids(count: int) -> list[int]:
    """Numbers for requests, in order of time: microseconds since 2020, and a few random bits.

    Made here and not by the database, so that a whole batch goes in with one statement. Should two
    processes ever draw the same one, the second write fails as a whole and draws again.
    """
    global _newest  # noqa: PLW0603 - a number must never be drawn twice in one process
    with _drawing:
        first = max(_newest + 1, (time.time_ns() - _2020_NS) // 1000)
        _newest = first + count - 1
    return [(first + i << _RANDOM_BITS) + secrets.randbits(_RANDOM_BITS) for i in range(count)]


def _request_row(id: int, arrival: Arrival) -> dict[str, Any]:
    request = arrival.request
    return {
        "id": id,
        "source": arrival.source,
        "received_at": request.received_at,
        "method": request.method,
        "url": request.url,
        "headers": request.headers.pairs,
        "body": request.body,
    }


def _row(arrival: Arrival, event: Event, request_id: int) -> dict[str, Any]:
    now = arrival.request.received_at
    return {
        "request": request_id,
        "source": arrival.source,
        "event_id": event.id,
        "type": event.type,
        "occurred_at": event.occurred_at,
        "received_at": now,
        "seen": 1,
        "state": State.DEAD if arrival.dead else State.PENDING,
        "reason": arrival.dead or "",
        "lane": Lane.LIVE,
        "due_at": None if arrival.dead else now,
        "first_due_at": now,
        "settled_at": now if arrival.dead else None,
    }


class _Insert:
    """An INSERT of many rows that goes to the driver as it is, in one statement.

    The columns' own types convert the values. What is left out is what SQLAlchemy does for each
    statement and row: in a provider's request that would cost more than the database does.
    """

    def __init__(self, dialect: Dialect, table: Table, names: Sequence[str], ending: str) -> None:
        types = [table.c[name].type.dialect_impl(dialect) for name in names]
        mark = "?" if dialect.paramstyle == "qmark" else "%s"
        self._columns = [
            (name, it.bind_processor(dialect)) for name, it in zip(names, types, strict=True)
        ]
        self._insert = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES "  # noqa: S608 - ours
        self._row = f"({', '.join([mark] * len(names))})"
        self._ending = ending

    def run(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> CursorResult[Any]:
        """Insert the rows: at least one, at most _MOST_ROWS."""
        values = tuple(
            convert(row[name]) if convert else row[name]
            for row in rows
            for name, convert in self._columns
        )
        sql = self._insert + ", ".join([self._row] * len(rows)) + self._ending
        return connection.exec_driver_sql(sql, values)

    def returned(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> Iterator[Any]:
        """Insert any number of rows; what is returned for each."""
        for at in range(0, len(rows), _MOST_ROWS):
            yield from self.run(connection, rows[at : at + _MOST_ROWS]).all()


@cache
def _statements(dialect: Dialect) -> tuple[_Insert, _Insert]:
    """Insert requests; insert events, or count those that are known."""
    return (
        _Insert(dialect, requests, _REQUEST, ""),
        _Insert(dialect, events, _EVENT, _COUNT_KNOWN),
    )


def _reopen(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """A thin event is told again: look again. A worker that is looking right now loses its lease."""
    for row in rows:
        connection.execute(
            update(events)
            .where(events.c.source == row["source"], events.c.event_id == row["event_id"])
            .values(**reopened(row["due_at"], Lane.LIVE))
        )


def reopened(now: datetime, lane: Lane) -> dict[str, Any]:
    """The columns of an event that shall go its way (again) from now."""
    return {
        "state": State.PENDING,
        "reason": "",
        "lane": lane,
        "gate": "",
        "due_at": now,
        "first_due_at": now,
        "failures": 0,
        "lease": None,
        "withdraws": False,
        "settled_at": None,
    }
