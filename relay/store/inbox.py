"""What comes in: requests and their events, each event once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from relay.model import Event, Lane, Received, State
from relay.store.schema import events, requests

# The two engines' inserts that can say ON CONFLICT.
INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


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
    request_ids = _add_requests(connection, arrivals)
    found: dict[tuple[str, str], _New] = {}
    for index, arrival in enumerate(arrivals):
        for event in arrival.events:
            key = (arrival.source, event.id)
            if key in found:
                found[key].count += 1
            else:
                row = _row(arrival, event, request_ids[index])
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
    orphans = [request_ids[index] for index, count in enumerate(fresh) if not count]
    if orphans:
        connection.execute(delete(requests).where(requests.c.id.in_(orphans)))
    return fresh


def _add_requests(connection: Connection, arrivals: list[Arrival]) -> list[int]:
    rows = [
        {
            "source": arrival.source,
            "received_at": arrival.request.received_at,
            "method": arrival.request.method,
            "url": arrival.request.url,
            "headers": arrival.request.headers.pairs,
            "body": arrival.request.body,
        }
        for arrival in arrivals
    ]
    statement = insert(requests).returning(requests.c.id, sort_by_parameter_order=True)
    return list(connection.execute(statement, rows).scalars())


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
    statement = INSERT[connection.dialect.name](events)
    statement = statement.on_conflict_do_update(
        index_elements=["source", "event_id"],
        set_={"seen": events.c.seen + statement.excluded.seen},
    ).returning(events.c.source, events.c.event_id, events.c.seen)
    return connection.execute(statement, [{**it.row, "seen": it.count} for it in new]).all()


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
        "ready": 0,
        "due_at": now,
        "first_due_at": now,
        "failures": 0,
        "lease": None,
        "settled_at": None,
    }
