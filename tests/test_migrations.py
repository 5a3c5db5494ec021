"""The tables that the migrations make are those that the code knows."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from helpers import arrival, seen
from sqlalchemy import inspect
from sqlalchemy.engine import Connection

from relay.store import Store, migrate
from relay.store.engine import open_engines
from relay.store.schema import metadata


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    writes, reads = open_engines(url)
    try:
        with writes.connect() as connection:
            yield connection
    finally:
        writes.dispose()
        reads.dispose()


def differences(url: str) -> list[object]:
    with connected(url) as connection:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))


def indexes(connection: Connection) -> dict[str, tuple[object, object]]:
    """Each index with its columns and its condition, which `compare_metadata` does not look at."""
    found = inspect(connection)
    return {
        index["name"]: (
            tuple(index["column_names"]),
            str(index["dialect_options"].get(f"{connection.dialect.name}_where", "")).strip("()"),
        )
        for table in metadata.tables
        for index in found.get_indexes(table)
        if not index.get("duplicates_constraint")
    }


def test_the_migrated_tables_are_those_of_the_schema(empty_database_url: str) -> None:
    migrate(empty_database_url)
    assert differences(empty_database_url) == []
    with connected(empty_database_url) as connection:
        conditions = {name: condition for name, (_, condition) in indexes(connection).items()}
    wanted = {}
    for table in metadata.tables.values():
        for index in table.indexes:
            where = index.dialect_options["sqlite"]["where"]
            wanted[index.name] = "" if where is None else str(where).removeprefix(f"{table}.")
    assert conditions == wanted


def test_what_is_missing_would_be_noticed(empty_database_url: str) -> None:
    assert len(differences(empty_database_url)) >= len(metadata.tables)


def test_migrating_again_changes_nothing_and_keeps_what_is_there(empty_database_url: str) -> None:
    migrate(empty_database_url)
    store = Store(empty_database_url)
    try:
        store.add(arrival("evt_1"))
        migrate(empty_database_url)
        assert seen(store) == {"evt_1": 1}
    finally:
        store.close()
    assert differences(empty_database_url) == []


def test_several_processes_may_migrate_at_once(empty_database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=migrate, args=(empty_database_url,), daemon=True) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert differences(empty_database_url) == []
