"""`relay serve`, `web` and `worker` as real processes: they die, stop, reload, and lose nothing."""

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
import yaml
from processes import (
    KEY,
    PROVIDER,
    SECRET,
    Running,
    Webhook,
    free_port,
    poll,
    recorded,
    relay,
    sandbox,
    settings,
    sqlite,
    webhook,
)

from relay.model import State

WAITING = "SELECT count(*) FROM events WHERE gate != '' AND lease IS NULL"
IN_2100 = 4_102_444_800_000_000
PENDING, DELIVERED = list(State).index(State.PENDING), list(State).index(State.DELIVERED)


@pytest.fixture(scope="module")
def any_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A sandbox without a limit."""
    with sandbox(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture
def site(any_site: Running) -> Running:
    """The same, with nothing in it."""
    assert requests.delete(f"{any_site.url}/sandbox", timeout=10).status_code == 200
    return any_site


@pytest.fixture
def postgres_url(postgres: Any) -> Iterator[str]:
    """An empty database of PostgreSQL."""
    name = postgres.create(migrated=False)
    yield postgres.url(name)
    postgres.drop(name)


def states(url: str) -> dict[str, int]:
    """Event id -> state, read through a connection of its own."""
    query = "SELECT event_id, state FROM events"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return dict(connection.execute(query).fetchall())
    with psycopg.connect(url) as connection:
        return dict(connection.execute(query).fetchall())


def count(url: str, state: int) -> int:
    return list(states(url).values()).count(state)


def delivered(url: str, number: int) -> bool:
    return count(url, DELIVERED) == number


def send(to: Running, number: int) -> list[Webhook]:
    """Payments, each acknowledged."""
    sent = [webhook() for _ in range(number)]
    assert [to.post(each) for each in sent] == [200] * number
    return sent


def assert_recorded_once(site: Running, sent: list[Webhook]) -> None:
    ids = [record["transaction_id"] for record in recorded(site)]
    assert sorted(ids) == sorted(each.transaction_id for each in sent)


def answers(site: Running) -> dict[str, Any]:
    """How often the sandbox answered what."""
    return site.get("/sandbox/requests").json()["by_status"]


def fault(site: Running, **said: Any) -> None:
    answer = requests.put(f"{site.url}/sandbox/faults", json=said, timeout=10)
    assert answer.status_code == 200


def close_gate(url: str) -> None:
    """Keep every event waiting, as a destination that is left alone would."""
    assert poll(
        "there is a gate", lambda: change(url, f"UPDATE gates SET closed_until = {IN_2100}")
    )


def open_gate(url: str) -> None:
    change(url, "UPDATE gates SET closed_until = NULL")


def change(url: str, statement: str) -> int:
    """Change something behind the relay's back; how many rows."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)) as connection:
        changed = connection.execute(statement).rowcount
        connection.commit()
        return changed


def number(url: str, query: str) -> int:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return connection.execute(query).fetchone()[0]


def leased(url: str) -> int:
    """How many are under way."""
    return number(url, "SELECT count(*) FROM events WHERE lease IS NOT NULL")


def attempts(url: str) -> int:
    return number(url, "SELECT count(*) FROM attempts")


# It starts, and it stays


def test_both_kinds_of_process_work_under_one_master(tmp_path: Path, site: Running) -> None:
    url = sqlite(tmp_path)
    config = settings(free_port(), url, site.url, server={"processes": 2}, worker={"processes": 2})
    with relay(tmp_path, "serve", config) as running:
        poll("two deliver", lambda: len(running.delivering()) == 2)
        poll("two answer", lambda: len(running.answering()) == 2)
        sent = send(running, 20)
        poll("all is delivered", lambda: delivered(url, 20))
        assert_recorded_once(site, sent)
        assert running.stop() == 0
    assert running.children() == set()


