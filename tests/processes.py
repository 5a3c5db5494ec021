"""Real processes on loopback, raw sockets, and what a provider sends over them."""

import contextlib
import itertools
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

import requests
import yaml

from relay import fetch, provider, samples
from relay.model import Received, Trust
from relay.samples import Sample
from relay.store import Store

T = TypeVar("T")

PROVIDER = "razorpay"
SAMPLE = "payment.captured.card"
SECRET = "whsec_razorpay_example"
KEY = "df_test_key"

WITHIN_S = 30

_numbers = itertools.count(1)


def poll(what: str, condition: Callable[[], T], within: float = WITHIN_S) -> T:
    """What `condition` gives, as soon as it is anything; a failure when the time is up."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    msg = f"within {within} s not: {what}"
    raise AssertionError(msg)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# What a provider sends


@dataclass(frozen=True)
class Webhook:
    """One signed webhook, and what its payment is called."""

    body: bytes
    headers: dict[str, str]
    event_id: str
    transaction_id: str

    def wire(self, path: str = f"/webhooks/{PROVIDER}", **headers: str) -> bytes:
        """The bytes of the request; a header that is "" is left out."""
        found = {"Host": "127.0.0.1", "Content-Length": str(len(self.body))}
        found |= self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in found.items() if value]
        return "\r\n".join([f"POST {path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + self.body


@cache
def sample(name: str = SAMPLE, of: str = PROVIDER) -> Sample:
    return next(it for it in samples.of(of) if it.name == name)


def signed(request: Received, of: str = PROVIDER, secret: str = SECRET) -> Received:
    known = provider.load(of)
    trust = Trust((secret,), 300, known.defaults(), fetch.download)
    return known.signature.sign(replace(request, received_at=datetime.now(UTC)), trust)


def webhook(*, secret: str = SECRET, body: bytes | None = None) -> Webhook:
    """A payment that was never told before; or any other body, signed as well."""
    number = next(_numbers)
    event_id, id = f"EvTtest{number:07}", f"pay_test{number:07}"
    recorded = sample()
    if body is None:
        old = recorded.expected["payments"][0]["transaction_id"]
        body = recorded.request.body.replace(old.encode(), id.encode())
    named = recorded.request.headers.replaced(x_razorpay_event_id=event_id)
    request = signed(replace(recorded.request, body=body, headers=named), secret=secret)
    return Webhook(body, sent_headers(request), event_id, id)


def sent_headers(request: Received) -> dict[str, str]:
    return {name: value for name, value in request.headers.pairs if name != "host"}


# Configuration


def settings(
    port: int, database: str, sandbox: str = "http://127.0.0.1:9", **changes: Any
) -> dict[str, Any]:
    """A configuration with one source and one destination; `changes` are merged into it."""
    found: dict[str, Any] = {
        "server": {"bind": f"127.0.0.1:{port}", "public_url": f"http://127.0.0.1:{port}"},
        "database": database,
        "destinations": {"site": {"api_key": KEY, "base_url": sandbox, "rate_limit": 0}},
        "sources": {
            PROVIDER: {"provider": PROVIDER, "destination": "site", "secrets": [SECRET]},
        },
    }
    for section, change in changes.items():
        found[section] = {**found.get(section, {}), **change}
    return found


def sqlite(home: Path) -> str:
    return f"sqlite:///{home / 'relay.db'}"


def pragma(store: Store, text: str) -> Any:
    """Ask or tell the one connection through which an open store writes to SQLite."""
    store._writer.close()
    with store._writes.connect() as connection:
        found = connection.connection.driver_connection.execute(f"PRAGMA {text}").fetchone()
        return found[0] if found else None


# Processes


@dataclass
class Running:
    """A `relay` command that runs, and its log."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    file: Path | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> requests.Response:
        with requests.Session() as session:
            return session.get(self.url + path, timeout=10)

    def post(self, sent: Webhook, source: str = PROVIDER) -> int:
        """The status of the answer; 0 for no answer."""
        try:
            with requests.Session() as session:
                return session.post(
                    f"{self.url}/webhooks/{source}",
                    data=sent.body,
                    headers=sent.headers,
                    timeout=30,
                ).status_code
        except requests.RequestException:
            return 0

    def lines(self) -> list[dict[str, Any]]:
        """Its log; what is no JSON is a line with only `text`."""
        found = []
        for text in self.log.read_text("utf-8").splitlines():
            try:
                found.append(json.loads(text))
            except ValueError:
                found.append({"event": "", "text": text})
        return found

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["event"] == event]

    def children(self) -> set[int]:
        found: set[int] = set()
        for file in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in file.read_text().split()}
        return found

    def delivering(self) -> set[int]:
        """The processes that deliver, once they say so."""
        told = {int(line["worker"].rpartition(":")[2]) for line in self.said("worker.started")}
        return told & self.children()

    def answering(self) -> set[int]:
        return self.children() - self.delivering()

    def reconfigure(self, text: str) -> None:
        """Write the configuration anew and send SIGHUP."""
        assert self.file is not None
        self.file.write_text(text, "utf-8")
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def _started(home: Path, name: str, *arguments: str) -> Iterator[tuple[Any, Path]]:
    log = home / f"{name}-{next(_numbers)}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "relay", name, *arguments],
            cwd=home,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        try:
            yield process, log
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def relay(home: Path, command: str, config: dict[str, Any]) -> Iterator[Running]:
    """`relay serve`, `web` or `worker`, up and running."""
    file = home / f"relay-{next(_numbers)}.yaml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    port = int(config["server"]["bind"].rpartition(":")[2])
    with _started(home, command, "--config", str(file)) as (process, log):
        found = Running(process, port, log, file)
        if command == "worker":
            poll("a worker starts", lambda: found.delivering() or process.poll() is not None)
        else:
            wait_until_up(found, "/healthz" if command == "web" else "/readyz")
        yield found


@contextmanager
def sandbox(home: Path, port: int | None = None, *arguments: str) -> Iterator[Running]:
    port = port or free_port()
    records = ["--database", str(home / "sandbox.db")]
    limit = [] if "--rate-limit" in arguments else ["--rate-limit", "0"]
    bind = ["--bind", f"127.0.0.1:{port}"]
    with _started(home, "sandbox", *bind, *limit, *records, *arguments) as (process, log):
        found = Running(process, port, log)
        wait_until_up(found, "/sandbox/requests")
        yield found


def wait_until_up(running: Running, path: str) -> None:
    def up() -> bool:
        assert running.process.poll() is None, running.log.read_text("utf-8")
        try:
            return running.get(path).status_code == 200
        except requests.RequestException:
            return False

    poll(f"{path} answers 200", up)


def recorded(of: Running) -> list[dict[str, Any]]:
    """What the sandbox has."""
    return of.get("/sandbox/payments").json()


# Raw sockets


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


class Wire:
    """One connection, byte for byte."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def half_close(self) -> None:
        """Say that nothing more will come."""
        self.socket.shutdown(socket.SHUT_WR)

    def readable(self, seconds: float) -> bool:
        """Whether an answer (or an end) arrives in time."""
        return bool(self._buffer or select.select([self.socket], [], [], seconds)[0])

    def answer(self) -> Answer | None:
        """The next answer; None when the connection ends without another."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return None
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (it.partition(":") for it in lines)
        }
        length = int(headers.get("content-length", "0"))
        self._buffer = rest
        while len(self._buffer) < length and self._more():
            pass
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(int(first.split()[1]), headers, body)

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65_536)
        except ConnectionError:
            return False
        self._buffer += data
        return bool(data)
