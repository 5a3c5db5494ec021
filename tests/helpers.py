"""What the tests send, and how they watch an event on its way, step by step at a time of their own."""

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import simplejson
from flask import Flask
from sqlalchemy import select

from relay import flow, provider
from relay.config import Config, Source
from relay.flow import Accepted, Courier, Step
from relay.model import Delivery, Event, Headers, Received, State, Trust
from relay.payload import Payload
from relay.sandbox.state import EXTENSION, Sandbox
from relay.store import Arrival, Filter, Store, schema

T = TypeVar("T")

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "whsec_razorpay_example"
KEY = "df_tests_own_key"
VISITOR = "a3ab2331-989f-4cfa-91c6-2461c9e3c6bd"
EMAIL = "ada@example.com"
LEASE = timedelta(seconds=60)

_numbers = itertools.count(1)


def poll(what: str, condition: Callable[[], T], within: float = 30) -> T:
    """What `condition` gives, as soon as it is anything; a failure when the time is up."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"within {within} s not: {what}")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **length: float) -> datetime:
        self.now += timedelta(**length)
        return self.now


# What a provider sends


def signed(type: str, payload: dict[str, Any], event_id: str, at: datetime) -> Received:
    """A webhook of Razorpay's, as it would sign it."""
    body = {"event": type, "created_at": int(at.timestamp()), "payload": payload}
    request = Received(
        body=simplejson.dumps(body).encode(),
        headers=Headers([("Content-Type", "application/json"), ("x-razorpay-event-id", event_id)]),
        received_at=at,
        url="https://relay.example.com/webhooks/shop",
    )
    trust = Trust((SECRET,), 300, {"test": False}, lambda _: b"")
    return provider.load("razorpay").signature.sign(request, trust)


def captured(
    id: str = "pay_1",
    *,
    event_id: str | None = None,
    type: str = "payment.captured",
    amount: int = 2999,
    at: datetime = NOON,
    visitor: str | None = None,
) -> Received:
    """A payment of 29.99 EUR, told by one of the events that tell of it."""
    entity = {
        "id": id,
        "amount": amount,
        "currency": "EUR",
        "status": "captured",
        "captured": True,
        "created_at": int(at.timestamp()),
        "email": EMAIL,
        "notes": {"datafast_visitor_id": visitor} if visitor else [],
    }
    payload: dict[str, Any] = {"payment": {"entity": entity}}
    if type == "subscription.charged":
        payload["subscription"] = {"entity": {"id": "sub_1", "paid_count": 2}}
    return signed(type, payload, event_id or f"{type}:{id}", at)


def refunded(
    id: str = "rfnd_1", of: str = "pay_1", *, amount: int = 2999, at: datetime = NOON
) -> Received:
    """A refund of one of those payments; in part, if `amount` is less."""
    entity = {
        "id": id,
        "payment_id": of,
        "amount": amount,
        "currency": "EUR",
        "created_at": int(at.timestamp()),
    }
    paid = {"id": of, "captured": True, "email": EMAIL}
    payload = {"refund": {"entity": entity}, "payment": {"entity": paid}}
    return signed("refund.processed", payload, f"refund.processed:{id}", at)


def disputed(id: str = "disp_1", of: str = "pay_1", *, at: datetime = NOON) -> Received:
    """A dispute that took the money back."""
    entity = {
        "id": id,
        "payment_id": of,
        "amount_deducted": 2999,
        "currency": "EUR",
        "created_at": int(at.timestamp()),
    }
    payload = {"dispute": {"entity": entity}, "payment": {"entity": {"id": of}}}
    return signed("payment.dispute.lost", payload, f"payment.dispute.lost:{id}", at)


# What is in the store


def arrival(
    *ids: str,
    at: datetime = NOON,
    source: str = "shop",
    reopens: bool = False,
    dead: str | None = None,
    body: bytes = b"{}",
) -> Arrival:
    """A request with events of these ids."""
    request = Received(body, Headers([("a", "b"), ("A", "c")]), at, "https://relay.example.com/")
    found = [Event(id, "paid", Payload({}), at, reopens) for id in ids]
    return Arrival(source, request, found, dead)


def fill(store: Store, count: int, at: datetime = NOON) -> list[str]:
    """Store `count` requests, one event each; their ids, in order."""
    ids = [f"evt_{next(_numbers):06}" for _ in range(count)]
    for index, id in enumerate(ids):
        store.add(arrival(id, at=at + timedelta(microseconds=index)))
    return ids


