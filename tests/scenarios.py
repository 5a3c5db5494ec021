"""A language for lives of payments: a table of arrivals -> what DataFast must hold at the end.

    Scenario(
        "a trial, its conversion, a renewal",
        [
            trial("t1", "1 Mar", subscription="s1", visitor=ANN),
            charge("p1", "29.99 EUR", "15 Mar", subscription="s1"),
            charge("p2", "29.99 EUR", "15 Apr", subscription="s1"),
        ],
        [free_trial("t1", ANN), new("p1", "29.99 EUR", ANN), renewal("p2", "29.99 EUR", ANN)],
    )

The provider is made up, so that an arrival says in the relay's own terms what it means. A `Life` is
one relay before one sandbox: it lives a scenario through, in order or as the worst of days has it.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import requests
from flask import Flask
from helpers import LEASE, Clock
from requests.adapters import BaseAdapter
from sqlalchemy import event
from sqlalchemy.engine import Connection

from relay import flow, ledger
from relay.config import Config, Destination, Source
from relay.flow import Courier
from relay.model import (
    TAKES_BACK,
    About,
    Delivery,
    Event,
    Headers,
    Ignored,
    Kind,
    Payment,
    Received,
    Recurrence,
    State,
    Trust,
)
from relay.payload import Payload
from relay.provider import Provider, Setup
from relay.sandbox import Options, create_app
from relay.sandbox.state import EXTENSION, Sandbox
from relay.store import Filter, Store
from relay.store.schema import metadata
from relay.verify import BodyHmac

ANN = "a3ab2331-989f-4cfa-91c6-2461c9e3c6bd"
BOB = "b4bc3442-0a90-4dfb-82d7-3572dad4d7ce"
EVE = "e7ef6775-3dc3-4afe-95ea-6805edd7eadf"

# A made-up provider, whose events say in the relay's terms what they mean

_TIMES = ("occurred_at", "subscribed_at")
_SECRET = "till_secret"


def _parse(request: Received) -> list[Event]:
    body = Payload.json(request.body)
    return [Event(body.text("id"), body.text("type"), body.at("means"))]


def _means(told: Event) -> Payment | Ignored:
    said: dict[str, Any] = dict(told.data.value)
    for name in _TIMES:
        if said.get(name):
            said[name] = datetime.fromisoformat(said[name])
    if told.type == "seen":
        return Ignored("no_money_moved", **said)
    said["kind"] = Kind(told.type)
    if said["amount"] is not None:
        said["amount"] = Decimal(said["amount"])
    if said["recurrence"]:
        said["recurrence"] = Recurrence(said["recurrence"])
    return Payment(**said)


TILL = Provider(
    name="till",
    title="Till",
    docs="https://till.example/docs",
    about="",
    setup=Setup(where="", events=(), secret="", visitor="", checkout=""),
    signature=BodyHmac("till-signature"),
    parse=_parse,
    events={**dict.fromkeys(Kind, _means), "seen": _means},
)


# What arrives


@dataclass(frozen=True)
class Arrival:
    """One thing that arrives: an event of a source, or what the owner's own site says."""

    type: str
    name: str
    at: datetime
    arrives: datetime
    source: str
    said: Mapping[str, Any]

    @property
    def body(self) -> bytes:
        """As the provider sends it."""
        return json.dumps({"id": self.name, "type": self.type, "means": self.said}).encode()


def day(text: str) -> datetime:
    """`1 Mar`, `1 Mar 2025`, `1 Mar 10:30`; 2026 and noon where nothing else is said."""
    words = text.split()
    clock = words.pop() if ":" in words[-1] else "12:00"
    if len(words) == 2:
        words.append("2026")
    return datetime.strptime(f"{' '.join(words)} {clock} +0000", "%d %b %Y %H:%M %z").astimezone(
        UTC
    )


def money(text: str | None) -> tuple[str | None, str | None]:
    """`29.99 EUR`, as amount and currency; None is all that is left."""
    if text is None:
        return None, None
    amount, currency = text.split()
    return amount, currency


_ABOUT = {
    "subscription": "subscription_id",
    "since": "subscribed_at",
    "customer": "customer_id",
    "email": "email",
    "name": "name",
    "visitor": "visitor_id",
    "reference": "reference",
}


def _about(said: dict[str, Any]) -> dict[str, Any]:
    about = {_ABOUT[name]: value for name, value in said.items()}
    if about.get("subscribed_at"):
        about["subscribed_at"] = day(about["subscribed_at"]).isoformat()
    return about


