"""`relay demo`: every recorded request, signed anew, all the way into the sandbox.

Real processes: `relay sandbox`, `relay serve` on an embedded SQLite file, and a stand-in for the
providers' APIs. It ends with 0 only if everything was settled as the recorded requests say.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from relay import provider, samples
from relay.errors import RelayError
from relay.model import State
from relay.rehearse import Rehearsed, StandIn, addressed, post
from relay.samples import Sample
from relay.store import AnyRow, Filter, Store

Records = dict[tuple[str, bool], dict[str, Any]]
Rows = dict[tuple[str, str], AnyRow]
Amounts = dict[tuple[str, str], set[str]]

START_WITHIN_S = 20
SETTLE_WITHIN_S = 60


@dataclass
class Sent:
    """One recorded request on its way: where it went, when it was acknowledged."""

    sample: Sample
    source: str
    acknowledged_at: datetime
    status: int


@dataclass
class Source:
    """One source of the demo's configuration, and the recorded requests that go there."""

    name: str
    rehearsed: Rehearsed
    settings: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    currency: str | None = None


def demo(*, stay: bool, only: tuple[str, ...] = ()) -> int:
    """Run it; the exit code."""
    console = Console()
    if not console.is_terminal or "COLUMNS" in os.environ:
        console.width = int(os.environ.get("COLUMNS", "120"))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the stand-in's access log
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-demo-")))
        standin = StandIn()
        stack.callback(standin.close)
        sources = plan(standin, only or tuple(provider.names()))
        sandbox_url, relay_url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        write_config(home, sources, sandbox_url, relay_url)
        bind = sandbox_url.removeprefix("http://")
        sandbox = stack.enter_context(process(home, "sandbox", "--bind", bind, "--rate-limit", "0"))
        relay = stack.enter_context(process(home, "serve", "--config", str(home / "relay.yaml")))
        wait_until_up(sandbox_url + "/sandbox/payments", sandbox)
        wait_until_up(relay_url + "/readyz", relay)
        know_visitors(sandbox_url, sources)
        sent = [
            send(each, sample, relay_url)
            for each in track(sources, "sending", console=console, transient=True)
            for sample in each.samples
        ]
        store = Store(database(home))
        stack.callback(store.close)
        wait_until_settled(store, console)
        wrong = show(console, sent, store, recorded(sandbox_url))
        if stay:
            console.print(
                f"relay {relay_url}, sandbox {sandbox_url}, configuration {home}/relay.yaml"
            )
            console.print("Ctrl-C ends both.")
            wait_for_interrupt()
    return 1 if wrong else 0


def plan(standin: StandIn, names: tuple[str, ...]) -> list[Source]:
    """A source for each provider; another where recorded requests need other settings."""
    found: list[Source] = []
    for name in names:
        known = provider.load(name)
        rehearsed = standin.rehearse(known)
        by_settings: dict[str, Source] = {}
        for sample in samples.of(name):
            own = {k: v for k, v in sample.settings.items() if k not in rehearsed.settings}
            key = repr((sorted(own.items()), sample.currency))
            if key not in by_settings:
                label = name if not by_settings else f"{name}-{len(by_settings) + 1}"
                settings = {**own, **rehearsed.settings}
                by_settings[key] = Source(label, rehearsed, settings, currency=sample.currency)
            by_settings[key].samples.append(sample)
        found += by_settings.values()
    return found


def write_config(home: Path, sources: list[Source], sandbox_url: str, relay_url: str) -> None:
    """The configuration a user would write, with secrets made up on the spot."""
    config = {
        "server": {"bind": relay_url.removeprefix("http://"), "public_url": relay_url},
        "database": database(home),
        "destinations": {
            "sandbox": {"api_key": "df_demo_key", "base_url": sandbox_url, "rate_limit": 0}
        },
        "sources": {
            each.name: {
                "provider": each.rehearsed.provider.name,
                "destination": "sandbox",
                "hold_seconds": 0,  # each sample stands alone: nothing more will come
                "secrets": list(each.rehearsed.rehearsal.secrets),
                **({"currency": each.currency} if each.currency else {}),
                **each.settings,
            }
            for each in sources
        },
    }
    (home / "relay.yaml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")


