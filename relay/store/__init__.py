"""Everything durable. The rest of the relay knows this class, and no table."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from relay.errors import StoreUnavailableError
from relay.model import Attempt, Decision, Delivery, Document, Event, State
from relay.store import inbox, ledger, queue, views
from relay.store.engine import migrate, open_engines, sqlite_path
from relay.store.inbox import Arrival
from relay.store.ledger import Memory, Scope
from relay.store.schema import AnyRow
from relay.store.views import Filter
from relay.store.wake import Bell, NotifyBell, PipeBell
from relay.store.writer import Writer

__all__ = ["AnyRow", "Arrival", "Filter", "Memory", "Scope", "Store", "migrate"]

T = TypeVar("T")


class Store:
    """One database. Open it after a fork, never before. Methods may be called by any thread.

    Every method that writes returns after its commit, and raises StoreUnavailableError when the
    database cannot take it; then nothing of it is stored.
    """

    def __init__(self, url: str) -> None:
        self._writes, self._reads = open_engines(url)
        path = sqlite_path(url)
        self.bell: Bell = (
            PipeBell(path.with_name(f"{path.name}-due")) if path else NotifyBell(self._writes)
        )
        self._writer = Writer(self._writes, self.bell.committed)
        self._first_days: dict[str, datetime] = {}

    def close(self) -> None:
        """Close the connections."""
        self.bell.close()
        self._writer.close()
        self._writes.dispose()
        self._reads.dispose()

    # In

    def add(self, arrival: Arrival) -> int:
        """Store a request with its events; how many of them were new."""
        return self._writer.many(self._add_all, arrival)

    def _add_all(self, connection: Connection, arrivals: list[Arrival]) -> list[int]:
        self.bell.ring(connection)
        return inbox.add_all(connection, arrivals)

    # Out

    def first_due(self, gate: str = "") -> datetime | None:
        """See queue.first_due."""
        return self.read(lambda connection: queue.first_due(connection, gate))

    def gate_opens_at(self, gate: str) -> datetime | None:
        """See queue.gate_opens_at."""
        return self.read(lambda connection: queue.gate_opens_at(connection, gate))

    def passes_at(self, gate: str) -> datetime | None:
        """See queue.passes_at."""
        return self.read(lambda connection: queue.passes_at(connection, gate))

    def claim(self, now: datetime, lease: timedelta, limit: int) -> list[Delivery]:
        """See queue.claim."""
        return self._writer.one(lambda connection: queue.claim(connection, now, lease, limit))

    def claim_ready(self, gate: str, rate: int, now: datetime, lease: timedelta) -> list[Delivery]:
        """See queue.claim_ready."""
        return self._writer.one(lambda it: queue.claim_ready(it, gate, rate, now, lease))

    def take_slot(self, gate: str, rate: int, now: datetime) -> bool:
        """See queue.take_slot. Without a limit it is enough to look."""
        if not rate:
            opens_at = self.gate_opens_at(gate)
            return opens_at is None or opens_at <= now
        return self._writer.one(lambda connection: queue.take_slot(connection, gate, rate, now))

    def wait_for_slot(self, delivery: Delivery, gate: str, now: datetime) -> None:
        """See queue.wait_for_slot."""
        self._writer.one(lambda connection: queue.wait_for_slot(connection, delivery, gate, now))

    def give_back(self, delivery: Delivery, now: datetime) -> None:
        """See queue.give_back."""
        self._writer.one(lambda connection: queue.give_back(connection, delivery, now))

    def expand(
        self,
        delivery: Delivery,
        children: Sequence[Event],
        found: Sequence[Document],
        now: datetime,
    ) -> int:
        """See queue.expand."""

        def work(connection: Connection) -> int:
            self.bell.ring(connection)
            return queue.expand(connection, delivery, children, found, now)

        return self._writer.one(work)

    def keep_documents(self, delivery: Delivery, found: Sequence[Document]) -> None:
        """See queue.keep_documents."""
        self._writer.one(lambda connection: queue.keep_documents(connection, delivery.id, found))

    def documents(self, id: int) -> list[Document]:
        """See views.kept_documents."""
        return self.read(lambda connection: views.kept_documents(connection, id))

    def settle(
        self,
        delivery: Delivery,
        decision: Decision,
        now: datetime,
        *,
        gate: str = "",
        attempt: Attempt | None = None,
        notes: dict[str, Any] | None = None,
    ) -> bool:
        """See queue.settle; and ledger.make_room, if this was the end of it."""

        def work(connection: Connection) -> bool:
            kept = queue.settle(
                connection, delivery, decision, now, key=gate, attempt=attempt, notes=notes
            )
            if kept and decision.state is State.DEAD:
                self.bell.ring(connection)
                ledger.make_room(connection, delivery.id, now)
            return kept

        return self._writer.one(work)

    def posting(self, delivery: Delivery, id: str) -> None:
        """See queue.posting."""
        self._writer.one(lambda connection: queue.posting(connection, delivery, id))

    def open_gates(self, gates: Sequence[str]) -> None:
        """See queue.open_gates."""
        self._writer.one(lambda connection: queue.open_gates(connection, gates))

    # Memory

    def remember(self, source: str, site: str, work: Callable[[Memory], T]) -> T:
        """Run `work` with the ledger's memory, in a transaction that overlaps with no other such."""

        def alone(connection: Connection) -> T:
            memory = Memory(connection, source, site)
            found = work(memory)
            if memory.woke:
                self.bell.ring(connection)
            return found

        return self._writer.one(alone)

    def identify(
        self,
        site: str,
        sources: Sequence[str],
        telling: dict[str, Any],
        work: Callable[[Sequence[Memory]], None],
    ) -> None:
        """Keep what the owner's own site says, then run `work` with the memory of each source.

        In one transaction, as `remember`.
        """

        def alone(connection: Connection) -> None:
            Memory(connection, "", site).note(None, telling)
            work([Memory(connection, source, site) for source in sources])

        self._writer.one(alone)

    def first_day(self, source: str) -> datetime | None:
        """See views.first_day; it never changes."""
        if source not in self._first_days:
            found = self.read(lambda connection: views.first_day(connection, source))
            if found is None:
                return None
            self._first_days[source] = found
        return self._first_days[source]

    def repairs(self, sites: Sequence[str] | None = None) -> Sequence[AnyRow]:
        """See store.ledger.repairs."""
        return self.read(lambda connection: ledger.repairs(connection, sites))

    def repair(self, ids: Sequence[int], now: datetime) -> int:
        """See store.ledger.repair."""

        def work(connection: Connection) -> int:
            self.bell.ring(connection)
            return ledger.repair(connection, ids, now)

        return self._writer.one(work)

    def withdrawn(self, source: str, transaction_id: str, now: datetime) -> None:
        """See store.ledger.withdrawn."""
        self._writer.one(lambda it: ledger.withdrawn(it, source, transaction_id, now))

    def charged(self, source: str, transaction_id: str) -> AnyRow | None:
        """See store.ledger.charged."""
        return self.read(lambda connection: ledger.charged(connection, source, transaction_id))

    # For people, and for health

    def listed(self, wanted: Filter, limit: int = views.LISTED) -> list[AnyRow]:
        """See views.listed."""
        return self.read(lambda connection: views.listed(connection, wanted, limit))

    def waiting(self, limit: int = views.LISTED) -> list[tuple[str, AnyRow]]:
        """See views.waiting."""
        return self.read(lambda connection: views.waiting(connection, limit))

    def counted(self, wanted: Filter) -> int:
        """See views.counted."""
        return self.read(lambda connection: views.counted(connection, wanted))

    def named(self, name: str) -> list[int]:
        """See views.named."""
        return self.read(lambda connection: views.named(connection, name))

    def shown(self, id: int) -> dict[str, Any]:
        """See views.shown."""
        return self.read(lambda connection: views.shown(connection, id))

    def results(self, id: int) -> set[str]:
        """See views.results."""
        return self.read(lambda connection: views.results(connection, id))

    def replay(self, wanted: Filter, now: datetime) -> int:
        """See views.replay."""

        def work(connection: Connection) -> int:
            self.bell.ring(connection)
            return views.replay(connection, wanted, now)

        return self._writer.one(work)

    def beat(self, worker: str, now: datetime) -> None:
        """See views.beat."""
        self._writer.one(lambda connection: views.beat(connection, worker, now))

    def probe(self, now: datetime) -> None:
        """Prove that the store can be written, by writing. Raises StoreUnavailableError."""
        self._writer.one(lambda connection: views.beat(connection, views.PROBE, now))

    def leave(self, worker: str) -> None:
        """See views.leave."""
        self._writer.one(lambda connection: views.leave(connection, worker))

    def last_beat(self) -> datetime | None:
        """See views.last_beat."""
        return self.read(views.last_beat)

    def oldest_due(self, now: datetime) -> datetime | None:
        """See views.oldest_due."""
        return self.read(lambda connection: views.oldest_due(connection, now))

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query. Raises StoreUnavailableError."""
        try:
            with self._reads.begin() as connection:
                return query(connection)
        except SQLAlchemyError as error:
            cause = type(error).__name__
            raise StoreUnavailableError(
                "store_unavailable", f"the database refused: {cause}"
            ) from error
