"""What comes in: requests and their events, each event once."""

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import delete, insert, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from relay.model import Event, Lane, Received, State
from relay.store.schema import events, requests

# The two engines' inserts that can say ON CONFLICT.
INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

_ADD_REQUEST = insert(requests)
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
    """One event of this batch, and how often it stands in it."""

    row: dict[str, Any]
    arrival: int
    reopens: bool = False
    count: int = field(default=1)


def add_all(connection: Connection, arrivals: list[Arrival]) -> list[int]:
    """Store requests and events; for each arrival, how many of its events were new.

    An event that is known already is counted, not stored again. That is decided by the database's
    own unique key, so it holds for any number of processes, and waits for a first that is not yet
    committed.
    """
    ids = request_ids(len(arrivals))
    rows = [_request_row(*pair) for pair in zip(ids, arrivals, strict=True)]
    connection.execute(_ADD_REQUEST, rows)
    found: dict[tuple[str, str], _New] = {}
    for index, arrival in enumerate(arrivals):
        for event in arrival.events:
            key = (arrival.source, event.id)
            if key in found:
                found[key].count += 1
            else:
                row = _row(arrival, event, ids[index])
                found[key] = _New(row, index, event.reopens)
    fresh = [0] * len(arrivals)
    known = []
    for source, event_id, seen in _upsert(connection, list(found.values())):
        new = found[source, event_id]
        if seen == new.count:
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


def _upsert(connection: Connection, new: list[_New]) -> Sequence[Any]:
    rows = [{**it.row, "seen": it.count} for it in new]
    return connection.execute(_add_or_count(connection.dialect.name), rows).all()


@cache
def _add_or_count(dialect: str) -> Any:  # noqa: ANN401 - either engine's Insert
    """Insert an event, or count one that is known. Built once: building it costs more than it."""
    statement = INSERT[dialect](events)
    return statement.on_conflict_do_update(
        index_elements=["source", "event_id"],
        set_={"seen": events.c.seen + statement.excluded.seen},
    ).returning(events.c.source, events.c.event_id, events.c.seen)


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
        "settled_at": None,
    }
