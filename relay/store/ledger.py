"""The rows behind `relay.ledger`: what was told (facts), and what was decided upon it.

Facts are only ever added to, one row an event, so what is known does not depend on the order in
which it became known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    func,
    insert,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.engine import Connection

from relay.model import TAKES_BACK, Decision, Delivery, Kind, Lane, Recurrence, State
from relay.store import queue
from relay.store.inbox import INSERT, reopened
from relay.store.schema import AnyRow, events, is_pending, movements, tellings

# The ledger's transactions come one after the other, in all processes: two charges of one
# subscription that are judged at the same moment would both be the first.
_LOCK = text("SELECT pg_advisory_xact_lock(7202115891)")

# More are not looked at again when one telling says something new.
_MOST_AFFECTED = 100


@dataclass(frozen=True)
class Scope:
    """Whom tellings are about: those with this value in this column."""

    column: str
    value: str

    def clause(self, source: str, site: str) -> ColumnElement[bool]:
        """As SQL. A customer's id is its provider's own, unless the owner's site said it."""
        same = tellings.c[self.column] == self.value
        if self.column in {"transaction_id", "original_id", "subscription_id"}:
            return and_(tellings.c.source == source, same)
        same = and_(tellings.c.site == site, same)
        return (
            and_(same, tellings.c.source.in_([source, ""]))
            if self.column == "customer_id"
            else same
        )


