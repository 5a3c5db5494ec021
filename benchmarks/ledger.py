"""How long one judgement of the ledger takes, by how many payments it remembers."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Any

import processes
from sqlalchemy import create_engine, insert, text
from sqlalchemy.engine import Connection

from relay import ledger, provider
from relay.config import Destination, Source
from relay.model import Event, Headers, Kind, Lane, Payment, Received, Recurrence, State
from relay.payload import Payload
from relay.store import Arrival, Store, migrate
from relay.store.schema import events, metadata, movements, requests, tellings

BEGAN = datetime(2020, 1, 1, tzinfo=UTC)
SOURCE = Source(
    "shop", provider.load("razorpay"), Destination("site", "df_x"), ("x",), 300, "ignore",
    "refund", 0, None,
)  # fmt: skip
# Every subscription has had a charge a month for two years.
CHARGES = 24
_AT_ONCE = 20_000
_JUDGED = 200
# Beyond what the database itself gives out.
_FAR = 10**9


def times(database: str, remembered: int) -> tuple[float, float]:
    """Milliseconds for a renewal and for a refund, commit included, beside so many old charges."""
    migrate(database)
    engine = create_engine(database.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):  # what another measurement left there
            connection.execute(table.delete())
        connection.execute(insert(requests), _request())
        for first in range(1, remembered + 1, _AT_ONCE):
            _fill(connection, range(first, min(first + _AT_ONCE, remembered + 1)))
        connection.execute(text("ANALYZE"))  # as PostgreSQL does by itself in a minute or so
    engine.dispose()
    store = Store(database)
    try:
        return (
            _judged(store, [_renewal(n, remembered) for n in range(_JUDGED)]),
            _judged(store, [_refund(n, remembered) for n in range(_JUDGED)]),
        )
    finally:
        store.close()


def _judged(store: Store, payments: list[Payment]) -> float:
    took = []
    for payment in payments:
        request = Received(b"{}", Headers(), payment.occurred_at)
        event = Event(payment.transaction_id, "benchmark", Payload({}))
        store.add(Arrival(SOURCE.name, request, [event]))
        (delivery,) = store.claim(datetime.now(UTC), timedelta(hours=1), 1)
        begun = time.perf_counter()
        verdict = ledger.consider(store, SOURCE, delivery, payment, datetime.now(UTC))
        took.append(time.perf_counter() - begun)
        if not isinstance(verdict.result, Payment):
            raise TypeError(verdict)
    return median(took) * 1000


def _renewal(number: int, remembered: int) -> Payment:
    old = number * 7919 % remembered + 1
    return Payment(
        kind=Kind.CHARGE,
        transaction_id=f"new_{number}",
        amount=Decimal("29.99"),
        currency="EUR",
        occurred_at=datetime.now(UTC),
        recurrence=Recurrence.UNKNOWN,
        subscription_id=f"sub_{old // CHARGES}",
        customer_id=f"cus_{old // CHARGES}",
        email=f"customer{old // CHARGES}@example.com",
    )


def _refund(number: int, remembered: int) -> Payment:
    return replace(
        _renewal(number, remembered),
        kind=Kind.REFUND,
        transaction_id=f"refund_{number}",
        original_id=f"pay_{number * 7919 % remembered + 1}",
        recurrence=None,
        subscription_id=None,
    )


def _request() -> dict[str, Any]:
    return {
        "id": 1,
        "source": SOURCE.name,
        "received_at": BEGAN,
        "method": "POST",
        "url": "",
        "headers": [],
        "body": b"{}",
    }


def _fill(connection: Connection, numbers: range) -> None:
    connection.execute(insert(events), list(_events(numbers)))
    connection.execute(insert(tellings), list(_tellings(numbers)))
    connection.execute(insert(movements), list(_movements(numbers)))


def _moment(number: int) -> datetime:
    return BEGAN + timedelta(days=30 * (number % CHARGES), seconds=number // CHARGES)


def _events(numbers: range) -> Iterator[dict[str, Any]]:
    for number in numbers:
        yield {
            "id": _FAR + number,
            "request": 1,
            "source": SOURCE.name,
            "event_id": f"evt_{number}",
            "type": "paid",
            "received_at": _moment(number),
            "state": State.DELIVERED,
            "lane": Lane.LIVE,
            "first_due_at": _moment(number),
        }


def _tellings(numbers: range) -> Iterator[dict[str, Any]]:
    for number in numbers:
        owner = number // CHARGES
        yield {
            "event": _FAR + number,
            "site": "site",
            "source": SOURCE.name,
            "occurred_at": _moment(number),
            "kind": Kind.CHARGE,
            "transaction_id": f"pay_{number}",
            "recurrence": Recurrence.UNKNOWN,
            "subscription_id": f"sub_{owner}",
            "customer_id": f"cus_{owner}",
            "email": f"customer{owner}@example.com",
            "email_key": f"customer{owner}@example.com",
            "visitor_id": f"00000000-0000-4000-8000-{owner:012d}" if not number % CHARGES else None,
        }


def _movements(numbers: range) -> Iterator[dict[str, Any]]:
    for number in numbers:
        yield {
            "source": SOURCE.name,
            "site": "site",
            "kind": Kind.CHARGE,
            "transaction_id": f"pay_{number}",
            "event": _FAR + number,
            "amount": "29.99",
            "currency": "EUR",
            "occurred_at": _moment(number),
            "recurrence": Recurrence.RENEWAL,
            "visitor_id": f"00000000-0000-4000-8000-{number // CHARGES:012d}",
        }


if __name__ == "__main__":
    import sys
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        for count in map(int, sys.argv[1:] or ["1000", "1000000"]):
            print(count, times(processes.sqlite(Path(folder), f"ledger-{count}"), count))