def _moved(
    kind: Kind,
    id: str,
    paid: str | None,
    at: str,
    *,
    arrives: str | None = None,
    source: str = "till",
    by: str = "",
    recurrence: str | None = None,
    of: str | None = None,
    total: bool = False,
    test: bool = False,
    **about: Any,
) -> Arrival:
    amount, currency = money(paid)
    said = {
        **_about(about),
        "transaction_id": id,
        "amount": amount,
        "currency": currency,
        "occurred_at": day(at).isoformat(),
        "recurrence": recurrence,
        "original_id": of,
        "cumulative": total,
        "test": test,
    }
    name = ":".join([kind, id, *filter(None, [by])])
    return Arrival(kind, name, day(at), day(arrives or at), source, said)


def charge(id: str, paid: str, at: str, **rest: Any) -> Arrival:
    """A payment; with a subscription, the provider does not say whether it is the first."""
    unsaid = "unknown" if rest.get("subscription") else None
    return _moved(Kind.CHARGE, id, paid, at, **({"recurrence": unsaid} | rest))


def trial(id: str, at: str, **rest: Any) -> Arrival:
    """A trial begins."""
    return _moved(Kind.TRIAL, id, "0 EUR", at, **rest)


def refund(id: str, back: str | None, at: str, of: str | None, **rest: Any) -> Arrival:
    """Money goes back; all that is left, if `back` is None; all so far, with `total`."""
    return _moved(Kind.REFUND, id, back, at, of=of, **rest)


def dispute(id: str, back: str | None, at: str, of: str | None, **rest: Any) -> Arrival:
    """A chargeback."""
    return _moved(Kind.DISPUTE, id, back, at, of=of, **rest)


def returned(id: str, again: str | None, at: str, of: str, **rest: Any) -> Arrival:
    """A dispute that is won, a refund that failed."""
    return _moved(Kind.REINSTATED, id, again, at, of=of, **rest)


def seen(
    id: str,
    at: str,
    *,
    arrives: str | None = None,
    source: str = "till",
    transaction: str | None = None,
    test: bool = False,
    **about: Any,
) -> Arrival:
    """An event that moves no money, and knows something."""
    said = {
        **_about(about),
        "transaction_id": transaction,
        "occurred_at": day(at).isoformat(),
        "test": test,
    }
    return Arrival("seen", f"seen:{id}", day(at), day(arrives or at), source, said)


def identified(at: str, *, source: str = "till", **about: Any) -> Arrival:
    """The owner's own site says who that visitor is (`POST /identify`)."""
    return Arrival("identified", "", day(at), day(at), source, _about(about))


# What DataFast holds


@dataclass(frozen=True, order=True)
class Held:
    """One record at DataFast. A refund is known by its own id, whichever it was posted under."""

    kind: str
    id: str
    amount: Decimal
    currency: str
    visitor: str = ""
    email: str = ""
    name: str = ""
    customer: str = ""


def _held(kind: str) -> Callable[..., Held]:
    def held(id: str, paid: str = "0 EUR", visitor: str = "", **rest: str) -> Held:
        amount, currency = paid.split()
        return Held(kind, id, Decimal(amount), currency, visitor, **rest)

    return held


new = _held("payment")
renewal = _held("renewal")
taken = _held("refund")
free_trial = _held("trial")


@dataclass(frozen=True)
class Scenario:
    """A life: what arrives, and what DataFast must hold at the end.

    `sent` is what it holds before `relay repair` ran, where that makes a difference. `posted` is
    under which ids, where this is of interest. `alike` says what must be the same in any order: the
    "records", their "sums" per currency and kind, or the "net" per currency, with the reason why it
    cannot be more in `since`.
    """

    title: str
    arrivals: Sequence[Arrival]
    datafast: Sequence[Held]
    sent: Sequence[Held] | None = None
    posted: Sequence[str] | None = None
    sites: Mapping[str, str] = field(default_factory=lambda: {"till": "site"})
    first_day: str = "1 Jan"
    refunds: str = "auto"
    reading: str = "original_id"
    disputes: str = "refund"
    test_events: str = "ignore"
    match_email: bool = True
    hold_seconds: int = 600
    alike: str = "records"
    since: str = ""

    @property
    def slug(self) -> str:
        """For the test's name."""
        return self.title.replace(" ", "-")


# A life


class Crash(BaseException):
    """The process is gone, between two steps."""


class Steps:
    """Counts the steps of deliveries (each call of the store, each request), and ends some there.

    `crashes` are how many steps after the last one, and whether before or after the step itself.
    """

    def __init__(self) -> None:
        self.crashes: list[tuple[int, str]] = []
        self._taken = 0

    def die(self, *crashes: tuple[int, str]) -> None:
        """Die so many steps from now."""
        self.crashes, self._taken = list(crashes), 0

    def run(self, step: Callable[[], Any]) -> Any:
        """Take a step; die before or after it, if this is the one."""
        self._taken += 1
        if not self.crashes or self._taken < self.crashes[0][0]:
            return step()
        self._taken = 0
        _, when = self.crashes.pop(0)
        if when == "after":
            step()
        raise Crash


