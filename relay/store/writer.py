"""Group commit: the writes that come while a commit is under way share the next one.

A commit is an fsync, and an fsync takes the same time for one row as for fifty. There is no thread
for it: the first caller commits for all who are waiting, then hands over to one of those who came
meanwhile. A caller returns only when its own write is on disk.
"""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from relay.errors import StoreUnavailableError

T = TypeVar("T")
Work = Callable[[Connection, list[Any]], list[Any]]

LARGEST_BATCH = 128
_MOST_TRIES = 5


class _Job:
    """One write: what to do, and where its caller waits."""

    __slots__ = ("done", "error", "item", "result", "wake", "work")

    def __init__(self, work: Work, item: object) -> None:
        self.work = work
        self.item = item
        self.result: Any = None
        self.error: Exception | None = None
        self.done = False
        self.wake = threading.Lock()
        self.wake.acquire()


class Writer:
    """All writes of one process. `after_commit` runs once a commit, before the callers return."""

    def __init__(self, engine: Engine, after_commit: Callable[[], None]) -> None:
        self._engine = engine
        self._after_commit = after_commit
        self._lock = threading.Lock()
        self._waiting: list[_Job] = []
        self._led = False
        self._connection: Connection | None = None

    def many(self, work: Callable[[Connection, list[Any]], list[T]], item: object) -> T:
        """Run `work(connection, items)` with this item and its neighbours; our share of the result.

        `work` gives one result an item, in order, and must stand being run again. Raises
        StoreUnavailableError when it could not be committed; then nothing of it is stored.
        """
        job = _Job(work, item)
        with self._lock:
            self._waiting.append(job)
            leads, self._led = not self._led, True
        if not leads:
            job.wake.acquire()
        if not job.done:  # ours is the turn to commit, for all who wait
            self._lead(job)
        if job.error is not None:
            raise job.error
        found: T = job.result
        return found

    def one(self, work: Callable[[Connection], T]) -> T:
        """Run `work(connection)` in a transaction, alone in its call but not in its commit."""
        found: T = self.many(_each, work)
        return found

    def close(self) -> None:
        """Give the connection back, in whatever state it is; the next write opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError, sqlite3.Error):
                connection.close()

    def _connected(self) -> Connection:
        """The one connection that writes. Taking it from the pool each time would cost a third."""
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _lead(self, own: _Job) -> None:
        with self._lock:
            batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
        try:
            self._commit(batch)
        finally:  # even when the process is told to end: nobody may wait for ever
            for job in batch:
                job.done = True
            with self._lock:
                successor = self._waiting[0] if self._waiting else None
                self._led = successor is not None
            for each in [*batch, successor]:
                if each is not None and each is not own:
                    each.wake.release()

    def _commit(self, batch: list[_Job], tries: int = 1) -> None:
        """All in one transaction; if one spoils it, each alone. A database that is gone fails all.

        Writes that share a commit lock their rows in an order of chance, so another process's can
        meet them in a deadlock. PostgreSQL ends one of the two, and that one tries again.
        """
        try:
            self._run(batch)
            self._after_commit()
        except Exception as error:  # noqa: BLE001 - it is the callers who must get it
            self.close()
            translated = _translated(error)
            if len(batch) == 1 and _deadlocked(error) and tries < _MOST_TRIES:
                self._commit(batch, tries + 1)
            elif len(batch) == 1 or isinstance(translated, StoreUnavailableError):
                for job in batch:
                    job.error = translated
            else:
                for job in batch:
                    self._commit([job])

    def _run(self, batch: list[_Job]) -> None:
        """One transaction. A connection that was cut since its last use is no reason to fail."""
        kept = self._connection is not None
        asked = False
        try:
            connection = self._connected()
            with connection.begin():
                for group in _neighbours(batch):
                    results = group[0].work(connection, [job.item for job in group])
                    for job, result in zip(group, results, strict=True):
                        job.result = result
                asked = True
        except DBAPIError as error:
            # After the commit was asked for, nobody knows whether it was done.
            if asked or not (kept and error.connection_invalidated):
                raise
            self.close()
            self._run(batch)


def _each(connection: Connection, works: list[Callable[[Connection], Any]]) -> list[Any]:
    return [work(connection) for work in works]


def _neighbours(batch: list[_Job]) -> list[list[_Job]]:
    """The batch in order, cut where the kind of work changes."""
    groups: list[list[_Job]] = []
    for job in batch:
        if groups and groups[-1][0].work == job.work:
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups


# SQLite's own error comes from BEGIN, which is not SQLAlchemy's.
_UNAVAILABLE = (
    OperationalError,
    InterfaceError,
    InternalError,
    PoolTimeoutError,
    OSError,
    sqlite3.DatabaseError,
)


def _deadlocked(error: Exception) -> bool:
    """Whether PostgreSQL chose this transaction to end a deadlock."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == "40P01"


def _translated(error: Exception) -> Exception:
    """A database that is gone, full, locked or broken is nobody's fault: try again later."""
    if _deadlocked(error):
        return error
    if isinstance(error, _UNAVAILABLE) or type(error) is DatabaseError:
        cause = " ".join(str(getattr(error, "orig", error)).split())[:200]
        return StoreUnavailableError("store_unavailable", f"the database refused: {cause}")
    return error
