"""What goes out: claim by lease, slots, and settling. Every function is one transaction's work.

Claiming moves `due_at` past a lease. If the worker dies, the row is simply due again; if it was
only slow, its lease is no longer in the row, and what it settles is noted but changes nothing.
"""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, func, insert, or_, select, union_all, update
from sqlalchemy.engine import Connection, Row

from relay import pace
from relay.model import (
    Attempt,
    Decision,
    Delivery,
    Document,
    Event,
    Headers,
    Lane,
    Received,
    Result,
    State,
)
from relay.store.inbox import INSERT, reopened
from relay.store.schema import attempts, documents, events, gates, requests

_EPOCH = datetime.fromtimestamp(0, UTC)


def next_due(connection: Connection, gate_keys: Sequence[str]) -> tuple[datetime | None, set[str]]:
    """When the next unmapped event is due, and for which gates events wait for a slot."""
    firsts = [
        select(
            select(events.c.due_at)
            .where(_unmapped(lane))
            .order_by(events.c.due_at)
            .limit(1)
            .scalar_subquery()
            .label("due_at")
        )
        for lane in Lane
    ]
    times = [time for time in connection.execute(union_all(*firsts)).scalars() if time is not None]
    waiting = {key for key in gate_keys if connection.execute(_waiting(key)).first()}
    return min(times, default=None), waiting


def gate_opens_at(connection: Connection, key: str) -> datetime | None:
    """When the gate lets the next one through; None if it never closed."""
    row = connection.execute(
        select(gates.c.next_at, gates.c.closed_until).where(gates.c.key == key)
    ).first()
    return None if row is None else max(row.next_at, row.closed_until or row.next_at)


def claim(connection: Connection, now: datetime, lease: timedelta, limit: int) -> list[Delivery]:
    """Up to `limit` events that are due and still to be mapped: live before retry before replay."""
    found: list[int] = []
    for lane in Lane:
        if len(found) < limit:
            due = select(events.c.id).where(_unmapped(lane), events.c.due_at <= now)
            found += _locked(connection, due.order_by(events.c.due_at), limit - len(found))
    return _lease(connection, found, now, lease, has_slot=False)


def claim_ready(
    connection: Connection, key: str, rate_limit: int, now: datetime, lease: timedelta
) -> list[Delivery]:
    """The best event that waits for a slot, together with the slot; nothing if none is open."""
    for lane in Lane:
        due = select(events.c.id).where(_ready(key), events.c.lane == lane, events.c.due_at <= now)
        found = _locked(connection, due.order_by(events.c.due_at), 1)
        if found:
            if not take_slot(connection, key, rate_limit, now):
                return []
            return _lease(connection, found, now, lease, has_slot=True)
    return []


def take_slot(connection: Connection, key: str, rate_limit: int, now: datetime) -> bool:
    """Use the gate's slot if one is open now."""
    gate = select(gates).where(gates.c.key == key).with_for_update()
    row = connection.execute(gate).one()
    if row.closed_until is not None and now < row.closed_until:
        return False
    next_at = pace.take(row.next_at, now, rate_limit)
    if next_at is None:
        return False
    if rate_limit:
        connection.execute(update(gates).where(gates.c.key == key).values(next_at=next_at))
    return True


def wait_for_slot(connection: Connection, delivery: Delivery, key: str, now: datetime) -> None:
    """The event is mapped and waits for a slot; its lane and its turn stay as they were."""
    connection.execute(_own(delivery).values(ready=1, gate=key, due_at=now, lease=None))


def settle(
    connection: Connection,
    delivery: Delivery,
    decision: Decision,
    now: datetime,
    *,
    key: str = "",
    attempt: Attempt | None = None,
    notes: dict[str, Any] | None = None,
) -> bool:
    """Write down what happened and what follows. False if the lease was lost meanwhile."""
    values: dict[str, Any] = dict(notes or {})
    if attempt is not None:
        connection.execute(insert(attempts).values(event=delivery.id, **_history(attempt)))
        _note_gate(connection, key, attempt.outcome.result, decision, now)
        values["attempt"] = events.c.attempt + 1
    pending = decision.state is State.PENDING
    values |= {
        "state": decision.state,
        "reason": decision.reason,
        "lease": None,
        "ready": 0,
        "due_at": decision.again_at,
        "settled_at": None if pending else now,
    }
    if pending:
        values["lane"] = decision.lane if delivery.lane is not Lane.REPLAY else Lane.REPLAY
        values["failures"] = events.c.failures + (1 if decision.counts else 0)
    return connection.execute(_own(delivery).values(**values)).rowcount == 1


def expand(
    connection: Connection, delivery: Delivery, children: Sequence[Event], now: datetime
) -> int:
    """Store the events that a thin or once unreadable one turned out to be. How many were new."""
    request = select(events.c.request).where(events.c.id == delivery.id).scalar_subquery()
    rows = [
        {
            "request": request,
            "parent": delivery.id,
            "source": delivery.source,
            "event_id": child.id,
            "type": child.type,
            "occurred_at": child.occurred_at,
            "received_at": delivery.request.received_at,
            **reopened(now, delivery.lane),
        }
        for child in children
    ]
    added = 0
    for row in rows:
        new = INSERT[connection.dialect.name](events).values(row).on_conflict_do_nothing()
        added += connection.execute(new).rowcount
    return added