def test_a_delivery_process_that_is_killed_is_replaced_and_nothing_pending_is_lost(
    tmp_path: Path, site: Running
) -> None:
    url = sqlite(tmp_path)
    with relay(tmp_path, "serve", settings(free_port(), url, site.url)) as running:
        (first,) = poll("one delivers", running.delivering)
        close_gate(url)
        sent = send(running, 10)
        poll("they wait at the gate", lambda: number(url, WAITING) == 10)
        os.kill(first, signal.SIGKILL)
        poll("another delivers", lambda: running.delivering() - {first})
        assert len(running.answering()) == 1
        assert delivered(url, 0)
        open_gate(url)
        poll("all is delivered", lambda: delivered(url, 10))
        assert_recorded_once(site, sent)


def test_a_web_process_that_is_killed_is_replaced(tmp_path: Path, site: Running) -> None:
    url = sqlite(tmp_path)
    with relay(tmp_path, "serve", settings(free_port(), url, site.url)) as running:
        poll("one delivers", running.delivering)
        (first,) = running.answering()
        sent = send(running, 3)
        os.kill(first, signal.SIGKILL)
        again = webhook()
        poll("it answers again", lambda: running.post(again) == 200)
        assert first not in running.answering()
        poll("all is delivered", lambda: delivered(url, 4))
        assert_recorded_once(site, [*sent, again])


def test_all_processes_end_when_their_master_is_killed(tmp_path: Path, site: Running) -> None:
    with relay(tmp_path, "serve", settings(free_port(), sqlite(tmp_path), site.url)) as running:
        poll("one delivers", running.delivering)
        orphans = running.children()
        assert len(orphans) == 2
        running.process.kill()
        running.process.wait()
        try:
            poll("they end", lambda: not any(is_alive(pid) for pid in orphans))
        finally:
            for pid in filter(is_alive, orphans):
                os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Not ended, and not a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_serve_works_over_postgresql(tmp_path: Path, site: Running, postgres_url: str) -> None:
    with relay(tmp_path, "serve", settings(free_port(), postgres_url, site.url)) as running:
        (first,) = poll("one delivers", running.delivering)
        sent = send(running, 5)
        poll("all is delivered", lambda: delivered(postgres_url, 5))
        os.kill(first, signal.SIGKILL)
        poll("another delivers", lambda: running.delivering() - {first})
        sent += send(running, 5)
        poll("all is delivered", lambda: delivered(postgres_url, 10))
        assert_recorded_once(site, sent)
        assert running.stop() == 0


def test_web_and_worker_work_apart_over_postgresql(
    tmp_path: Path, site: Running, postgres_url: str
) -> None:
    config = settings(free_port(), postgres_url, site.url)
    with relay(tmp_path, "web", config) as web:
        assert web.get("/readyz").status_code == 503
        sent = send(web, 4)
        assert delivered(postgres_url, 0)
        other = settings(free_port(), postgres_url, site.url)
        with relay(tmp_path, "worker", other) as one, relay(tmp_path, "worker", other) as two:
            poll("ready", lambda: web.get("/readyz").status_code == 200)
            sent += send(web, 20)
            poll("all is delivered", lambda: delivered(postgres_url, 24))
            assert_recorded_once(site, sent)
            with pytest.raises(requests.ConnectionError):
                one.get("/healthz")
            assert [one.stop(), two.stop()] == [0, 0]
        poll("no worker any more", lambda: web.get("/readyz").status_code == 503)


# It stops


@dataclass
class Load:
    """Posts until it is told to stop; what was acknowledged."""

    to: Running
    acknowledged: list[Webhook] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stopped.is_set():
            sent = webhook()
            status = self.to.post(sent)
            self.statuses.add(status)
            if status == 200:
                self.acknowledged.append(sent)


@contextmanager
def load(to: Running, clients: int = 4) -> Iterator[Load]:
    found = Load(to)
    with ThreadPoolExecutor(clients) as pool:
        try:
            for _ in range(clients):
                pool.submit(found.run)
            yield found
        finally:
            found.stopped.set()


