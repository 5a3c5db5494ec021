"""What the relay costs, each figure beside its ceiling and its aim, measured in one run.

Real processes on loopback. A machine is noisy: what is compared is measured in turns, and the
medians of the turns are shown. It prints, and judges nothing by its exit code.

    python benchmarks/bench.py            all of it, about four minutes
    python benchmarks/bench.py --quick    coarse, under a minute
    python benchmarks/bench.py --only accepts
"""

import argparse
import os
import platform
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Self

import ledger
import processes
import requests
import traffic
from client import Load, closed, steady
from processes import Running
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, text

CONNECTIONS = 32
LATENCY_RATE = 200
TRAVEL_RATE = 50
WITHIN_S = 60


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    home: Path
    postgres: str
    rounds: int
    seconds: float
    backlog: int
    remembered: int


@dataclass(frozen=True)
class Figure:
    """A line of the table. `met` is None where there is no aim."""

    what: str
    relay: str
    ceiling: str = ""
    share: str = ""
    aim: str = ""
    met: bool | None = None


# Accepts


def accepts(plan: Plan) -> Iterator[Figure]:
    """Durable accepts a second, as fast as they go."""
    with ExitStack() as stack:
        servers = {
            "bare": stack.enter_context(processes.bare(plan.home)),
            "SQLite": stack.enter_context(_web(plan, _new_database(plan))),
            "PostgreSQL": stack.enter_context(_web(plan, plan.postgres)),
        }
        found = _in_turns(
            plan,
            servers,
            lambda it: _good(closed(it.port, traffic.repeated(), plan.seconds, CONNECTIONS)),
        )
        rates = {name: median(load.per_second for load in loads) for name, loads in found.items()}
    for name in ("SQLite", "PostgreSQL"):
        share = rates[name] / rates["bare"]
        what = f"durable accepts a second, {name}"
        yield Figure(
            what,
            f"{rates[name]:.0f}",
            f"{rates['bare']:.0f} bare Flask view",
            f"{share:.2f}",
            ">= 0.7",
            share >= 0.7,
        )


def latency(plan: Plan) -> Iterator[Figure]:
    """From a request's due time to its acknowledgement, at a steady rate."""
    with ExitStack() as stack:
        servers = {
            "bare": stack.enter_context(processes.bare(plan.home)),
            "relay web, SQLite": stack.enter_context(_web(plan, _new_database(plan))),
            "relay web, PostgreSQL": stack.enter_context(_web(plan, plan.postgres)),
            "relay serve, SQLite": stack.enter_context(
                processes.relay(plan.home, "serve", _new_database(plan))
            ),
        }
        found = _in_turns(
            plan,
            servers,
            lambda it: _good(steady(it.port, traffic.repeated(), plan.seconds, LATENCY_RATE)),
        )
    ceiling = _percentiles(found.pop("bare"))
    for name, loads in found.items():
        figures = _percentiles(loads)
        yield Figure(
            f"acknowledgement p50/p95/p99 ms at {LATENCY_RATE}/s, {name}",
            _slashed(figures),
            f"{_slashed(ceiling)} bare Flask view",
            "",
            "p95 < 5.5",
            figures[1] < 5.5,
        )


def _percentiles(loads: list[Load]) -> list[float]:
    return [median(load.percentile(p) for load in loads) for p in (50, 95, 99)]


# Forwards


def travel(plan: Plan) -> Iterator[Figure]:
    """From acknowledgement to the sandbox's record, at a steady rate, without a rate limit."""
    events = traffic.payments(int(TRAVEL_RATE * plan.seconds * 2))
    with (
        processes.sandbox(plan.home) as sandbox,
        processes.relay(plan.home, "serve", _new_database(plan), sandbox, 0) as relay,
    ):
        _warm_up(relay)
        load = _good(steady(relay.port, (it.wire for it in events), plan.seconds * 3, TRAVEL_RATE))
        _wait_for(sandbox, len(events) + 1)  # and the one of the warm-up
        recorded = _recorded(sandbox)
        posted = sorted(_post_all(sandbox, traffic.posted(len(events))))
    took = sorted(
        (recorded[event.transaction_id] - load.answered_at[number]) * 1000
        for number, event in enumerate(events)
    )
    figures = [_at(took, 50), _at(took, 95)]
    ceiling = [_at(posted, 50) * 1000, _at(posted, 95) * 1000]
    yield Figure(
        f"acknowledged to recorded p50/p95 ms at {TRAVEL_RATE}/s",
        _slashed(figures),
        f"{_slashed(ceiling)} one bare post",
        "",
        "p95 < 50",
        figures[1] < 50,
    )


