"""The tables. One database is at once inbox, queue and ledger.

requests    what came in, byte for byte; never changed
events      one row an event: what it is, and its delivery, the only part that changes
documents   what a provider's API answered about a thin event
tellings    the ledger's facts: what each event, and the owner's own site, said of whom
movements   the ledger's decisions: which event tells DataFast of which movement of money, and how
attempts    every POST and its answer; only ever added to
gates       one row a DataFast token: when the next slot opens, why it is closed
workers     who is alive
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    literal_column,
    text,
)
from sqlalchemy.engine import Dialect, Row
from sqlalchemy.types import TypeDecorator

from relay.model import Lane, State

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


# One row of anything. What is in it, the query says.
AnyRow = Row[*tuple[Any, ...]]


class Instant(TypeDecorator[datetime]):
    """An aware moment, kept as microseconds since 1970: exact, and the same on both engines."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """A naive time is a mistake in the caller: it raises TypeError."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Always in UTC."""
        return None if value is None else _EPOCH + value * _MICROSECOND


class Ranked(TypeDecorator[Any]):
    """A member of an enum, kept as its rank, so that an index sorts by it."""

    impl = SmallInteger
    cache_ok = True

    def __init__(self, members: tuple[Any, ...]) -> None:
        super().__init__()
        self.members = members

    def process_bind_param(self, value: Any, dialect: Dialect) -> int | None:  # noqa: ANN401
        """Its rank."""
        return None if value is None else self.members.index(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Any:  # noqa: ANN401
        """The member."""
        return None if value is None else self.members[value]


# SQLite counts rows only in a column of the type INTEGER.
Id = BigInteger().with_variant(Integer, "sqlite")
Lanes = Ranked(tuple(Lane))
States = Ranked(tuple(State))

metadata = MetaData()

requests = Table(
    "requests",
    metadata,
    Column("id", Id, primary_key=True),
    Column("source", String(63), nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("method", String(16), nullable=False),
    Column("url", Text, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("request", Id, ForeignKey("requests.id"), nullable=False),
    Column("parent", Id, ForeignKey("events.id")),
    Column("source", String(63), nullable=False),
    Column("event_id", String(255), nullable=False),
    Column("type", String(255), nullable=False),
    Column("occurred_at", Instant),
    Column("received_at", Instant, nullable=False),
    Column("seen", Integer, nullable=False, server_default=text("1")),
    # What it was understood to be, for people and for search; the bytes are the truth.
    Column("kind", String(16)),
    Column("transaction_id", String(255)),
    Column("mark", Text),
    Column("evidence", JSON),
    Column("posted_as", String(255)),
    # Its delivery.
    Column("state", States, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("lane", Lanes, nullable=False),
    Column("gate", String(64), nullable=False, server_default=""),
    Column("due_at", Instant),
    Column("first_due_at", Instant, nullable=False),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("lease", String(32)),
    Column("withdraws", Boolean, nullable=False, server_default=false()),
    Column("settled_at", Instant),
    UniqueConstraint("source", "event_id"),
)
# Conditions of partial indexes are written out: with a bound value no planner could use the index.
is_pending = events.c.state == literal_column(str(list(State).index(State.PENDING)))
is_dead = events.c.state == literal_column(str(list(State).index(State.DEAD)))

# Two queues in one index: without a gate, what is to be mapped; with one, what waits for a slot.
Index(
    "events_due",
    events.c.gate,
    events.c.lane,
    events.c.due_at,
    sqlite_where=is_pending,
    postgresql_where=is_pending,
)
Index("events_dead", events.c.id, sqlite_where=is_dead, postgresql_where=is_dead)
_mapped = events.c.transaction_id.is_not(None)
Index(
    "events_transaction",
    events.c.transaction_id,
    sqlite_where=_mapped,
    postgresql_where=_mapped,
)

documents = Table(
    "documents",
    metadata,
    Column("event", Id, ForeignKey("events.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("path", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("fetched_at", Instant, nullable=False),
)

tellings = Table(
    "tellings",
    metadata,
    Column("id", Id, primary_key=True),
    # None where the owner's own site said it; then the source is empty as well.
    Column("event", Id, ForeignKey("events.id"), unique=True),
    Column("site", String(63), nullable=False),
    Column("source", String(63), nullable=False),
    Column("occurred_at", Instant, nullable=False),
    # None where no money moved.
    Column("kind", String(16)),
    Column("transaction_id", String(255)),
    Column("original_id", String(255)),
    # As it was told: None is all that is left; cumulative is all so far.
    Column("amount", Text),
    Column("currency", String(3)),
    Column("cumulative", Boolean),
    Column("recurrence", String(16)),
    Column("subscription_id", String(255)),
    Column("subscribed_at", Instant),
    Column("customer_id", String(255)),
    Column("email", String(255)),
    Column("email_key", String(255)),
    Column("name", String(255)),
    Column("visitor_id", String(255)),
    Column("reference", String(255)),
)


def _lookup(*names: str) -> None:
    """An index over the tellings that say something of the first column after the scope."""
    told = tellings.c[names[1]].is_not(None)
    Index(
        f"tellings_{names[1]}",
        *(tellings.c[name] for name in names),
        sqlite_where=told,
        postgresql_where=told,
    )


_lookup("source", "transaction_id")
_lookup("source", "original_id")
_lookup("source", "subscription_id", "occurred_at")
_lookup("site", "customer_id", "occurred_at")
_lookup("site", "email_key", "occurred_at")
_lookup("site", "reference", "occurred_at")

movements = Table(
    "movements",
    metadata,
    Column("source", String(63), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("transaction_id", String(255), primary_key=True),
    Column("event", Id, ForeignKey("events.id"), nullable=False, index=True),
    Column("site", String(63), nullable=False),
    Column("original_id", String(255)),
    Column("amount", Text, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("occurred_at", Instant, nullable=False),
    Column("recurrence", String(16)),
    Column("visitor_id", String(255)),
    # What is known better by now than when it was sent: `relay repair` sends it anew.
    Column("repair", String(16)),
)
_taken_back = movements.c.original_id.is_not(None)
Index(
    "movements_original",
    movements.c.source,
    movements.c.original_id,
    sqlite_where=_taken_back,
    postgresql_where=_taken_back,
)
_repairable = movements.c.repair.is_not(None)
Index("movements_repair", movements.c.event, sqlite_where=_repairable, postgresql_where=_repairable)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("event", Id, ForeignKey("events.id"), nullable=False, index=True),
    Column("started_at", Instant, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("sent", Text, nullable=False),
    Column("result", String(32), nullable=False),
    Column("status", Integer),
    Column("message", Text, nullable=False),
    Column("answer", Text, nullable=False),
)

gates = Table(
    "gates",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("next_at", Instant, nullable=False),
    Column("closed_until", Instant),
    Column("reason", Text, nullable=False, server_default=""),
    Column("streak", Integer, nullable=False, server_default=text("0")),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("seen_at", Instant, nullable=False),
)
