"""What goes out: claim by lease, slots, and settling. Every function is one transaction's work.

Claiming moves `due_at` past a lease. If the worker dies, the row is simply due again; if it was
only slow, its lease is no longer in the row, and what it settles is noted but changes nothing.
"""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, insert, or_, select, update
from sqlalchemy.engine import Connection

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
from relay.store.schema import AnyRow, attempts, documents, events, gates, is_pending, requests

_EPOCH = datetime.fromtimestamp(0, UTC)

# Statements are built once: building one costs as much as running it.
_UNMAPPED = ""

_FIRSTS = select(
    *(
        select(events.c.due_at)
        .where(is_pending, events.c.gate == bindparam("gate_"), events.c.lane == lane)
        .order_by(events.c.due_at)
        .limit(1)
        .scalar_subquery()
        .label(lane.value)
        for lane in Lane
    )
)
_GATE_TIMES = select(gates.c.next_at, gates.c.closed_until).where(gates.c.key == bindparam("key_"))
_GATE = select(gates).where(gates.c.key == bindparam("key_")).with_for_update()
_CHANGE_GATE = update(gates).where(gates.c.key == bindparam("key_"))
_ONE_MORE_FAILURE = _CHANGE_GATE.values(streak=gates.c.streak + 1).returning(gates.c.streak)
_ALL_IS_WELL = _CHANGE_GATE.where(
    or_(gates.c.streak > 0, gates.c.closed_until <= bindparam("now_"))
).values(streak=0, closed_until=None, reason="")
_ADD_ATTEMPT = insert(attempts)
# A claimed row is changed by whoever holds its lease, and by nobody else.
_CHANGE = update(events).where(
    events.c.id == bindparam("id_"), events.c.lease == bindparam("lease_")
)
_DUE = (
    select(events.c.id, events.c.lease)
    .where(
        is_pending,
        events.c.gate == bindparam("gate_"),
        events.c.lane == bindparam("lane_"),
        events.c.due_at <= bindparam("now_"),
    )
    .order_by(events.c.due_at)
    .limit(bindparam("limit_"))
    .with_for_update(skip_locked=True)
)
_LEASE = (
    update(events)
    .where(events.c.id.in_(bindparam("ids_", expanding=True)))
    .values(due_at=bindparam("until_"), lease=bindparam("token_"))
)
_CLAIMED = (
    select(
        events,
        requests.c.body,
        requests.c.headers,
        requests.c.url,
        requests.c.method,
        requests.c.received_at.label("arrived_at"),
    )
    .join(requests, requests.c.id == events.c.request)
    .where(events.c.id.in_(bindparam("ids_", expanding=True)))
)


def first_due(connection: Connection, gate: str = _UNMAPPED) -> datetime | None:
    """When the next event is due: of those still to be mapped, or of those that wait at a gate."""
    times = connection.execute(_FIRSTS, {"gate_": gate}).one()
    return min((time for time in times if time is not None), default=None)


def gate_opens_at(connection: Connection, key: str) -> datetime | None:
    """When the gate lets the next one through; None if there is no such gate."""
    row = connection.execute(_GATE_TIMES, {"key_": key}).first()
    return None if row is None else max(row.next_at, row.closed_until or row.next_at)


def passes_at(connection: Connection, key: str) -> datetime | None:
    """When the gate lets through the next one of those that wait at it; None if nothing waits."""
    due_at = first_due(connection, key)
    return due_at and max(due_at, gate_opens_at(connection, key) or due_at)


def claim(connection: Connection, now: datetime, lease: timedelta, limit: int) -> list[Delivery]:
    """Up to `limit` events that are due and still to be mapped: live before retry before replay."""
    return _lease(connection, _due(connection, _UNMAPPED, now, limit), now, lease, has_slot=False)


def claim_ready(
    connection: Connection, key: str, rate_limit: int, now: datetime, lease: timedelta
) -> list[Delivery]:
    """The best event that waits at a gate, together with its slot; nothing if none is open."""
    found = _due(connection, key, now, 1)
    if not found or not take_slot(connection, key, rate_limit, now):
        return []
    return _lease(connection, found, now, lease, has_slot=True)


def _due(connection: Connection, gate: str, now: datetime, limit: int) -> dict[int, bool]:
    """The numbers of due events in order, passing over those another worker is claiming just now.

    With each: whether somebody had it before and never settled it.
    """
    found: dict[int, bool] = {}
    for lane in Lane:
        if len(found) < limit:
            wanted = {"gate_": gate, "lane_": lane, "now_": now, "limit_": limit - len(found)}
            found |= {row.id: row.lease is not None for row in connection.execute(_DUE, wanted)}
    return found


def _lease(
    connection: Connection,
    found: dict[int, bool],
    now: datetime,
    lease: timedelta,
    *,
    has_slot: bool,
) -> list[Delivery]:
    if not found:
        return []
    ids, token = list(found), secrets.token_hex(8)
    connection.execute(_LEASE, {"ids_": ids, "until_": now + lease, "token_": token})
    rows = connection.execute(_CLAIMED, {"ids_": ids}).all()
    by_id = {
        row.id: _delivery(row, token, has_slot=has_slot, interrupted=found[row.id]) for row in rows
    }
    return [by_id[id] for id in ids]