class Memory:
    """The ledger of one source and its site, in one transaction that overlaps with no other's."""

    def __init__(self, connection: Connection, source: str, site: str) -> None:
        self._connection = connection
        self._source = source
        self._site = site
        self.woke = False
        if connection.dialect.name == "postgresql":
            connection.execute(_LOCK)

    # Facts

    def note(self, event: int | None, telling: dict[str, Any]) -> bool:
        """Keep what an event says, in place of what it was understood to say before; is it news?"""
        row = {**telling, "event": event, "source": self._source, "site": self._site}
        if event is None:
            self._connection.execute(insert(tellings), row)
            return True
        new = _note(self._connection.dialect.name)
        return self._connection.execute(new, row).first() is not None

    def told(self, kind: Kind | None, transaction_id: str) -> Sequence[AnyRow]:
        """All that was told of one movement; of one id, if no kind is given. The oldest first."""
        clause = Scope("transaction_id", transaction_id).clause(self._source, self._site)
        found = select(tellings).where(clause).order_by(tellings.c.occurred_at, tellings.c.event)
        return self._all(found if kind is None else found.where(tellings.c.kind == kind))

    def charge_before(self, subscription: str, moment: datetime, id: str) -> AnyRow | None:
        """The first paid charge of a subscription, if there is one before the charge called `id`."""
        return self._first(
            select(tellings)
            .where(
                Scope("subscription_id", subscription).clause(self._source, self._site),
                tellings.c.kind == Kind.CHARGE,
                tellings.c.transaction_id != id,
                tuple_(tellings.c.occurred_at, tellings.c.transaction_id)
                < tuple_(bindparam("moment", moment, tellings.c.occurred_at.type), id),
            )
            .order_by(tellings.c.occurred_at, tellings.c.transaction_id)
        )

    def beginning(self, subscription: str) -> tuple[datetime | None, AnyRow | None]:
        """When a subscription began, if anybody said; and the first telling of it that is no charge."""
        clause = Scope("subscription_id", subscription).clause(self._source, self._site)
        began = self._connection.execute(
            select(func.min(tellings.c.subscribed_at)).where(clause)
        ).scalar()
        told = select(tellings).where(
            clause, or_(tellings.c.kind.is_(None), tellings.c.kind == Kind.TRIAL)
        )
        return began, self._first(told.order_by(tellings.c.occurred_at))

    def trial(self, subscription: str) -> AnyRow | None:
        """The trial of a subscription."""
        clause = Scope("subscription_id", subscription).clause(self._source, self._site)
        trials = select(tellings).where(clause, tellings.c.kind == Kind.TRIAL)
        return self._first(trials.order_by(tellings.c.occurred_at))

    def sighting(
        self, what: str, scope: Scope, latest: datetime | None, since: datetime | None = None
    ) -> AnyRow | None:
        """The telling that knows `what` in this scope: the last one up to `latest`.

        With `since`: the first one from then on, instead.
        """
        told = select(tellings).where(
            scope.clause(self._source, self._site), tellings.c[what].is_not(None)
        )
        at, id = tellings.c.occurred_at, tellings.c.id
        if since is not None:
            return self._first(told.where(at > since).order_by(at, id))
        return self._first(told.where(at <= latest).order_by(at.desc(), id.desc()))

    # Decisions

    def movement(self, kind: Kind, id: str) -> AnyRow | None:
        """What was decided of a movement, with its event's `state`."""
        return self._first(
            _decided().where(
                movements.c.source == self._source,
                movements.c.kind == kind,
                movements.c.transaction_id == id,
            )
        )

    def moved_back(self, original_id: str) -> Sequence[AnyRow]:
        """What was decided of the refunds, disputes and reinstatements of a charge."""
        return self._all(
            _decided().where(
                movements.c.source == self._source, movements.c.original_id == original_id
            )
        )

    def claim(self, delivery: Delivery, movement: dict[str, Any]) -> bool:
        """This event tells of this movement from now on; False if another one does.

        A teller that died, or turned out to mean nothing, makes room for the next one.
        """
        own = {"source": self._source, "site": self._site, "event": delivery.id, "repair": None}
        row = {**movement, **own}
        new = _claim(self._connection.dialect.name)
        return self._connection.execute(new, row).first() is not None

    def hold(
        self, delivery: Delivery, decision: Decision, now: datetime, notes: dict[str, Any]
    ) -> None:
        """Let the event wait; here and now, so that what it waits for cannot come in between."""
        queue.settle(self._connection, delivery, decision, now, notes=notes)

    def wake(self, reasons: Sequence[str], scopes: Sequence[Scope], now: datetime) -> None:
        """Take up what waits for something that these scopes may have brought."""
        if not scopes:
            return
        told = or_(*(scope.clause(self._source, self._site) for scope in scopes))
        waiting = select(tellings.c.event).where(told, tellings.c.event.is_not(None))
        woken = self._connection.execute(
            update(events)
            .where(
                is_pending,
                events.c.lease.is_(None),
                events.c.reason.in_(reasons),
                events.c.id.in_(waiting),
            )
            .values(due_at=now)
        )
        self.woke |= woken.rowcount > 0

    def affected(
        self, scopes: Sequence[Scope], what: str
    ) -> Iterator[tuple[AnyRow, Sequence[AnyRow]]]:
        """Movements that may have gone out wrong: without a "visitor", as "new", or as "renewal".

        Each with all that was told of it.
        """
        charge, place = movements.c.kind == Kind.CHARGE, movements.c.recurrence
        lacking = {
            "visitor": movements.c.visitor_id.is_(None),
            "new": and_(charge, or_(place.is_(None), place != Recurrence.RENEWAL)),
            "renewal": and_(charge, place == Recurrence.RENEWAL),
        }[what]
        for scope in scopes:
            found = (
                _decided()
                .join(tellings, _tells_of_movement)
                .where(
                    scope.clause(self._source, self._site), movements.c.repair.is_(None), lacking
                )
                .order_by(tellings.c.occurred_at.desc())
                .limit(_MOST_AFFECTED)
            )
            for row in self._all(found):
                same = _same_movement(row.source, row.kind, row.transaction_id)
                yield row, self._all(select(tellings).where(*same))

    def mark(self, movement: AnyRow, repair: str) -> None:
        """Note that a movement would be sent better by now."""
        same = [
            movements.c[name] == getattr(movement, name)
            for name in ("source", "kind", "transaction_id")
        ]
        self._connection.execute(update(movements).where(*same).values(repair=repair))

    def _first(self, query: Select[Any]) -> AnyRow | None:
        return self._connection.execute(query.limit(1)).first()

    def _all(self, query: Select[Any]) -> Sequence[AnyRow]:
        return self._connection.execute(query).all()


