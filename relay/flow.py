"""The whole way of an event, in two functions.

accept()    in the provider's request: verify, parse, store. Ends when the event is on disk.
deliver()   in a worker: (fetch,) map, ledger, pace, forward, settle. Holds no transaction
            while it talks to anybody.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relay import fetch, ledger, mapping, refunds, settle
from relay.config import Destination, Source
from relay.errors import FetchError, PayloadError, RelayError, VerificationError
from relay.forward import Forwarder
from relay.mapping import UNREADABLE, Body
from relay.model import (
    Attempt,
    Decision,
    Delivery,
    Document,
    Event,
    Ignored,
    Lane,
    Payment,
    Received,
    Result,
    State,
    Trust,
)
from relay.payload import Payload
from relay.store import Arrival, Store


@dataclass(frozen=True)
class Accepted:
    """What became of one request: how many events it held, and how many were new."""

    events: int
    new: int
    dead: str | None = None


@dataclass(frozen=True)
class Step:
    """How far a delivery came; `kept` is False if another worker has it by now."""

    decision: Decision
    attempt: Attempt | None = None
    added: int = 0
    kept: bool = True


@dataclass(frozen=True)
class Expansion:
    """The events that one event turns out to be, and the API's answers that say so."""

    events: list[Event]
    documents: Sequence[Document] = ()


def accept(source: Source, request: Received, store: Store) -> Accepted:
    """Verify, parse, store. When this returns, the request is on disk.

    Raises VerificationError (nothing is stored) and StoreUnavailableError. A request that is
    genuine and cannot be read is stored as one dead event: it can be replayed after a fix.
    """
    verify(source, request)
    try:
        found, dead = mapping.events(source.provider, request, source.settings), None
    except PayloadError as error:
        digest = hashlib.sha256(request.body).hexdigest()
        dead = f"{error.reason}: {error.message}"
        found = [Event(f"{UNREADABLE}:{digest}", UNREADABLE, Payload(None))]
    new = store.add(Arrival(source.name, request, found, dead)) if found else 0
    return Accepted(len(found), new, dead)


def verify(source: Source, request: Received) -> None:
    """Prove that the request is the provider's. Raises VerificationError, whatever breaks."""
    try:
        source.provider.signature.verify(request, trust(source))
    except RelayError:
        raise
    except Exception as error:
        msg = f"the adapter's check broke ({type(error).__name__}); nothing is taken on trust"
        raise VerificationError("adapter_error", msg) from error


def trust(source: Source) -> Trust:
    """What the source's requests are checked with."""
    return Trust(source.secrets, source.tolerance, source.settings, fetch.download)