def test_stopping_under_load_loses_nothing_and_sends_nothing_twice(
    tmp_path: Path, site: Running
) -> None:
    url, port = sqlite(tmp_path), free_port()
    config = settings(port, url, site.url, server={"processes": 2, "drain_seconds": 10})
    with relay(tmp_path, "serve", config) as running, load(running) as posted:
        poll("there is load", lambda: len(posted.acknowledged) > 50)
        assert running.stop() == 0
        posted.stopped.set()
    assert posted.statuses <= {0, 200, 503}
    assert set(states(url)) >= {sent.event_id for sent in posted.acknowledged}
    stored = len(states(url))
    with relay(tmp_path, "serve", config):
        poll("all is delivered", lambda: delivered(url, stored))
    ids = [record["transaction_id"] for record in recorded(site)]
    assert len(ids) == len(set(ids)) == stored
    assert set(ids) >= {sent.transaction_id for sent in posted.acknowledged}
    assert site.get("/sandbox/requests").json()["total"] == stored


def test_a_delivery_under_way_is_finished_before_it_stops(tmp_path: Path, site: Running) -> None:
    url = sqlite(tmp_path)
    with relay(tmp_path, "serve", settings(free_port(), url, site.url)) as running:
        poll("one delivers", running.delivering)
        fault(site, latency_ms=1_500)
        sent = send(running, 3)
        poll("they are under way", lambda: leased(url) == 3)
        assert running.stop() == 0
    assert delivered(url, 3)
    assert_recorded_once(site, sent)


def test_a_destination_that_hangs_does_not_hold_up_the_stop_for_ever(tmp_path: Path) -> None:
    url = sqlite(tmp_path)
    with sandbox(tmp_path) as site:  # its own: it records what hangs, sooner or later
        config = settings(free_port(), url, site.url, server={"drain_seconds": 1})
        with relay(tmp_path, "serve", config) as running:
            poll("one delivers", running.delivering)
            fault(site, latency_ms=15_000)
            (sent,) = send(running, 1)
            poll("it is under way", lambda: leased(url) == 1)
            running.stop()
        assert states(url) == {sent.event_id: PENDING}


def test_a_broken_configuration_keeps_it_from_starting(tmp_path: Path) -> None:
    config = settings(free_port(), sqlite(tmp_path)) | {"nonsense": 1}
    with pytest.raises(AssertionError, match="nonsense"), relay(tmp_path, "serve", config):
        pass


# A new configuration


def test_a_good_new_configuration_is_taken(tmp_path: Path, site: Running) -> None:
    url, port = sqlite(tmp_path), free_port()
    config = settings(port, url, site.url)
    with relay(tmp_path, "serve", config) as running:
        before = running.children()
        sent = send(running, 2)
        config["sources"] = {
            "other": {**config["sources"][PROVIDER], "secrets": ["another", SECRET]}
        }
        running.reconfigure(yaml.safe_dump(config))
        new = webhook(secret="another")
        poll("the new source answers", lambda: running.post(new, "other") == 200)
        poll("the old processes are gone", lambda: not running.children() & before)
        assert running.post(webhook(), PROVIDER) == 404
        assert running.post(webhook(), "other") == 200
        assert len(poll("one delivers", running.delivering)) == 1
        assert len(running.answering()) == 1
        assert running.said("config.reloaded")
        poll("all is settled", lambda: count(url, PENDING) == 0)
        assert {it["transaction_id"] for it in recorded(site)} >= {new.transaction_id}
        assert count(url, DELIVERED) + dead(url) == 4
        assert {each.event_id for each in sent} <= set(states(url))


def dead(url: str) -> int:
    return count(url, list(State).index(State.DEAD))


