"""What people ask the store: lists, one event whole, replays, health."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.engine import Connection

from relay.model import TAKES_BACK, Document, Kind, Lane, Result, State
from relay.store.inbox import INSERT, reopened
from relay.store.queue import received
from relay.store.schema import (
    AnyRow,
    attempts,
    documents,
    events,
    gates,
    is_pending,
    movements,
    requests,
    workers,
)

LISTED = 1_000

# The row of `workers` that /readyz writes; it is no worker.
PROBE = "probe"


@dataclass(frozen=True)
class Filter:
    """Which events; what is None does not matter. Times are of receipt, `until` exclusive."""

    id: int | None = None
    source: str | None = None
    state: State | None = None
    type: str | None = None
    transaction_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def clauses(self) -> Iterator[ColumnElement[bool]]:
        """As SQL."""
        for name in ("id", "source", "state", "type", "transaction_id"):
            if getattr(self, name) is not None:
                yield events.c[name] == getattr(self, name)
        if self.since is not None:
            yield events.c.received_at >= self.since
        if self.until is not None:
            yield events.c.received_at < self.until


def listed(connection: Connection, wanted: Filter, limit: int = LISTED) -> list[AnyRow]:
    """The newest events first."""
    query = select(events).where(*wanted.clauses()).order_by(events.c.id.desc()).limit(limit)
    return list(connection.execute(query))


def waiting(connection: Connection, limit: int = LISTED) -> list[tuple[str, AnyRow]]:
    """The open questions, with the events that ask them: what each waits for, or lacks."""
    held = select(events).where(is_pending, events.c.reason != "")
    sent = select(events).join(movements, movements.c.event == events.c.id)
    sent = sent.where(events.c.state == State.DELIVERED)
    charge = movements.alias("charge")
    original = select(charge.c.event).where(
        charge.c.source == movements.c.source,
        charge.c.kind == Kind.CHARGE,
        charge.c.transaction_id == movements.c.original_id,
    )
    alone = sent.where(movements.c.kind.in_(TAKES_BACK), ~original.exists())
    nobodys = sent.where(movements.c.kind == Kind.CHARGE, movements.c.visitor_id.is_(None))
    questions = {"": held, "its payment": alone, "a visitor": nobodys}
    return [
        (question, row)
        for question, query in questions.items()
        for row in connection.execute(query.order_by(events.c.id.desc()).limit(limit))
    ]


def counted(connection: Connection, wanted: Filter) -> int:
    """How many there are."""
    return connection.execute(
        select(func.count()).select_from(events).where(*wanted.clauses())
    ).scalar_one()


def first_day(connection: Connection, source: str) -> datetime | None:
    """When the first event of a source was received."""
    first = select(events.c.received_at).where(events.c.source == source).order_by(events.c.id)
    return connection.execute(first.limit(1)).scalar()


def named(connection: Connection, name: str) -> list[int]:
    """The numbers of the events called `name`: our number, the provider's event id, or a transaction."""
    clauses = [events.c.event_id == name, events.c.transaction_id == name]
    if name.isdecimal() and len(name) < 18:
        clauses.append(events.c.id == int(name))
    return list(
        connection.execute(select(events.c.id).where(or_(*clauses)).order_by(events.c.id)).scalars()
    )


def shown(connection: Connection, id: int) -> dict[str, Any]:
    """One event whole: itself, its request, what was fetched for it, and its attempts."""
    event = connection.execute(select(events).where(events.c.id == id)).one()
    arrived = requests.c.received_at.label("arrived_at")
    request = connection.execute(
        select(requests, arrived).where(requests.c.id == event.request)
    ).one()
    tried = select(attempts).where(attempts.c.event == id).order_by(attempts.c.id)
    return {
        "event": event,
        "request": received(request),
        "documents": kept_documents(connection, id),
        "attempts": list(connection.execute(tried)),
    }


def kept_documents(connection: Connection, id: int) -> list[Document]:
    """What a provider's API answered about the event, in the order of asking."""
    query = select(documents).where(documents.c.event == id).order_by(documents.c.position)
    return [
        Document(row.path, bytes(row.body), row.fetched_at) for row in connection.execute(query)
    ]


def results(connection: Connection, id: int) -> set[str]:
    """What the attempts came to that were made since it was last deleted at DataFast."""
    tried = select(attempts.c.result).where(attempts.c.event == id).order_by(attempts.c.id)
    found: list[str] = []
    for result in connection.execute(tried).scalars():
        found = [] if result == Result.WITHDRAWN else [*found, result]
    return set(found)


def replay(connection: Connection, wanted: Filter, now: datetime) -> int:
    """Make the events pending again, behind everything live; how many there were."""
    again = update(events).where(*wanted.clauses()).values(**reopened(now, Lane.REPLAY))
    return connection.execute(again).rowcount


def beat(connection: Connection, name: str, now: datetime) -> None:
    """A worker is alive."""
    new = INSERT[connection.dialect.name](workers).values(name=name, seen_at=now)
    connection.execute(new.on_conflict_do_update(index_elements=["name"], set_={"seen_at": now}))


def leave(connection: Connection, name: str) -> None:
    """A worker has gone home."""
    connection.execute(workers.delete().where(workers.c.name == name))


def last_beat(connection: Connection) -> datetime | None:
    """When a worker was last known to be alive."""
    return connection.execute(
        select(func.max(workers.c.seen_at)).where(workers.c.name != PROBE)
    ).scalar()


def oldest_due(connection: Connection, now: datetime) -> datetime | None:
    """Since when the oldest event that could go has been waiting."""
    due = select(func.min(events.c.due_at)).where(
        events.c.state == State.PENDING, events.c.due_at <= now
    )
    return connection.execute(due).scalar()


def closed_gates(connection: Connection, now: datetime) -> list[AnyRow]:
    """The gates that let nothing through now, and why."""
    return list(connection.execute(select(gates).where(gates.c.closed_until > now)))
