"""The nouns, in the order in which an event meets them. All are frozen.

    Received -> Event -> Payment | Ignored -> Delivery -> Outcome -> Decision

Times are aware and in UTC. Amounts are exact decimals in major units (29.99 EUR, 500 JPY).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from relay.payload import Payload


class Headers:
    """The headers of one request: order and repetitions kept, names compared without case."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.pairs = tuple((name.lower(), value) for name, value in pairs)

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of `name`, in the order of arrival."""
        wanted = name.lower()
        return tuple(value for key, value in self.pairs if key == wanted)

    def get(self, name: str) -> str | None:
        """The first value of `name`, or None."""
        return next(iter(self.all(name)), None)

    def replaced(self, **headers: str) -> "Headers":
        """A copy in which each of `headers` (underscores are dashes) stands once."""
        new = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        kept = [(name, value) for name, value in self.pairs if name not in new]
        return Headers([*kept, *new.items()])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.pairs == other.pairs

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __repr__(self) -> str:
        # Names only: a signature or a token in a header must not reach a log through a repr.
        return f"Headers({', '.join(name for name, _ in self.pairs)})"


@dataclass(frozen=True, repr=False)
class Received:
    """One HTTP call as it arrived. `url` is the public one, as the provider was told it."""

    body: bytes
    headers: Headers
    received_at: datetime
    url: str = ""
    method: str = "POST"
    url_secret: str | None = None

    @property
    def content_type(self) -> str:
        """The media type in lower case, without its parameters."""
        return (self.headers.get("content-type") or "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class Event:
    """One thing that happened, with the provider's id and type.

    `data` is what the mapper reads. `reopens` marks a thin event whose every telling is the same
    bytes ("look at payment 7 again"): a repetition makes the stored one pending again, where any
    other repetition is a duplicate. `settings` are the source's, filled in by the relay.
    """

    id: str
    type: str
    data: Payload
    occurred_at: datetime | None = None
    reopens: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """One answer of a provider's API, as it came; `path` is None when nobody noted it."""

    path: str | None
    body: bytes
    fetched_at: datetime


class Kind(StrEnum):
    """What a movement of money is.

    REINSTATED is what was taken back and returns to the seller: a dispute won, a refund that failed.
    """

    CHARGE = "charge"
    REFUND = "refund"
    TRIAL = "trial"
    DISPUTE = "dispute"
    REINSTATED = "reinstated"


TAKES_BACK = frozenset({Kind.REFUND, Kind.DISPUTE})


class Recurrence(StrEnum):
    """Where a charge stands in its subscription; UNKNOWN leaves it to the ledger."""

    ONE_TIME = "one_time"
    FIRST = "first"
    RENEWAL = "renewal"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class About:
    """Whom an event is about, as the provider has it; None where the provider does not say.

    `subscribed_at` is when the subscription, or its paid time after a trial, began. `reference` is
    what the owner's site itself handed to the checkout (an order's or user's id).
    """

    subscription_id: str | None = None
    subscribed_at: datetime | None = None
    customer_id: str | None = None
    email: str | None = None
    name: str | None = None
    visitor_id: str | None = None
    reference: str | None = None


@dataclass(frozen=True, kw_only=True)
class Payment(About):
    """One movement of money, as the provider means it; the same shape for all providers.

    `transaction_id` is the id of this movement (a charge's, or the refund's own), never of a
    subscription, and the same for two events that tell of one movement. `original_id`, for money
    that is taken back or reinstated, is the `transaction_id` of the charge, None when the provider
    does not say. `amount` is never negative, in the currency the customer was charged; None, for
    money that is taken back, is all that is left of the original. `cumulative` says that it is all
    that was taken back of the original so far, not this movement alone.
    """

    kind: Kind
    transaction_id: str
    amount: Decimal | None
    currency: str | None
    occurred_at: datetime
    recurrence: Recurrence | None = None
    original_id: str | None = None
    cumulative: bool = False
    test: bool = False


@dataclass(frozen=True, kw_only=True)
class Ignored(About):
    """Nothing to tell DataFast, and why: a slug such as `no_money_moved`.

    What such an event knows of the customer is remembered for the payments that know less.
    """

    reason: str = field(kw_only=False)
    transaction_id: str | None = None
    occurred_at: datetime | None = None
    test: bool = False


@dataclass(frozen=True)
class Evidence:
    """Why something was decided: what it is (`renewal`), since what, and the event that showed it."""

    what: str
    why: str
    event: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For the event's row."""
        return {"what": str(self.what), "why": self.why, "event": self.event}


class Lane(StrEnum):
    """Why a pending delivery waits; also its rank, first to last."""

    LIVE = "live"
    RETRY = "retry"
    PARKED = "parked"
    REPLAY = "replay"


class State(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    IGNORED = "ignored"
    DEAD = "dead"


@dataclass(frozen=True)
class Delivery:
    """One event on its way to its destination, claimed by one worker until its lease ends.

    `attempt` counts the posts made so far; `failures` those that count against the schedule;
    `reason` is why it waited, `first_due_at` when its schedule began. `lease` proves that the claim is still ours;
    `interrupted` says that another worker had it and never came to an end with it; `withdraws`
    that what DataFast holds of it is deleted first; `posted_as` is the id it was posted under last.
    """

    id: int
    source: str
    event_id: str
    event_type: str
    request: Received
    attempt: int
    failures: int
    lane: Lane
    reason: str
    first_due_at: datetime
    lease: str
    has_slot: bool = False
    interrupted: bool = False
    withdraws: bool = False
    posted_as: str | None = None


class Result(StrEnum):
    """What one attempt came to, as read from the answer's body and status."""

    ATTRIBUTED = "attributed"
    RECORDED = "recorded"
    DUPLICATE = "duplicate"
    REFUNDED = "refunded"
    WITHDRAWN = "withdrawn"
    VISITOR_NOT_FOUND = "visitor_not_found"
    REJECTED = "rejected"
    UNAUTHORISED = "unauthorised"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Outcome:
    """One answered (or unanswered) POST. `status` is None when no answer came."""

    result: Result
    message: str
    status: int | None = None
    answer: str = ""
    retry_at: datetime | None = None


@dataclass(frozen=True)
class Attempt:
    """One POST for the history: what was sent, when, how long it took, what came back."""

    started_at: datetime
    duration: timedelta
    sent: str
    outcome: Outcome


@dataclass(frozen=True)
class Decision:
    """What becomes of a delivery. `again_at` is set when, and only when, it stays pending.

    `counts` says whether the attempt used up a step of the schedule; `closes_until` closes the
    whole destination for a while (a bad key, a limit, an outage).
    """

    state: State
    reason: str
    again_at: datetime | None = None
    lane: Lane = Lane.RETRY
    counts: bool = True
    closes_until: datetime | None = None


@dataclass(frozen=True)
class Reply:
    """What a provider wants to hear: the body of an acknowledgement, or a handshake's answer."""

    body: str = ""
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200


class Download(Protocol):
    """Gets a public document, such as a certificate, from an address that was checked before."""

    def __call__(self, url: str) -> bytes:
        """The document at `url`. Raises FetchError."""
        ...


@dataclass(frozen=True, repr=False)
class Trust:
    """All that is needed to tell whether a request is genuine, for one source.

    `secrets` are newest first and never empty; `tolerance` is in seconds, in both directions.
    """

    secrets: Sequence[str]
    tolerance: float
    settings: Mapping[str, Any]
    download: Download