def test_a_new_configuration_under_load_costs_no_request(tmp_path: Path, site: Running) -> None:
    url, port = sqlite(tmp_path), free_port()
    config = settings(port, url, site.url)
    with relay(tmp_path, "serve", config) as running, load(running, 2) as posted:
        poll("there is load", lambda: len(posted.acknowledged) > 10)
        before = running.children()
        running.reconfigure(yaml.safe_dump(config | {"log_level": "warning"}))
        poll("the old processes are gone", lambda: not running.children() & before)
        after = len(posted.acknowledged)
        poll("it goes on", lambda: len(posted.acknowledged) > after + 10)
        posted.stopped.set()
    assert posted.statuses == {200}
    assert set(states(url)) == {sent.event_id for sent in posted.acknowledged}


def test_a_broken_new_configuration_is_refused_with_its_mistakes(
    tmp_path: Path, site: Running
) -> None:
    url = sqlite(tmp_path)
    config = settings(free_port(), url, site.url)
    good = yaml.safe_dump(config)
    broken = {good + "sourcs: {}\n": "sourcs", good + "a: [\n": "line", good + "\0": "", "": ""}
    with relay(tmp_path, "serve", config) as running:
        for times, (text, word) in enumerate(broken.items(), 1):
            running.reconfigure(text)
            poll("it says so", lambda times=times: len(running.said("config.kept_old")) == times)
            assert word in running.said("config.kept_old")[-1]["problems"]
        sent = send(running, 3)
        poll("all is delivered", lambda: delivered(url, 3))
        assert_recorded_once(site, sent)


def test_a_new_address_waits_for_a_restart_and_harms_nothing(tmp_path: Path, site: Running) -> None:
    config = settings(free_port(), sqlite(tmp_path), site.url)
    with relay(tmp_path, "serve", config) as running:
        for address in ("192.0.2.1:8080", "no.such.host.invalid:8080"):
            before = running.children()
            changed = config | {"server": {**config["server"], "bind": address}}
            running.reconfigure(yaml.safe_dump(changed))
            poll(
                "it says so",
                lambda address=address: any(
                    line["bind"] == address for line in running.said("config.address_needs_restart")
                ),
            )
            poll(
                "the old processes are gone", lambda before=before: not running.children() & before
            )
            poll("it answers", lambda: running.post(webhook()) == 200)
        assert running.process.poll() is None


def test_a_new_number_of_processes_is_taken(tmp_path: Path, site: Running) -> None:
    config = settings(free_port(), sqlite(tmp_path), site.url)
    with relay(tmp_path, "serve", config) as running:
        poll("one delivers", running.delivering)
        more = config | {"worker": {"processes": 2}}
        more["server"] = {**config["server"], "processes": 3}
        running.reconfigure(yaml.safe_dump(more))
        poll("two deliver", lambda: len(running.delivering()) == 2)
        poll("three answer", lambda: len(running.answering()) == 3)
        running.reconfigure(yaml.safe_dump(config))
        poll("one is enough", lambda: len(running.children()) == 2)
        assert len(poll("one delivers", running.delivering)) == 1


def test_a_new_database_is_made_ready_and_one_that_is_away_is_refused(
    tmp_path: Path, site: Running
) -> None:
    (tmp_path / "other").mkdir()
    url, other = sqlite(tmp_path), sqlite(tmp_path / "other")
    config = settings(free_port(), url, site.url)
    with relay(tmp_path, "serve", config) as running:
        before = running.children()
        away = "postgresql://nobody@127.0.0.1:9/nothing"
        running.reconfigure(yaml.safe_dump(config | {"database": away}))
        poll("it says so", lambda: running.said("config.kept_old"))
        poll("the old processes are gone", lambda: not running.children() & before)
        send(running, 1)
        between = running.children()
        running.reconfigure(yaml.safe_dump(config | {"database": other}))
        poll("the old processes are gone", lambda: not running.children() & between)
        send(running, 2)
        poll("all is delivered", lambda: delivered(other, 2))
        assert len(states(url)) == 1


# The destination


