"""How a worker that sleeps learns at once that something is due.

SQLite: a named pipe beside the database file. PostgreSQL: LISTEN / NOTIFY. Both are only a hint; a
worker also looks by itself every second or so, so a lost hint costs a second and nothing else.
"""

import contextlib
import os
import select
import stat
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

CHANNEL = "relay_due"
_NOTIFY = text(f"NOTIFY {CHANNEL}")


class Bell(Protocol):
    """Rings in one process, wakes in another."""

    def ring(self, connection: Connection) -> None:
        """As part of a transaction: wake whoever waits, once it is committed."""

    def committed(self) -> None:
        """The transaction is committed."""

    def listen(self) -> int | None:
        """A file descriptor that becomes readable when the bell rings, or None."""

    def clear(self) -> None:
        """Forget the rings so far."""

    def close(self) -> None:
        """Listen and ring no more."""


class PipeBell:
    """A named pipe: a byte in it means "look"."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_end: int | None = None
        self._write_end: int | None = None
        self._due = False

    def ring(self, connection: Connection) -> None:
        """See Bell. The pipe knows no transactions, so the ring waits for the commit."""
        self._due = True

    def committed(self) -> None:
        """See Bell. Without a listener there is nobody to wake, and that is fine."""
        if not self._due:
            return
        self._due = False
        if self._write_end is None:
            with contextlib.suppress(OSError):
                self._write_end = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        if self._write_end is not None:
            try:
                os.write(self._write_end, b".")
            except BlockingIOError:
                pass  # full: they will wake
            except OSError:
                os.close(self._write_end)
                self._write_end = None

    def listen(self) -> int | None:
        """See Bell. Opened for both ways, so that it never reports an end of file."""
        if self._read_end is None:
            with contextlib.suppress(FileExistsError, OSError):
                os.mkfifo(self._path, 0o600)
            with contextlib.suppress(OSError):
                if stat.S_ISFIFO(self._path.stat().st_mode):
                    self._read_end = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        return self._read_end

    def clear(self) -> None:
        """See Bell."""
        if self._read_end is not None:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._read_end, 4096):
                    pass

    def close(self) -> None:
        """See Bell."""
        for end in (self._read_end, self._write_end):
            if end is not None:
                os.close(end)
        self._read_end = self._write_end = None


class NotifyBell:
    """PostgreSQL's own: the notification travels with the transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._listening: Any = None

    def ring(self, connection: Connection) -> None:
        """See Bell."""
        connection.execute(_NOTIFY)

    def committed(self) -> None:
        """See Bell. PostgreSQL has told them already."""

    def listen(self) -> int | None:
        """See Bell. A connection of its own, outside the pool; None while there is none to be had."""
        if self._listening is None or self._listening.closed:
            self._listening = None
            with contextlib.suppress(SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error):
                raw = self._engine.raw_connection()
                driver: Any = raw.driver_connection  # which `detach` forgets
                raw.detach()
                driver.autocommit = True
                driver.execute(f"LISTEN {CHANNEL}")
                self._listening = driver
        return None if self._listening is None else self._listening.fileno()

    def clear(self) -> None:
        """See Bell. A broken connection is dropped, and opened anew by the next `listen`."""
        try:
            for _ in self._listening.notifies(timeout=0):
                pass
        except Exception:  # noqa: BLE001 - the driver raises its own for every kind of break
            self.close()

    def close(self) -> None:
        """See Bell."""
        connection, self._listening = self._listening, None
        if connection is not None:
            connection.close()


def wait(descriptors: list[int], seconds: float) -> None:
    """Sleep until one of the descriptors can be read, or the time is up."""
    select.select(descriptors, [], [], max(0.0, seconds))