class Watched:
    """The store, each call a step."""

    def __init__(self, store: Store, steps: Steps) -> None:
        self._store = store
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return lambda *args, **named: self._steps.run(lambda: method(*args, **named))


class InProcess(BaseAdapter):
    """Asks the sandbox without a network, each request a step."""

    def __init__(self, app: Flask, steps: Steps) -> None:
        super().__init__()
        self._client = app.test_client()
        self._steps = steps

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        """One request."""
        answer = self._steps.run(
            lambda: self._client.open(
                request.url,
                method=request.method,
                data=request.body,
                headers=dict(request.headers),
            )
        )
        response = requests.Response()
        response.status_code = answer.status_code
        response.headers.update(answer.headers)
        response._content = answer.data
        response.request = request
        return response

    def close(self) -> None:
        """Nothing is open."""


def hurry(store: Store) -> None:
    """Nobody pulls the plug, so SQLite need not wait for its disk."""
    if store._writes.dialect.name == "sqlite":

        @event.listens_for(store._writes, "connect")
        def configure(connection: Any, _: object) -> None:
            connection.execute("PRAGMA synchronous=OFF")


class World:
    """One store and one sandbox, for one life after the other."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = Clock()
        self.app = create_app(Options(rate_limit=0), self.clock)
        self._numbers = itertools.count(1)

    @property
    def box(self) -> Sandbox:
        """The sandbox's inside."""
        return self.app.extensions[EXTENSION]

    def begin(self, scenario: Scenario) -> "Life":
        """A new life; nothing is left of the one before."""
        self.store._writer.one(self._forget)
        self.box.reset()
        self.box.options = replace(self.box.options, refunds=scenario.reading)
        return Life(scenario, self, next(self._numbers))

    def _forget(self, connection: Connection) -> None:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())

    def close(self) -> None:
        """End the sandbox."""
        self.box.records.close()


