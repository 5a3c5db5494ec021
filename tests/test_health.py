"""What a supervisor is told: does the process answer, does the relay do its work."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient
from processes import PROVIDER, free_port, poll, pragma, relay, settings, sqlite, webhook

from relay import config as configuration
from relay.app import create_app
from relay.health import WORKER_SILENT
from relay.store import Store, migrate


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    migrate(sqlite(tmp_path))
    store = Store(sqlite(tmp_path))
    yield store
    store.close()


@pytest.fixture
def client(tmp_path: Path, store: Store) -> FlaskClient:
    file = tmp_path / "relay.yaml"
    file.write_text(yaml.safe_dump(settings(8080, sqlite(tmp_path))), "utf-8")
    return create_app(configuration.load(file), store).test_client()


def now() -> datetime:
    return datetime.now(UTC)


def test_a_process_that_answers_is_healthy(client: FlaskClient) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})
    assert client.head("/healthz").status_code == 200


def test_a_relay_without_a_worker_is_not_ready(client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["status"] == "unready"
    assert answer.json["store"] == "ok"
    assert "relay worker" in answer.json["worker"]


def test_asking_does_not_count_as_a_worker(client: FlaskClient) -> None:
    assert [client.get("/readyz").status_code for _ in range(3)] == [503] * 3


def test_a_relay_with_a_worker_is_ready(client: FlaskClient, store: Store) -> None:
    store.beat("here:1", now())
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json == {"status": "ok", "store": "ok", "worker": "ok", "oldest_due_seconds": 0}


def test_a_worker_that_fell_silent_is_none(client: FlaskClient, store: Store) -> None:
    store.beat("here:1", now() - WORKER_SILENT - timedelta(seconds=1))
    assert client.get("/readyz").status_code == 503
    store.beat("there:2", now())
    assert client.get("/readyz").status_code == 200


def test_a_worker_that_left_is_none(client: FlaskClient, store: Store) -> None:
    store.beat("here:1", now())
    store.leave("here:1")
    assert client.get("/readyz").status_code == 503


def test_the_age_of_the_oldest_due_event_is_told(client: FlaskClient, store: Store) -> None:
    sent = webhook()
    assert (
        client.post(f"/webhooks/{PROVIDER}", data=sent.body, headers=sent.headers).status_code
        == 200
    )
    first = client.get("/readyz").json["oldest_due_seconds"]
    assert first >= 0
    poll("it grows older", lambda: client.get("/readyz").json["oldest_due_seconds"] > first)
    (delivery,) = store.claim(now(), timedelta(minutes=1), 5)
    assert delivery.event_id == sent.event_id
    assert client.get("/readyz").json["oldest_due_seconds"] == 0


def test_a_store_that_cannot_be_written_is_not_ready(client: FlaskClient, store: Store) -> None:
    store.beat("here:1", now())
    pragma(store, "query_only=1")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["store"] != "ok"
    assert client.get("/healthz").status_code == 200
    pragma(store, "query_only=0")
    assert client.get("/readyz").status_code == 200


def test_a_database_server_that_is_away_is_a_503_until_it_is_back(
    tmp_path: Path, postgres: Any
) -> None:
    name = postgres.create(migrated=False)
    config = settings(free_port(), postgres.url(name), server={"processes": 2})
    with relay(tmp_path, "serve", config) as running:
        with ThreadPoolExecutor(8) as pool:
            asked = pool.map(lambda _: running.get("/readyz").status_code, range(32))
            assert set(asked) == {200}
        assert running.post(webhook()) == 200
        postgres.allow(name, connections=False)
        assert postgres.cut(name) > 0
        answer = running.get("/readyz")
        assert answer.status_code == 503
        assert "refused" in answer.json()["store"]
        assert running.get("/healthz").status_code == 200
        assert running.post(webhook()) == 503
        postgres.allow(name, connections=True)
        poll("ready again", lambda: running.get("/readyz").status_code == 200)
        assert running.post(webhook()) == 200
        assert running.process.poll() is None
    postgres.drop(name)
