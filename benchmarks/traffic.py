"""What a provider sends: one recorded payment, under ever new ids, signed."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache

from client import http

from relay import fetch, mapping, provider, samples
from relay.model import Ignored, Trust
from relay.samples import Sample

PROVIDER = "razorpay"
SAMPLE = "payment.captured.card"
EVENT_ID = "x-razorpay-event-id"
PATH = f"/webhooks/{PROVIDER}"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Event:
    """One webhook on the wire, and the id under which DataFast will know its payment."""

    wire: bytes
    transaction_id: str


@cache
def sample() -> Sample:
    """The recorded request."""
    return next(it for it in samples.of(PROVIDER) if it.name == SAMPLE)


def secret() -> str:
    """What it is signed with."""
    return sample().secrets[0]


def repeated() -> Iterator[bytes]:
    """Without end: the same payment in ever new events. The id of an event is not signed."""
    mark = "event-id-goes-here"
    body, headers = _signed(sample().request.body)
    before, after = http(PATH, body, {**headers, EVENT_ID: mark}).split(mark.encode())
    while True:
        yield before + b"bench%d" % next(_numbers) + after


def payments(count: int) -> list[Event]:
    """Events that each tell of another payment."""
    return [_payment(f"pay_bench{next(_numbers)}") for _ in range(count)]


def posted(count: int) -> list[str]:
    """The bodies that the relay posts to DataFast for as many payments."""
    known = provider.load(PROVIDER)
    settings = known.defaults()
    (event,) = mapping.events(known, sample().request, settings)
    payment = mapping.payment(known, event)
    if isinstance(payment, Ignored):
        raise TypeError(payment.reason)
    return [mapping.body(payment, f"pay_bare{next(_numbers)}").json for _ in range(count)]


def _payment(transaction_id: str) -> Event:
    old = sample().expected["payments"][0]["transaction_id"]
    body, headers = _signed(sample().request.body.replace(old.encode(), transaction_id.encode()))
    wire = http(PATH, body, {**headers, EVENT_ID: f"event_{transaction_id}"})
    return Event(wire, transaction_id)


def _signed(body: bytes) -> tuple[bytes, dict[str, str]]:
    known = provider.load(PROVIDER)
    request = replace(sample().request, body=body, received_at=datetime.now(UTC))
    trust = Trust((secret(),), 300, known.defaults(), fetch.download)
    signed = known.signature.sign(request, trust)
    left_out = {"host", "content-length", EVENT_ID}
    return body, {name: value for name, value in signed.headers.pairs if name not in left_out}