class Life:
    """One relay without its processes, before one sandbox."""

    def __init__(self, scenario: Scenario, world: World, number: int) -> None:
        self.scenario = scenario
        self.store = world.store
        self.clock = world.clock
        self.clock.now = day(scenario.first_day)
        self.box = world.box
        self.number = number
        self.config = self._config()
        self.box.change(sites={it.api_key: it.name for it in self.config.destinations.values()})
        self.steps = Steps()
        self.courier = Courier(Watched(world.store, self.steps), self.clock)
        self.courier.forwarder.session.mount("http://", InProcess(world.app, self.steps))
        self.gates = {it.gate: it.rate_limit for it in self.config.destinations.values()}
        self.store.open_gates(list(self.gates))
        for source in self.config.sources.values():  # since then the relay is there
            ping = Event("ping", "ping", Payload(None))
            request = self._signed(source, b'{"id": "ping", "type": "ping"}')
            assert TILL.parse(request)[0].id == ping.id
            flow.accept(source, request, self.store)
        self.deliver_all()

    def _config(self) -> Config:
        it = self.scenario
        sites = {
            name: Destination(
                name=f"{name}{self.number}",
                api_key=f"df_{name}",
                base_url="http://datafast.example",
                rate_limit=0,
                refunds=it.refunds,
                match_email=it.match_email,
            )
            for name in it.sites.values()
        }
        sources = {
            name: Source(
                name=f"{name}{self.number}",
                provider=TILL,
                destination=sites[site],
                secrets=(_SECRET,),
                tolerance=300,
                test_events=it.test_events,
                disputes=it.disputes,
                hold_seconds=it.hold_seconds,
                currency=None,
            )
            for name, site in it.sites.items()
        }
        own = {source.name: source for source in sources.values()}
        self.sources = sources
        return Config(None, None, "", "info", sites, own)  # type: ignore[arg-type]

    def _signed(self, source: Source, body: bytes) -> Received:
        request = Received(body, Headers(), self.clock())
        trust = Trust(source.secrets, 300, {}, lambda _: b"")
        return source.provider.signature.sign(request, trust)

    # In

    def arrive(self, arrival: Arrival) -> None:
        """It arrives now."""
        source = self.sources[arrival.source]
        if arrival.type != "identified":
            flow.accept(source, self._signed(source, arrival.body), self.store)
            return
        same = [it for it in self.sources.values() if it.destination == source.destination]
        about = About(**arrival.said)
        # The call comes when it comes: what was said at the checkout is said at the checkout.
        ledger.identified(self.store, source.destination.name, same, about, arrival.at)

    # Out

    def claim(self, limit: int) -> list[Delivery]:
        """What a worker would take up now."""
        return self.store.claim(self.clock(), LEASE, limit)

    def deliver(self, delivery: Delivery) -> bool:
        """One delivery; False if the worker died over it."""
        try:
            self.courier.deliver(delivery, self.config.sources[delivery.source])
        except Crash:
            return False
        return True

    def deliver_all(self) -> None:
        """Everything that is due now, until nothing is."""
        for _ in range(200):
            found = self.claim(5)
            if not found:
                return
            for each in found:
                self.deliver(each)
        raise AssertionError(f"it never ends: {self.told()}")

    def pass_until(self, moment: datetime | None = None) -> None:
        """Let time pass, until nothing waits any more if no moment is given."""
        for _ in range(500):
            self.deliver_all()
            due_at = self.store.first_due()
            if due_at is None or (moment is not None and due_at > moment):
                break
            self.clock.now = max(self.clock.now, due_at)
        else:
            raise AssertionError(f"it never ends: {self.told()}")
        if moment is not None:
            self.clock.now = max(self.clock.now, moment)

    def live(self) -> None:
        """The scenario in its order, up to the end of all waiting."""
        for arrival in sorted(self.scenario.arrivals, key=lambda it: it.arrives):
            self.pass_until(arrival.arrives)
            self.arrive(arrival)
        self.pass_until()

    def repair(self) -> int:
        """`relay repair`, until nothing is left to mend; how many were sent again."""
        count = 0
        for _ in range(20):
            marked = self.store.repairs()
            if not marked:
                return count
            count += len(marked)
            self.clock.pass_(minutes=1)
            self.store.repair([it.event for it in marked], self.clock())
            self.pass_until()
        raise AssertionError(f"there is always something to mend: {marked}")

    # What came of it

    def records(self) -> list[dict[str, Any]]:
        """All that DataFast holds."""
        return self.box.records.all()

    def rows(self) -> list[Any]:
        """All events."""
        return [it for it in self.store.listed(Filter()) if it.event_id != "ping"]

    def told(self) -> list[tuple[str, str, str]]:
        """Where every event stands."""
        return sorted((it.event_id, it.state.value, it.reason) for it in self.rows())

    def reason(self, name: str) -> str:
        """Why an event is where it is."""
        (found,) = [it for it in self.rows() if it.event_id == name]
        return found.reason

    def evidence(self, name: str) -> list[str]:
        """Why it was decided so, in words."""
        (found,) = [it for it in self.rows() if it.event_id == name]
        return [f"{it['what']}: {it['why']}" for it in found.evidence or []]

    def pairs(self) -> list[tuple[dict[str, Any], Held]]:
        """What DataFast holds, each refund by its own id, whichever it was posted under."""
        own = {
            (it.posted_as, it.kind in TAKES_BACK): it.transaction_id
            for it in self.rows()
            if it.state is State.DELIVERED
        }
        return [
            (
                it,
                Held(
                    it["kind"],
                    own.get((it["transaction_id"], bool(it["refunded"])), it["transaction_id"]),
                    Decimal(it["amount"]),
                    it["currency"],
                    it["datafast_visitor_id"] or "",
                    it["email"] or "",
                    it["name"] or "",
                    it["customer_id"] or "",
                ),
            )
            for it in self.records()
        ]

    def held(self) -> list[Held]:
        """What DataFast holds."""
        return sorted(held for _, held in self.pairs())

    def check(self) -> None:
        """What holds of every life: nothing twice, each with its own time, and real trials only."""
        pairs = self.pairs()
        twice = Counter((it["site"], it["transaction_id"], bool(it["refunded"])) for it, _ in pairs)
        assert [key for key, count in twice.items() if count > 1] == [], pairs
        moved = [it for it in self.scenario.arrivals if "amount" in it.said]
        times = {(it.said["transaction_id"], it.at) for it in moved}
        trials = {it.said["transaction_id"] for it in moved if it.type == "trial"}
        for record, held in pairs:
            assert (held.id, datetime.fromisoformat(record["timestamp"])) in times
            assert not record["is_free_trial"] or held.id in trials


def sums(held: Sequence[Held]) -> dict[tuple[str, str], Decimal]:
    """Exact sums per currency and kind."""
    found: dict[tuple[str, str], Decimal] = {}
    for it in held:
        key = (it.currency, it.kind)
        found[key] = found.get(key, Decimal(0)) + it.amount
    return found


def net(held: Sequence[Held]) -> dict[str, Decimal]:
    """What is earned per currency."""
    found: dict[str, Decimal] = {}
    for it in held:
        amount = -it.amount if it.kind == "refund" else it.amount
        found[it.currency] = found.get(it.currency, Decimal(0)) + amount
    return found
