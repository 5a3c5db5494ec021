"""One thread that writes, and commits what came meanwhile in one transaction.

A commit is an fsync, and an fsync takes the same time for one row as for fifty. While one is under
way the other requests queue up, and the next commit takes them all. A caller returns only when its
own write is on disk.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, TimeoutError

from relay.errors import StoreUnavailableError

T = TypeVar("T")

LARGEST_BATCH = 128


class _Job:
    """One write: what to do, and where its caller waits."""

    __slots__ = ("done", "error", "item", "result", "work")

    def __init__(self, work: Callable[[Connection, list[Any]], list[Any]], item: object) -> None:
        self.work = work
        self.item = item
        self.result: Any = None
        self.error: Exception | None = None
        self.done = threading.Lock()
        self.done.acquire()


class Writer:
    """All writes of one process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def many(self, work: Callable[[Connection, list[Any]], list[T]], item: object) -> T:
        """Run `work(connection, items)` with this item and its neighbours; our share of the result.

        `work` gives one result an item, in order, and must stand being run again. Raises
        StoreUnavailableError when it could not be committed; then nothing of it is stored.
        """
        job = _Job(work, item)
        self._ensure_thread()
        self._jobs.put(job)
        job.done.acquire()
        if job.error is not None:
            raise job.error
        found: T = job.result
        return found

    def one(self, work: Callable[[Connection], T]) -> T:
        """Run `work(connection)` in a transaction, alone in its call but not in its commit."""

        def each(connection: Connection, items: list[Callable[[Connection], T]]) -> list[T]:
            return [item(connection) for item in items]

        return self.many(each, work)

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _ensure_thread(self) -> None:
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            batch = [job]
            closing = False
            while len(batch) < LARGEST_BATCH and not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    closing = True
                    break
                batch.append(following)
            self._commit(batch)
            for job in batch:
                job.done.release()
            if closing:
                return

    def _commit(self, batch: list[_Job]) -> None:
        """All in one transaction; if one spoils it, each alone. A database that is gone fails all."""
        try:
            with self._engine.begin() as connection:
                for group in _neighbours(batch):
                    results = group[0].work(connection, [job.item for job in group])
                    for job, result in zip(group, results, strict=True):
                        job.result = result
        except Exception as error:  # noqa: BLE001 - it is the callers who must get it
            translated = _translated(error)
            if len(batch) == 1 or isinstance(translated, StoreUnavailableError):
                for job in batch:
                    job.error = translated
            else:
                for job in batch:
                    self._commit([job])


def _neighbours(batch: list[_Job]) -> list[list[_Job]]:
    """The batch in order, cut where the kind of work changes."""
    groups: list[list[_Job]] = []
    for job in batch:
        if groups and groups[-1][0].work == job.work:
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups


def _translated(error: Exception) -> Exception:
    """A database that is gone, full or locked is nobody's fault: try again later."""
    if isinstance(
        error, OperationalError | InterfaceError | InternalError | TimeoutError | OSError
    ):
        cause = str(getattr(error, "orig", error)).strip().splitlines()[:1]
        return StoreUnavailableError("store_unavailable", f"the database refused: {cause}")
    return error
