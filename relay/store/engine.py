"""Opening the database: SQLite for one machine, PostgreSQL for many, the same code for both."""

import sqlite3
import time
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError
from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from relay.errors import StoreUnavailableError

# How long a write waits for another process's write before it gives up, in milliseconds.
SQLITE_BUSY_MS = 5_000
SQLITE_RETRY_S = 0.0005
POSTGRES_CONNECT_S = 5


def open_engines(url: str) -> tuple[Engine, Engine]:
    """The engine that writes and the engine that reads; on PostgreSQL they are one."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, "IMMEDIATE", pool_size=1), _sqlite(parsed, "DEFERRED", pool_size=8)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = create_engine(
        parsed,
        pool_size=8,
        pool_pre_ping=True,
        hide_parameters=True,  # an error must not tell what is in a row
        connect_args={"connect_timeout": POSTGRES_CONNECT_S},
    )
    # A query of its own needs no transaction around it, and so no two more ways to the server.
    return engine, engine.execution_options(isolation_level="AUTOCOMMIT")


def sqlite_path(url: str) -> Path | None:
    """The database file, or None for PostgreSQL."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)


def migrate(url: str) -> None:
    """Bring the tables to this version's shape. Any number of processes may call it at once.

    Raises StoreUnavailableError.
    """
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine, _ = open_engines(url)
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (SQLAlchemyError, CommandError) as error:
        msg = f"the database cannot be opened: {getattr(error, 'orig', None) or error}"
        raise StoreUnavailableError("store_unavailable", msg.partition("\n")[0]) from error
    finally:
        engine.dispose()


def _sqlite(url: URL, mode: str, pool_size: int) -> Engine:
    engine = create_engine(url, pool_size=pool_size, max_overflow=0, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's own
        connection.isolation_level = None  # transactions begin where `begin` below says so
        connection.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_MS}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        if mode == "IMMEDIATE":
            connection.execute("PRAGMA busy_timeout=0")  # `_begin` waits

    # IMMEDIATE takes the write lock at once: a transaction that reads first and then cannot write
    # would fail without waiting.
    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:  # noqa: ANN401 - the driver's own
        _begin(connection.connection.driver_connection, mode)

    return engine


def _begin(connection: sqlite3.Connection, mode: str) -> None:
    """Begin a transaction, after another process's if need be.

    SQLite would wait too, in sleeps of up to 100 ms: a provider's request would wait ten times as
    long as the worker's write that it meets.
    """
    deadline = time.monotonic() + SQLITE_BUSY_MS / 1000
    while True:
        try:
            connection.execute(f"BEGIN {mode}")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() >= deadline:
                raise
        time.sleep(SQLITE_RETRY_S)