def charged(connection: Connection, source: str, transaction_id: str) -> AnyRow | None:
    """The charge of that id, if one is known: its amount (text) and currency, and its state."""
    return connection.execute(
        _decided().where(
            movements.c.source == source,
            movements.c.kind == Kind.CHARGE,
            movements.c.transaction_id == transaction_id,
        )
    ).first()


def repairs(connection: Connection, sites: Sequence[str] | None = None) -> Sequence[AnyRow]:
    """The movements that went out and would be sent better by now, with why; the oldest first."""
    marked = _decided().where(movements.c.repair.is_not(None), events.c.state == State.DELIVERED)
    if sites is not None:
        marked = marked.where(movements.c.site.in_(sites))
    return connection.execute(marked.order_by(movements.c.event)).all()


def repair(connection: Connection, ids: Sequence[int], now: datetime) -> int:
    """Let the events go out anew, each after what DataFast holds of it was deleted; how many."""
    again = reopened(now, Lane.RETRY) | {"reason": "repair", "withdraws": True}
    delivered = and_(events.c.id.in_(ids), events.c.state == State.DELIVERED)
    return connection.execute(update(events).where(delivered).values(**again)).rowcount


def withdrawn(connection: Connection, source: str, transaction_id: str, now: datetime) -> None:
    """A charge was deleted at DataFast: what was posted under its id is gone with it, and goes again."""
    back = select(movements.c.event).where(
        movements.c.source == source,
        movements.c.original_id == transaction_id,
        movements.c.kind.in_(TAKES_BACK),
    )
    connection.execute(
        update(events)
        .where(
            events.c.id.in_(back),
            events.c.posted_as == transaction_id,
            events.c.state == State.DELIVERED,
        )
        .values(**(reopened(now + timedelta(seconds=1), Lane.RETRY) | {"reason": "repair"}))
    )


_tells_of_movement = and_(
    tellings.c.source == movements.c.source,
    tellings.c.kind == movements.c.kind,
    tellings.c.transaction_id == movements.c.transaction_id,
)


def _same_movement(source: str, kind: str, id: str) -> list[ColumnElement[bool]]:
    return [
        tellings.c.source == source,
        tellings.c.kind == kind,
        tellings.c.transaction_id == id,
    ]


@cache
def _decided() -> Select[Any]:
    return select(movements, events.c.state, events.c.event_id, events.c.reason).join(
        events, events.c.id == movements.c.event
    )


@cache
def _note(dialect: str) -> Any:  # noqa: ANN401 - either engine's Insert
    """Built once: building it costs more than running it."""
    new = INSERT[dialect](tellings)
    changed = {
        it.name: new.excluded[it.name] for it in tellings.c if it.name not in {"id", "event"}
    }
    differs = or_(*(tellings.c[name].is_distinct_from(value) for name, value in changed.items()))
    return new.on_conflict_do_update(
        index_elements=["event"], set_=changed, where=differs
    ).returning(tellings.c.id)


@cache
def _claim(dialect: str) -> Any:  # noqa: ANN401 - either engine's Insert
    new = INSERT[dialect](movements)
    key = ["source", "kind", "transaction_id"]
    changed = {it.name: new.excluded[it.name] for it in movements.c if it.name not in key}
    silent = select(events.c.id).where(
        events.c.id == movements.c.event, events.c.state.in_([State.DEAD, State.IGNORED])
    )
    vacant = (movements.c.event == new.excluded.event) | movements.c.event.in_(silent)
    return new.on_conflict_do_update(index_elements=key, set_=changed, where=vacant).returning(
        movements.c.event
    )