def forwards(plan: Plan) -> Iterator[Figure]:
    """Events a second out of a backlog, against a bare loop of posts to the same sandbox."""
    rates: dict[str, list[float]] = {"SQLite": [], "bare": [], "PostgreSQL": []}
    with processes.sandbox(plan.home) as sandbox:
        for _ in range(plan.rounds):
            rates["SQLite"].append(_drained(plan, sandbox, _new_database(plan)))
            _post_all(sandbox, traffic.posted(plan.backlog))
            rates["bare"].append(_recorded_a_second(sandbox))
            rates["PostgreSQL"].append(_drained(plan, sandbox, plan.postgres))
    ceiling = median(rates.pop("bare"))
    for name, found in rates.items():
        share = median(found) / ceiling
        yield Figure(
            f"forwarded events a second, {name}",
            f"{median(found):.0f}",
            f"{ceiling:.0f} bare loop of posts",
            f"{share:.2f}",
            ">= 0.6",
            share >= 0.6,
        )


def _drained(plan: Plan, sandbox: Running, database: str) -> float:
    """Store a backlog, let a worker loose on it; how many a second the sandbox recorded."""
    events = traffic.payments(plan.backlog)
    with _web(plan, database) as web:
        _good(closed(web.port, (it.wire for it in events), WITHIN_S, CONNECTIONS))
    _forget_others(database)
    with processes.relay(plan.home, "worker", database, sandbox, 0):
        _wait_for(sandbox, plan.backlog)
    return _recorded_a_second(sandbox)


def _forget_others(database: str) -> None:
    """What other measurements left in a shared database is not part of this backlog."""
    engine = create_engine(database.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE events SET state = 2, due_at = NULL WHERE event_id NOT LIKE 'event_%'")
        )
    engine.dispose()


def _post_all(sandbox: Running, bodies: list[str]) -> list[float]:
    """The bare loop: one kept-alive session; the seconds each post took."""
    took = []
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {processes.KEY}"
        session.headers["Content-Type"] = "application/json"
        for body in bodies:
            begun = time.perf_counter()
            session.post(f"{sandbox.url}/api/v1/payments", data=body).raise_for_status()
            took.append(time.perf_counter() - begun)
    return took


def _recorded(sandbox: Running) -> dict[str, float]:
    """Unix times of all records, by transaction."""
    records = _get(sandbox, "/sandbox/payments")
    return {
        it["transaction_id"]: datetime.fromisoformat(it["recorded_at"]).timestamp()
        for it in records
    }


def _recorded_a_second(sandbox: Running) -> float:
    """Between the first record and the last; then the sandbox is emptied."""
    times = sorted(_recorded(sandbox).values())
    requests.delete(f"{sandbox.url}/sandbox", timeout=WITHIN_S).raise_for_status()
    return (len(times) - 1) / (times[-1] - times[0])


def _wait_for(sandbox: Running, count: int) -> None:
    """Until the sandbox has answered so many requests."""
    deadline = time.monotonic() + WITHIN_S
    while (seen := _get(sandbox, "/sandbox/requests")["total"]) < count:
        if time.monotonic() > deadline:
            msg = f"{seen} of {count} reached the sandbox within {WITHIN_S} s"
            raise TimeoutError(msg)
        time.sleep(0.1)


def _get(sandbox: Running, path: str) -> Any:
    return requests.get(sandbox.url + path, timeout=WITHIN_S).json()


def judging(plan: Plan) -> Iterator[Figure]:
    """One judgement of the ledger beside few and beside many remembered payments."""
    for engine, new in (("SQLite", _new_database), ("PostgreSQL", lambda it: it.postgres)):
        few = ledger.times(new(plan), 1_000)
        many = ledger.times(new(plan), plan.remembered)
        for kind, least, most in zip(("charge", "refund"), few, many, strict=True):
            yield Figure(
                f"judging a {kind} beside {plan.remembered:,} payments, ms, {engine}",
                f"{most:.1f}",
                f"{least:.1f} beside 1,000",
                f"{most / least:.2f}",
                "about 1",
                most / least < 1.5,
            )


# Footprint