def take_slot(connection: Connection, key: str, rate_limit: int, now: datetime) -> bool:
    """Use the gate's slot if one is open now."""
    row = connection.execute(_GATE, {"key_": key}).one()
    if row.closed_until is not None and now < row.closed_until:
        return False
    next_at = pace.take(row.next_at, now, rate_limit)
    if next_at is None:
        return False
    if rate_limit:
        connection.execute(_CHANGE_GATE, {"key_": key, "next_at": next_at})
    return True


def wait_for_slot(connection: Connection, delivery: Delivery, key: str, now: datetime) -> None:
    """The event is mapped and waits for a slot; its lane and its turn stay as they were."""
    _change(connection, delivery, {"gate": key, "due_at": now, "lease": None})


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
        values["attempt"] = delivery.attempt + 1
    pending = decision.state is State.PENDING
    values |= {
        "state": decision.state,
        "reason": decision.reason,
        "lease": None,
        # What found the gate closed waits there, and no longer: with a new key the gate is another.
        "gate": key if decision.closes_until else "",
        "due_at": now if decision.closes_until else decision.again_at,
        "settled_at": None if pending else now,
    }
    if pending:
        values["lane"] = decision.lane if delivery.lane is not Lane.REPLAY else Lane.REPLAY
        values["failures"] = delivery.failures + (1 if decision.counts else 0)
        if decision.counts and not delivery.failures:
            values["first_due_at"] = now  # waiting for a slot, a key or an original is no failure
    kept = _change(connection, delivery, values)
    if attempt is not None:
        connection.execute(_ADD_ATTEMPT, {"event": delivery.id, **_history(attempt)})
        # After the event's row, as in `claim_ready`: two who lock in one order never deadlock.
        _note_gate(connection, key, attempt.outcome.result, decision, now)
    return kept


def posting(connection: Connection, delivery: Delivery, id: str) -> None:
    """The delivery is about to be posted under this id: should the worker die, it stays there."""
    _change(connection, delivery, {"posted_as": id})


def give_back(connection: Connection, delivery: Delivery, now: datetime) -> None:
    """The delivery was claimed and not begun: it is due again at once, for anybody."""
    _change(connection, delivery, {"due_at": now, "lease": None})


def expand(
    connection: Connection,
    delivery: Delivery,
    children: Sequence[Event],
    found: Sequence[Document],
    now: datetime,
) -> int:
    """Store the events that a thin or once unreadable one turned out to be. How many were new.

    Each keeps the answers that it came from: asked again later, the API may say something else.
    """
    request = select(events.c.request).where(events.c.id == delivery.id).scalar_subquery()
    added = 0
    for child in children:
        row = {
            "request": request,
            "parent": delivery.id,
            "source": delivery.source,
            "event_id": child.id,
            "type": child.type,
            "occurred_at": child.occurred_at,
            "received_at": delivery.request.received_at,
            **reopened(now, delivery.lane),
        }
        new = INSERT[connection.dialect.name](events).values(row).on_conflict_do_nothing()
        id = connection.execute(new.returning(events.c.id)).scalar()
        if id is not None:
            keep_documents(connection, id, found)
            added += 1
    return added


def keep_documents(connection: Connection, id: int, found: Sequence[Document]) -> None:
    """Keep what the provider's API answered about an event, in place of what it answered before."""
    connection.execute(documents.delete().where(documents.c.event == id))
    rows = [
        {
            "event": id,
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
        .where(is_pending, events.c.gate.not_in([_UNMAPPED, *gate_keys]))
        .values(gate=_UNMAPPED)
    )


# Pieces


def _change(connection: Connection, delivery: Delivery, values: dict[str, Any]) -> bool:
    """Change the delivery's row, if it still holds its lease; whether it did."""
    own = {"id_": delivery.id, "lease_": delivery.lease}
    return connection.execute(_CHANGE, {**own, **values}).rowcount == 1


def _delivery(row: AnyRow, token: str, *, has_slot: bool, interrupted: bool) -> Delivery:
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
        interrupted=interrupted,
        withdraws=row.withdraws,
        posted_as=row.posted_as,
    )


def received(row: AnyRow) -> Received:
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
    gate = {"key_": key}
    if decision.closes_until is not None:
        closed = {"closed_until": decision.closes_until, "reason": result}
        connection.execute(_CHANGE_GATE, {**gate, **closed})
    elif result is Result.UNAVAILABLE:
        streak = connection.execute(_ONE_MORE_FAILURE, gate).scalar()
        until = pace.break_until(streak or 0, now)
        if until is not None:
            connection.execute(_CHANGE_GATE, {**gate, "closed_until": until, "reason": result})
    else:
        connection.execute(_ALL_IS_WELL, {**gate, "now_": now})