def test_the_destinations_limit_is_never_broken(tmp_path: Path) -> None:
    url, limit, many = sqlite(tmp_path), 120, 11
    with sandbox(tmp_path, None, "--rate-limit", str(limit)) as site:
        site_settings = {"api_key": KEY, "base_url": site.url, "rate_limit": limit}
        config = settings(
            free_port(), url, worker={"processes": 2}, destinations={"site": site_settings}
        )
        with relay(tmp_path, "serve", config) as running:
            with ThreadPoolExecutor(8) as pool:
                sent = [webhook() for _ in range(many)]
                assert set(pool.map(running.post, sent)) == {200}
            poll("all is delivered", lambda: delivered(url, many))
        assert_recorded_once(site, sent)
        assert answers(site) == {"200": many}
        times = sorted(datetime.fromisoformat(it["recorded_at"]) for it in recorded(site))
        for first in range(many):
            for last in range(first + 1, many):
                seconds = (times[last] - times[first]).total_seconds()
                # Two more than the limit allows evenly: answers do not all take equally long.
                assert last - first <= seconds * limit / 60 + 2


def test_a_destination_that_is_away_gets_everything_when_it_is_back(tmp_path: Path) -> None:
    url, port = sqlite(tmp_path), free_port()
    config = settings(free_port(), url, f"http://127.0.0.1:{port}")
    with relay(tmp_path, "serve", config) as running:
        sent = send(running, 3)
        poll("they were tried", lambda: attempts(url) >= 3)
        assert count(url, PENDING) == 3
        with sandbox(tmp_path, port) as site:
            poll("all is delivered", lambda: delivered(url, 3))
            assert_recorded_once(site, sent)


def test_a_revoked_key_pauses_and_a_new_one_delivers_everything(
    tmp_path: Path, site: Running
) -> None:
    url = sqlite(tmp_path)
    config = settings(free_port(), url, site.url)
    with relay(tmp_path, "serve", config) as running:
        requests.put(f"{site.url}/sandbox/tokens", json={"revoked": [KEY]}, timeout=10)
        sent = send(running, 1)
        poll("it was refused", lambda: attempts(url) == 1)
        sent += send(running, 5)
        assert count(url, PENDING) == 6
        config["destinations"]["site"]["api_key"] = "df_new_key"
        running.reconfigure(yaml.safe_dump(config))
        poll("all is delivered", lambda: delivered(url, 6))
        assert_recorded_once(site, sent)
        assert answers(site) == {"200": 6, "401": 1}


def test_what_waits_for_a_key_that_is_gone_is_found(tmp_path: Path, site: Running) -> None:
    url = sqlite(tmp_path)
    with relay(tmp_path, "serve", settings(free_port(), url, site.url)) as running:
        poll("one delivers", running.delivering)
        close_gate(url)
        sent = send(running, 3)
        poll("they wait at the gate", lambda: number(url, WAITING) == 3)
        assert change(url, "UPDATE events SET gate = 'gone'") == 3
        open_gate(url)
        poll("all is delivered", lambda: delivered(url, 3))
        assert_recorded_once(site, sent)


def test_the_log_tells_of_each_stage_and_of_nobody(tmp_path: Path, site: Running) -> None:
    url = sqlite(tmp_path)
    with relay(tmp_path, "serve", settings(free_port(), url, site.url)) as running:
        (sent,) = send(running, 1)
        poll("it is delivered", lambda: delivered(url, 1))
        running.post(webhook(secret="another"))
        running.stop()
        lines = running.lines()
        assert [line for line in lines if "text" in line] == []
        assert len(running.said("webhook.stored")) == 1
        assert len(running.said("webhook.refused")) == 1
        (attempted,) = running.said("delivery.attempted")
        assert attempted["event_id"] == sent.event_id
        assert datetime.fromisoformat(attempted["time"]).tzinfo == UTC
        text = running.log.read_text("utf-8")
        for private in (SECRET, KEY, "@", "Jordan", sent.headers["x-razorpay-signature"]):
            assert private not in text