def keep_documents(connection: Connection, delivery: Delivery, found: Sequence[Document]) -> None:
    """Keep what the provider's API answered; the newest answers replace the older ones."""
    connection.execute(documents.delete().where(documents.c.event == delivery.id))
    rows = [
        {
            "event": delivery.id,
            "position": position,
            "path": document.path,
            "body": document.body,
            "fetched_at": document.fetched_at,
        }
        for position, document in enumerate(found)
    ]
    if rows:
        connection.execute(insert(documents), rows)


def open_gates(connection: Connection, gate_keys: Sequence[str]) -> None:
    """Make the gates of a configuration, and map anew what waits for one that it has no more.

    A gate is a token's: with a new key a destination has a new gate, open and without a past.
    """
    new = INSERT[connection.dialect.name](gates).on_conflict_do_nothing()
    connection.execute(new, [{"key": key, "next_at": _EPOCH} for key in gate_keys])
    connection.execute(
        update(events)
        .where(
            events.c.state == State.PENDING, events.c.ready == 1, events.c.gate.not_in(gate_keys)
        )
        .values(ready=0)
    )


# Pieces


def _unmapped(lane: Lane) -> Any:  # noqa: ANN401 - a clause
    return and_(events.c.state == State.PENDING, events.c.ready == 0, events.c.lane == lane)


def _ready(key: str) -> Any:  # noqa: ANN401 - a clause
    return and_(events.c.state == State.PENDING, events.c.gate == key, events.c.ready == 1)


def _waiting(key: str) -> Select[Any]:
    return select(events.c.id).where(_ready(key)).limit(1)


def _own(delivery: Delivery) -> Any:  # noqa: ANN401 - a clause
    return update(events).where(events.c.id == delivery.id, events.c.lease == delivery.lease)


def _locked(connection: Connection, wanted: Select[Any], limit: int) -> list[int]:
    """The ids, passing over rows that another worker is claiming at this moment."""
    return list(connection.execute(wanted.limit(limit).with_for_update(skip_locked=True)).scalars())


def _lease(
    connection: Connection, ids: list[int], now: datetime, lease: timedelta, *, has_slot: bool
) -> list[Delivery]:
    if not ids:
        return []
    token = secrets.token_hex(8)
    connection.execute(
        update(events).where(events.c.id.in_(ids)).values(due_at=now + lease, lease=token)
    )
    rows = connection.execute(
        select(
            events,
            requests.c.body,
            requests.c.headers,
            requests.c.url,
            requests.c.method,
            requests.c.received_at.label("arrived_at"),
        )
        .join(requests, requests.c.id == events.c.request)
        .where(events.c.id.in_(ids))
    ).all()
    by_id = {row.id: _delivery(row, token, has_slot=has_slot) for row in rows}
    return [by_id[id] for id in ids]


def _delivery(row: Row[Any], token: str, *, has_slot: bool) -> Delivery:
    return Delivery(
        id=row.id,
        source=row.source,
        event_id=row.event_id,
        event_type=row.type,
        request=received(row),
        attempt=row.attempt,
        failures=row.failures,
        lane=row.lane,
        reason=row.reason,
        first_due_at=row.first_due_at,
        lease=token,
        has_slot=has_slot,
        parent=row.parent,
    )


def received(row: Row[Any]) -> Received:
    """The request of a row that has a request's columns."""
    return Received(
        body=bytes(row.body),
        headers=Headers([(name, value) for name, value in row.headers]),
        received_at=row.arrived_at,
        url=row.url,
        method=row.method,
    )


def _history(attempt: Attempt) -> dict[str, Any]:
    return {
        "started_at": attempt.started_at,
        "duration_ms": round(attempt.duration.total_seconds() * 1000),
        "sent": attempt.sent,
        "result": attempt.outcome.result,
        "status": attempt.outcome.status,
        "message": attempt.outcome.message,
        "answer": attempt.outcome.answer,
    }


def _note_gate(
    connection: Connection, key: str, result: Result, decision: Decision, now: datetime
) -> None:
    """Close the gate, count an outage, or note that all is well again."""
    gate = update(gates).where(gates.c.key == key)
    if decision.closes_until is not None:
        connection.execute(gate.values(closed_until=decision.closes_until, reason=result))
    elif result is Result.UNAVAILABLE:
        streak = connection.execute(
            gate.values(streak=gates.c.streak + 1).returning(gates.c.streak)
        ).scalar()
        until = pace.break_until(streak or 0, now)
        if until is not None:
            connection.execute(gate.values(closed_until=until, reason=result))
    else:
        over = or_(gates.c.streak > 0, gates.c.closed_until <= now)
        connection.execute(gate.where(over).values(streak=0, closed_until=None, reason=""))