def database(home: Path) -> str:
    """Where the demo's relay keeps its store."""
    return f"sqlite:///{home / 'relay.db'}"


def know_visitors(sandbox_url: str, sources: list[Source]) -> None:
    """The visitors of the recorded requests have been on the site."""
    known = {
        entry["datafast"]["datafast_visitor_id"]
        for each in sources
        for sample in each.samples
        for entry in sample.expected.get("payments", [])
        if "datafast_visitor_id" in entry["datafast"]
    }
    requests.put(f"{sandbox_url}/sandbox/visitors", json={"known": sorted(known)}, timeout=10)


def send(source: Source, sample: Sample, relay_url: str) -> Sent:
    """Sign and post, as the provider would."""
    request = addressed(sample, relay_url, source.name)
    answer = post(f"{relay_url}/webhooks/{source.name}", source.rehearsed.sign(request))
    return Sent(sample, source.name, datetime.now(UTC), answer.status_code)


def wait_until_settled(store: Store, console: Console) -> None:
    """Until nothing is pending any more."""
    deadline = time.monotonic() + SETTLE_WITHIN_S
    with console.status("settling"):
        while store.counted(Filter(state=State.PENDING)) and time.monotonic() < deadline:
            time.sleep(0.05)


def recorded(sandbox_url: str) -> Records:
    """What the sandbox holds; a refund may stand under its original's id, beside the original."""
    records = requests.get(f"{sandbox_url}/sandbox/payments", timeout=10).json()
    return {(record["transaction_id"], record["refunded"] is True): record for record in records}


# What came of it


def show(console: Console, sent: list[Sent], store: Store, records: Records) -> int:
    """Print the table; how many were not settled as their recorded requests say."""
    rows = {(row.source, row.event_id): row for row in store.listed(Filter(), 10_000)}
    table = Table(
        "", "source", "event", "DataFast recorded", "visitor", "ms", box=None, pad_edge=False
    )
    table.columns[2].overflow = "fold"
    known = amounts(sent)
    found = [line for each in sent for line in lines(each, rows, records, known)]
    for line in found:
        mark = "[red]wrong[/]" if line.wrong else "[green]ok[/]"
        took = "" if line.milliseconds is None else f"{line.milliseconds:.0f}"
        told = f"{line.told}; wanted: {line.wrong}" if line.wrong else line.told
        table.add_row(mark, line.source, line.event, told, line.visitor, took)
    console.print(table)
    wrong = sum(1 for line in found if line.wrong)
    ranked = sorted(line.milliseconds for line in found if line.milliseconds is not None) or [0.0]
    console.print(
        f"\n{len(found) - wrong} events as they should be, {wrong} not; "
        f"{len(records)} records in the sandbox; "
        f"from acknowledgement to record: median {ranked[len(ranked) // 2]:.0f} ms"
    )
    return wrong


def amounts(sent: list[Sent]) -> Amounts:
    """What the samples say of each movement: some of a provider's tell of one with other amounts."""
    found: Amounts = {}
    for each in sent:
        for entry in each.sample.expected.get("payments", []):
            key = (each.sample.provider, entry["transaction_id"])
            wire = entry["datafast"]
            found.setdefault(key, set()).add(f"{kind_of(wire)} {amount_of(wire)}")
    return found


def amount_of(wire: dict[str, Any]) -> str:
    """Amount and currency, for people."""
    return f"{wire['amount']} {wire['currency']}"


@dataclass(frozen=True)
class Line:
    """One event in the table: what came of it, and what should have, if that differs."""

    source: str
    event: str
    told: str
    wrong: str = ""
    visitor: str = ""
    milliseconds: float | None = None