def memory(plan: Plan) -> Iterator[Figure]:
    """PSS of all processes of `relay serve`."""
    with (
        processes.sandbox(plan.home) as sandbox,
        processes.relay(plan.home, "serve", _new_database(plan), sandbox, 0) as relay,
        processes.bare(plan.home) as bare,
    ):
        _warm_up(relay)
        _warm_up(bare)
        time.sleep(2)
        idle, ceiling = relay.memory(), bare.memory()
        with _Sampler(relay.memory) as sampler:
            _good(closed(relay.port, traffic.repeated(), plan.seconds * 2, CONNECTIONS))
    yield Figure(
        "memory of relay serve, idle, MiB",
        f"{idle:.0f}",
        f"{ceiling:.0f} bare Flask view",
        "",
        "< 120",
        idle < 120,
    )
    yield Figure("memory of relay serve, under load, MiB", f"{sampler.highest:.0f}")


class _Sampler(threading.Thread):
    """The highest of some samples taken while something else goes on."""

    def __init__(self, sample: Callable[[], float]) -> None:
        super().__init__()
        self.highest = 0.0
        self._sample = sample
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.5):
            self.highest = max(self.highest, self._sample())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def start(plan: Plan) -> Iterator[Figure]:
    """From the command to the first acknowledged request, a new database and its tables included."""
    took: dict[str, list[float]] = {"relay": [], "bare": []}
    for _ in range(plan.rounds):
        begun = time.perf_counter()
        with processes.relay(plan.home, "serve", _new_database(plan)) as relay:
            _warm_up(relay)
            took["relay"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        with processes.bare(plan.home) as bare:
            _warm_up(bare)
            took["bare"].append(time.perf_counter() - begun)
    found = median(took["relay"])
    yield Figure(
        "start to first acknowledgement, s",
        f"{found:.2f}",
        f"{median(took['bare']):.2f} bare Flask view",
        "",
        "< 1.5",
        found < 1.5,
    )


# Pieces


def _in_turns(
    plan: Plan, servers: dict[str, Running], measure: Callable[[Running], Load]
) -> dict[str, list[Load]]:
    """Each server in turn, some rounds."""
    for running in servers.values():
        _warm_up(running)
    found: dict[str, list[Load]] = {name: [] for name in servers}
    for _ in range(plan.rounds):
        for name, running in servers.items():
            found[name].append(measure(running))
    return found


def _web(plan: Plan, database: str) -> Any:
    return processes.relay(plan.home, "web", database)


def _new_database(plan: Plan) -> str:
    return processes.sqlite(plan.home, f"relay-{time.monotonic_ns()}")


def _warm_up(running: Running) -> None:
    """Until it has answered one request."""
    request = traffic.repeated()
    _good(closed(running.port, iter([next(request)]), WITHIN_S, 1))


def _good(load: Load) -> Load:
    """A load that met anything but 200 has measured something else."""
    if set(load.statuses) != {200}:
        msg = f"answered {load.statuses}"
        raise RuntimeError(msg)
    return load


def _at(ranked: list[float], percent: float) -> float:
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]


def _slashed(figures: list[float]) -> str:
    return " / ".join(f"{figure:.1f}" for figure in figures)


MEASUREMENTS = {
    it.__name__: it for it in (start, accepts, latency, travel, forwards, judging, memory)
}


def machine(plan: Plan) -> str:
    """Where and when."""
    engine = create_engine(plan.postgres.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        version = connection.execute(text("SHOW server_version")).scalar()
    engine.dispose()
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores ({platform.machine()}), "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"PostgreSQL {version}; a 4 KiB fdatasync takes {_fdatasync(plan.home):.0f} us; "
        f"load before it began {os.getloadavg()[0]:.1f}"
    )


def _fdatasync(home: Path) -> float:
    """Microseconds, the median of some: the least that a durable commit can take."""
    took = []
    with (home / "fdatasync").open("wb", buffering=0) as file:
        for _ in range(100):
            begun = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    return median(took) * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=[*MEASUREMENTS], help="only this")
    parser.add_argument("--quick", action="store_true", help="coarse, under a minute")
    chosen = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console.width = 140
    table = Table("", "relay", "ceiling", "share", "aim", "", box=None, pad_edge=False)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))
        database = stack.enter_context(processes.postgres(home))
        plan = (
            Plan(home, database, rounds=1, seconds=1.5, backlog=400, remembered=20_000)
            if chosen.quick
            else Plan(home, database, rounds=3, seconds=3, backlog=2_000, remembered=1_000_000)
        )
        console.print(machine(plan))
        for name in chosen.only or MEASUREMENTS:
            with console.status(name):
                for it in MEASUREMENTS[name](plan):
                    mark = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[it.met]
                    table.add_row(it.what, it.relay, it.ceiling, it.share, it.aim, mark)
    console.print(table)


if __name__ == "__main__":
    main()