class Courier:
    """Takes claimed deliveries the rest of their way; one for all threads of a worker."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self.store = store
        self.now = clock
        self.forwarder = Forwarder()

    def deliver(self, delivery: Delivery, source: Source) -> Step:
        """One step further, whichever it is. What it came to, for the log."""
        if delivery.withdraws:
            return self.withdraw(delivery, source)
        return self.carry(delivery, source)

    def carry(self, delivery: Delivery, source: Source) -> Step:
        """Fetch, map, ledger, pace, forward, settle."""
        try:
            event = self.read(delivery, source)
            if isinstance(event, Expansion):
                return self.expand(delivery, event)
            meaning = mapping.payment(source.provider, event, source.currency)
            verdict = ledger.consider(self.store, source, delivery, meaning, self.now())
            payment, notes = verdict.result, verdict.notes
            if not isinstance(payment, Payment):
                return self.stop(delivery, payment, notes)
            id = refunds.posted_as(self.store, source, delivery, payment, self.now())
            if isinstance(id, Decision):
                return self.settle(delivery, id, notes=notes)
            body = mapping.body(payment, id)
            if payment.original_id and delivery.posted_as != id:
                self.store.posting(delivery, id)
        except PayloadError as error:
            return self.settle(delivery, Decision(State.DEAD, f"{error.reason}: {error.message}"))
        except FetchError as error:
            return self.settle(delivery, self.after(error, delivery))
        return self.forward(delivery, source, payment, body, notes)

    def read(self, delivery: Delivery, source: Source) -> Event | Expansion:
        """The delivery's event, complete; or the events that it turns out to be.

        Raises PayloadError and FetchError.
        """
        events = mapping.events(source.provider, delivery.request, source.settings)
        event = mapping.find(events, delivery.event_id)
        if event is None:
            known = self.store.documents(delivery.id)
            return self.recall(delivery, source, events, known) if known else Expansion(events)
        if source.provider.fetch is None:
            return event
        api = fetch.LiveApi(source.settings["api_base"])
        found = mapping.complete(source.provider, event, api)
        if [each.id for each in found] != [event.id]:
            return Expansion(found, api.documents)
        self.store.keep_documents(delivery, api.documents)
        return found[0]

    def recall(
        self, delivery: Delivery, source: Source, events: list[Event], known: list[Document]
    ) -> Event:
        """An event that came out of a fetch, once more out of what was fetched then."""
        for event in events:
            found = mapping.complete(source.provider, event, fetch.RecordedApi(known))
            child = mapping.find(found, delivery.event_id)
            if child is not None:
                return child
        msg = (
            "what the provider's API answered does not hold this event any more; replay its parent"
        )
        raise PayloadError("missing_event", "$", msg)

    def expand(self, delivery: Delivery, found: Expansion) -> Step:
        """The delivery was a hint, or unreadable once: its events go their own ways from here."""
        added = self.store.expand(delivery, found.events, found.documents, self.now())
        count = len(found.events)
        return self.settle(delivery, Decision(State.IGNORED, f"became_{count}_events"), added)

    def forward(
        self,
        delivery: Delivery,
        source: Source,
        payment: Payment,
        body: Body,
        notes: dict[str, Any],
    ) -> Step:
        """Pace, forward, settle."""
        destination = source.destination
        if not self.has_slot(delivery, destination):
            return Step(Decision(State.PENDING, "waits_for_slot"))
        started_at = self.now()
        id = body.fields["transaction_id"]
        outcome = self.forwarder.send(destination, body, started_at)
        ended_at = self.now()
        attempt = Attempt(started_at, ended_at - started_at, body.json, outcome)
        decision = settle.decide(outcome, delivery, ended_at, random.random())  # noqa: S311
        decision = refunds.reconsider(self.store, source, delivery, payment, body, decision)
        notes |= {
            "kind": payment.kind,
            "transaction_id": payment.transaction_id,
            "posted_as": id,
            "mark": "; ".join(f"{name} left out: {why}" for name, why in body.left_out.items())
            or None,
        }
        kept = self.store.settle(
            delivery, decision, ended_at, gate=destination.gate, attempt=attempt, notes=notes
        )
        return Step(decision, attempt, kept=kept)

    def withdraw(self, delivery: Delivery, source: Source) -> Step:
        """A repair first deletes what DataFast holds, and comes again to be judged and posted."""
        destination, id = source.destination, delivery.posted_as
        if id is None:
            again = Decision(State.PENDING, Result.WITHDRAWN, self.now(), Lane.LIVE, counts=False)
            return self.settle(delivery, again, notes={"withdraws": False})
        if not self.has_slot(delivery, destination):
            return Step(Decision(State.PENDING, "waits_for_slot"))
        started_at = self.now()
        outcome = self.forwarder.withdraw(destination, id, started_at)
        ended_at = self.now()
        attempt = Attempt(started_at, ended_at - started_at, f"DELETE {id}", outcome)
        decision = settle.decide(outcome, delivery, ended_at, random.random())  # noqa: S311
        notes: dict[str, Any] = {}
        if outcome.result is Result.WITHDRAWN:
            self.store.withdrawn(source.name, id, ended_at)
            notes = {"withdraws": False, "posted_as": None}
        gate = destination.gate
        kept = self.store.settle(
            delivery, decision, ended_at, gate=gate, attempt=attempt, notes=notes
        )
        return Step(decision, attempt, kept=kept)

    def has_slot(self, delivery: Delivery, destination: Destination) -> bool:
        """Whether it may go now; if not, it waits at the gate."""
        gate = destination.gate
        if delivery.has_slot or self.store.take_slot(gate, destination.rate_limit, self.now()):
            return True
        self.store.wait_for_slot(delivery, gate, self.now())
        return False

    def stop(self, delivery: Delivery, result: Ignored | Decision, notes: dict[str, Any]) -> Step:
        """It is nothing for DataFast; or waits, which the ledger has written down already."""
        if isinstance(result, Decision):
            return Step(result)
        return self.settle(delivery, Decision(State.IGNORED, result.reason), notes=notes)

    def settle(
        self,
        delivery: Delivery,
        decision: Decision,
        added: int = 0,
        notes: dict[str, Any] | None = None,
    ) -> Step:
        """Nothing was posted: write down why."""
        kept = self.store.settle(delivery, decision, self.now(), notes=notes)
        return Step(decision, added=added, kept=kept)

    def after(self, error: FetchError, delivery: Delivery) -> Decision:
        """The provider's API did not answer as it should."""
        if error.permanent:
            return Decision(State.DEAD, f"{error.reason}: {error.message}")
        return settle.retry(error.reason, delivery, self.now(), random.random())  # noqa: S311