def lines(sent: Sent, rows: Rows, records: Records, told: Amounts) -> Iterator[Line]:
    """What each event of a request came to, beside what it must come to."""
    label, expected = (sent.source, sent.sample.name), sent.sample.expected
    if sent.status != 200:
        yield Line(*label, f"answered {sent.status}", "200")
    elif "error" in expected:
        dead = any(key[0] == sent.source and row.state is State.DEAD for key, row in rows.items())
        yield Line(*label, f"dead: {expected['error']}", "" if dead else "a dead letter")
    for entry in expected.get("ignored", []):
        row = rows.get((sent.source, entry["event_id"]))
        why = row.reason if row else "not stored"
        # An event that several samples tell of counts as it was told first.
        right = why == entry["reason"] or why == "test_event"
        yield Line(*label, f"ignored: {why}", "" if right else entry["reason"])
    for entry in expected.get("payments", []):
        row = rows.get((sent.source, entry["event_id"]))
        likely = told[sent.sample.provider, entry["transaction_id"]]
        yield payment_line(sent, entry, row, records, likely)


def payment_line(
    sent: Sent, entry: dict[str, Any], row: AnyRow | None, records: Records, likely: set[str]
) -> Line:
    """A payment: what DataFast has of it; or why it rightly has nothing."""
    label, wire = (sent.source, sent.sample.name), entry["datafast"]
    wanted = f"{kind_of(wire)} {amount_of(wire)}"
    if row is None:
        return Line(*label, "not stored", wanted)
    if row.state is State.IGNORED:
        right = row.reason in ({"test_event"} if entry["test"] else _TOLD_BEFORE)
        return Line(*label, f"ignored: {row.reason}", "" if right else wanted)
    if wire["amount"] is None and row.reason.startswith("unknown_amount"):
        return Line(*label, "dead: its payment is not among the samples")
    refunded = "refunded" in wire
    under_its_own = records.get((entry["transaction_id"], refunded))
    record = under_its_own or records.get((entry["original_id"], refunded))
    if row.reason == "duplicate" and record is None:
        return Line(*label, "told by another source of the demo")
    if row.state is not State.DELIVERED or record is None:
        return Line(*label, f"{row.state.value}: {row.reason}", wanted)
    kind = {"payment": "new"}.get(record["kind"], record["kind"])
    told = f"{kind} {amount_of(record)}"
    # Where a charge stands in its subscription, the ledger decides from the other samples too.
    is_open = entry["recurrence"] in {"first", "renewal", "unknown"} and kind in _PLACES
    is_less = entry["kind"] == "reinstated" or wire["amount"] is None
    right = is_less or told in likely
    if is_open:
        right |= amount_of(record) in {it.partition(" ")[2] for it in likely}
    if "datafast_visitor_id" in wire:
        right &= record["attributed"]
    recorded_at = datetime.fromisoformat(record["recorded_at"])
    return Line(
        *label,
        told,
        "" if right else wanted,
        visitor="attributed" if record["attributed"] else "",
        milliseconds=max(0.0, (recorded_at - sent.acknowledged_at).total_seconds() * 1000),
    )


def kind_of(wire: dict[str, Any]) -> str:
    """What DataFast's reports will call a payment."""
    words = {"is_free_trial": "trial", "refunded": "refund", "renewal": "renewal"}
    return next((word for name, word in words.items() if wire.get(name)), "new")


# The samples of a provider tell of the same money more than once, as its events do.
_PLACES = {"new", "renewal"}
_TOLD_BEFORE = {"already_told", "already_taken_back", "nothing_to_reinstate"}

# Processes


@contextmanager
def process(home: Path, command: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `relay` process of its own, ended with SIGTERM; its log goes to a file."""
    with (home / f"{command}.log").open("wb") as log:
        started = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "relay", command, *arguments],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        try:
            yield started
        finally:
            started.send_signal(signal.SIGTERM)
            started.wait(30)


def wait_until_up(url: str, running: subprocess.Popen[bytes]) -> None:
    """Until the address answers 200. Raises RelayError(not_started)."""
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline and running.poll() is None:
        try:
            if requests.get(url, timeout=2).status_code == 200:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.02)
    raise RelayError("not_started", f"{url} did not come up within {START_WITHIN_S} s")


def free_port() -> int:
    """A loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_interrupt() -> None:
    """Until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