def row(store: Store, event_id: str) -> Any:
    """The row of an event."""
    (found,) = [it for it in store.listed(Filter()) if it.event_id == event_id]
    return found


def states(store: Store) -> dict[str, tuple[State, str]]:
    """Where every event stands, and why."""
    return {it.event_id: (it.state, it.reason) for it in store.listed(Filter())}


def seen(store: Store) -> dict[str, int]:
    """How often every event came."""
    return {it.event_id: it.seen for it in store.listed(Filter())}


def count(store: Store, table: str) -> int:
    """How many rows a table has."""
    return len(store.read(lambda it: it.execute(select(schema.metadata.tables[table])).all()))


def attempts(store: Store, event_id: str) -> list[Any]:
    """Every POST that was made for an event."""
    return store.shown(row(store, event_id).id)["attempts"]


def gate(store: Store, key: str) -> Any:
    """The row of a gate."""
    return store.read(
        lambda it: it.execute(select(schema.gates).where(schema.gates.c.key == key)).one()
    )


# On its way


class DataFast:
    """A running sandbox: where it is, what it holds, and what is to go wrong."""

    def __init__(self, app: Flask, url: str) -> None:
        self.app = app
        self.url = url

    @property
    def box(self) -> Sandbox:
        return self.app.extensions[EXTENSION]

    def records(self) -> list[dict[str, Any]]:
        return self.app.test_client().get("/sandbox/payments").json

    def ids(self) -> list[str]:
        return [it["transaction_id"] for it in self.records()]

    def posts(self) -> int:
        """How many requests were answered, or dropped."""
        return self.app.test_client().get("/sandbox/requests").json["total"]

    def put(self, control: str, **said: Any) -> None:
        answer = self.app.test_client().put(f"/sandbox/{control}", json=said)
        assert answer.status_code == 200, answer.text

    def fail(self, **fault: Any) -> None:
        self.put("faults", **fault)

    def mend(self) -> None:
        self.app.test_client().delete("/sandbox/faults")

    def know(self, *visitors: str) -> None:
        self.put("visitors", known=list(visitors))


class Way:
    """One relay without its processes: what a web process and a worker do, when a test says so."""

    def __init__(self, config: Config, store: Store, clock: Clock, source: str = "shop") -> None:
        self.config = config
        self.store = store
        self.clock = clock
        self.source_name = source
        self.courier = Courier(store, clock)
        self.gates = {it.gate: it.rate_limit for it in config.destinations.values()}
        store.open_gates(list(self.gates))

    @property
    def source(self) -> Source:
        return self.config.sources[self.source_name]

    @property
    def gate(self) -> str:
        return self.source.destination.gate

    def accept(self, request: Received) -> Accepted:
        return flow.accept(self.source, request, self.store)

    def claim(self, limit: int = 10, lease: timedelta = LEASE) -> list[Delivery]:
        """What a worker would take up now: what waits at its gate first, then what is unmapped."""
        for key, rate in self.gates.items():
            found = self.store.claim_ready(key, rate, self.clock(), lease)
            if found:
                return found
        return self.store.claim(self.clock(), lease, limit)

    def deliver(self, limit: int = 10) -> list[Step]:
        """Everything that is due now, once."""
        claimed = self.claim(limit)
        return [self.courier.deliver(it, self.config.sources[it.source]) for it in claimed]

    def deliver_all(self, rounds: int = 20) -> list[Step]:
        """Until nothing is due any more; time stands still meanwhile."""
        steps: list[Step] = []
        for _ in range(rounds):
            found = self.deliver()
            if not found:
                return steps
            steps += found
        raise AssertionError(f"still something due after {rounds} rounds: {steps[-1]}")

    def send(self, *requests: Received) -> list[Step]:
        """Accept and deliver."""
        for request in requests:
            self.accept(request)
        return self.deliver_all()

    def wait(self, event_id: str) -> None:
        """Let time pass until a pending event is due."""
        due_at = row(self.store, event_id).due_at
        assert due_at is not None, states(self.store)
        self.clock.now = max(self.clock.now, due_at)

    def until_settled(self, event_id: str, rounds: int = 60) -> Any:
        """Deliver and let time pass until the event is pending no more; its row."""
        for _ in range(rounds):
            self.deliver_all()
            found = row(self.store, event_id)
            if found.state is not State.PENDING:
                return found
            opens_at = self.store.gate_opens_at(self.gate) or self.clock()
            self.clock.now = max(self.clock.now, found.due_at, opens_at)
        raise AssertionError(f"still pending: {found}")
