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
    true,
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
# So many are looked at together when somebody is looked for; what is farther is asked for by name.
MOST_NEAR = 20


@dataclass(frozen=True, order=True)
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

    def of(self, source: str) -> "Memory":
        """The same, as another source of the site knows it."""
        return self if source == self._source else Memory(self._connection, source, self._site)

    # Facts

    def note(self, event: int | None, telling: dict[str, Any]) -> bool:
        """Keep what an event says, in place of what it was understood to say before; is it news?"""
        row = {**telling, "event": event, "source": self._source, "site": self._site}
        if event is None:
            self._connection.execute(insert(tellings), row)
            return True
        new = _note(self._connection.dialect.name)
        return self._connection.execute(new, row).first() is not None

    def told(self, kind: str, transaction_id: str) -> Sequence[AnyRow]:
        """All that was told of one movement, also where no money moved. The oldest first."""
        return self._all(
            select(tellings)
            .where(
                Scope("transaction_id", transaction_id).clause(self._source, self._site),
                or_(tellings.c.kind == kind, tellings.c.kind.is_(None)),
            )
            .order_by(tellings.c.occurred_at, tellings.c.event)
        )

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

    def losses(self, original_id: str) -> Sequence[AnyRow]:
        """All that was told of the refunds, disputes and returns of a charge, with their states."""
        return self._all(
            select(tellings, events.c.state, events.c.reason)
            .join(events, events.c.id == tellings.c.event)
            .where(
                Scope("original_id", original_id).clause(self._source, self._site),
                tellings.c.kind.is_not(None),
            )
            .order_by(tellings.c.occurred_at, tellings.c.event)
        )

    def begun(self, subscription: str, event: int, moment: datetime) -> bool:
        """Whether another event has said before that the subscription began then, or earlier."""
        said = select(tellings.c.id).where(
            Scope("subscription_id", subscription).clause(self._source, self._site),
            tellings.c.subscribed_at <= moment,
            tellings.c.event != event,
        )
        return self._first(said) is not None

    def links(self, scopes: Sequence[Scope]) -> list[Scope]:
        """By what else those are known who are known by these."""
        if not scopes:
            return []
        where = or_(*(scope.clause(self._source, self._site) for scope in scopes))
        found: set[Scope] = set()
        for column in ("subscription_id", "customer_id", "reference", "transaction_id"):
            value = tellings.c[column]
            linked = select(value).where(where, value.is_not(None)).distinct()
            if column == "transaction_id":  # a movement's own telling leads to it without this
                linked = linked.where(tellings.c.kind.is_(None))
            rows = self._all(linked.limit(_MOST_AFFECTED))
            found |= {Scope(column, row[0]) for row in rows}
        return sorted(found - set(scopes))

    def knew(self, event: int | None, telling: dict[str, Any]) -> bool:
        """Whether another event has said before that these belong together."""
        keys = ("subscription_id", "customer_id", "email_key", "reference")
        near = next((name for name in keys if telling[name]), None)
        if near is None:
            return True
        said = select(tellings.c.id).where(
            Scope(near, telling[near]).clause(self._source, self._site),
            *(tellings.c[name] == telling[name] for name in keys if telling[name]),
            tellings.c.event.is_not(None),
            tellings.c.event != event,
        )
        return self._first(said) is not None

    def near(self, scope: Scope, moment: datetime, *, after: bool) -> Sequence[AnyRow]:
        """The last tellings up to a moment, or the first ones after it; MOST_NEAR at most."""
        return self._all(self._seen(scope, moment, after=after).limit(MOST_NEAR))

    def sighting(self, what: str, scope: Scope, moment: datetime, *, after: bool) -> AnyRow | None:
        """The nearest of them that knows `what`, however far it is."""
        told = self._seen(scope, moment, after=after).where(tellings.c[what].is_not(None))
        if what != "visitor_id":  # a site's key is public: it can say whose visit it was, no more
            told = told.where(tellings.c.event.is_not(None))
        return self._first(told.order_by(tellings.c[what]))

    def _seen(self, scope: Scope, moment: datetime, *, after: bool) -> Select[Any]:
        at = tellings.c.occurred_at
        told = select(tellings).where(scope.clause(self._source, self._site))
        if after:
            return told.where(at > moment).order_by(at)
        return told.where(at <= moment).order_by(at.desc())

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
        row = {**movement, "source": self._source, "site": self._site, "event": delivery.id}
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

    def reopen(self, ids: Sequence[int], now: datetime) -> None:
        """Judge events again that came to nothing."""
        silent = events.c.state.in_([State.DEAD, State.IGNORED])
        changed = self._connection.execute(
            update(events).where(events.c.id.in_(ids), silent).values(**reopened(now, Lane.RETRY))
        )
        self.woke |= changed.rowcount > 0

    def nobodys(self, scopes: Sequence[Scope]) -> Iterator[AnyRow]:
        """Movements about these that went out without a visitor."""
        return self._affected(scopes, [_tells_of_movement], movements.c.visitor_id.is_(None))

    def others(self, scopes: Sequence[Scope], visitor: str | None) -> Iterator[AnyRow]:
        """Movements about these that may be of another visitor, and what goes back of them."""
        other = movements.c.visitor_id.is_distinct_from(visitor) if visitor else true()
        return self._affected(scopes, [_tells_of_movement, _tells_of_original], other)

    def charges(
        self, subscription: str, *, renewals: bool, after: datetime | None = None
    ) -> Iterator[AnyRow]:
        """The charges of a subscription that count as renewals, or those that do not."""
        place = movements.c.recurrence
        said = [
            movements.c.kind == Kind.CHARGE,
            place == Recurrence.RENEWAL if renewals else place.is_distinct_from(Recurrence.RENEWAL),
        ]
        if after is not None:
            said.append(movements.c.occurred_at >= after)
        scope = Scope("subscription_id", subscription)
        return self._affected([scope], [_tells_of_movement], and_(*said))

    def _affected(
        self,
        scopes: Sequence[Scope],
        ties: Sequence[ColumnElement[bool]],
        lacking: ColumnElement[bool],
    ) -> Iterator[AnyRow]:
        """Movements that may have gone out wrong, each once; of a great many, the latest."""
        if not scopes:
            return
        about = or_(*(scope.clause(self._source, self._site) for scope in scopes))
        seen = set()
        for tie in ties:
            found = (
                _decided()
                .join(tellings, tie)
                .where(about, movements.c.repair.is_(None), lacking)
                .order_by(tellings.c.occurred_at.desc())
                .limit(_MOST_AFFECTED)
            )
            for row in self._all(found):
                key = (row.source, row.kind, row.transaction_id)
                if key not in seen:
                    seen.add(key)
                    yield row

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
    """The charge of that id, if one is known: its amount (text) and currency, and its state.

    `refunded_by` is the event that DataFast has as its refund, under its own id.
    """
    back = movements.alias()
    refund = events.alias()
    refunded_by = (
        select(refund.c.id)
        .join(back, back.c.event == refund.c.id)
        .where(
            back.c.source == source,
            back.c.original_id == transaction_id,
            back.c.kind.in_(TAKES_BACK),
            refund.c.posted_as == transaction_id,
            refund.c.state == State.DELIVERED,
        )
        .limit(1)
        .scalar_subquery()
    )
    return connection.execute(
        _decided()
        .add_columns(refunded_by.label("refunded_by"))
        .where(
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
    """Let the events go out anew, each after what DataFast holds of it was deleted; how many.

    What was posted under its charge's id cannot be deleted without the charge: that goes again too.
    """
    charge, charged = movements.alias(), events.alias()
    together = (
        select(movements.c.event, charge.c.event.label("charge"))
        .join(events, events.c.id == movements.c.event)
        .join(
            charge,
            and_(
                charge.c.source == movements.c.source,
                charge.c.kind == Kind.CHARGE,
                charge.c.transaction_id == movements.c.original_id,
            ),
        )
        .join(charged, charged.c.id == charge.c.event)
        .where(
            movements.c.event.in_(ids),
            events.c.posted_as == movements.c.original_id,
            charged.c.state == State.DELIVERED,
        )
    )
    with_charge = {row.event: row.charge for row in connection.execute(together)}
    wanted = {with_charge.get(id, id) for id in ids}
    again = reopened(now, Lane.RETRY) | {"reason": "repair", "withdraws": True}
    delivered = and_(events.c.id.in_(wanted), events.c.state == State.DELIVERED)
    return connection.execute(update(events).where(delivered).values(**again)).rowcount


def make_room(connection: Connection, event: int, now: datetime) -> None:
    """An event died that told of a movement: those that were silent because of it may speak."""
    others = (
        select(tellings.c.event)
        .join(movements, _tells_of_movement)
        .where(movements.c.event == event, tellings.c.event != event)
    )
    connection.execute(
        update(events)
        .where(
            events.c.id.in_(others),
            events.c.state == State.IGNORED,
            events.c.reason == "already_told",
        )
        .values(**reopened(now, Lane.RETRY))
    )


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
        .values(**(reopened(now + timedelta(seconds=1), Lane.RETRY) | {"reason": "withdrawn"}))
    )


_tells_of_movement = and_(
    tellings.c.source == movements.c.source,
    tellings.c.kind == movements.c.kind,
    tellings.c.transaction_id == movements.c.transaction_id,
)


_tells_of_original = and_(
    tellings.c.source == movements.c.source,
    tellings.c.transaction_id == movements.c.original_id,
)


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
