"""What a request would become, without a server, a secret or a store.

For `relay map`, and for the recorded requests of the tests: what is printed here is what they
must become.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from relay import fetch, mapping
from relay.errors import PayloadError
from relay.model import About, Document, Event, Ignored, Payment, Received
from relay.provider import Provider

# What the ledger reads besides, shown where there is any.
_SELDOM = ("subscribed_at", "reference", "cumulative")
_ABOUT = tuple(field.name for field in fields(About))

# Stands in for what only the ledger knows.
_ALL_THAT_IS_LEFT: dict[str, Any] = {"amount": Decimal(0), "currency": "XXX"}


def preview(
    provider: Provider,
    request: Received,
    *,
    settings: dict[str, Any] | None = None,
    documents: Sequence[Document] = (),
    currency: str | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """`{"payments": […], "ignored": […]}`. Raises PayloadError and FetchError.

    `documents` stand in for what the provider's API would answer. Nothing is remembered, so an
    unknown recurrence stays unknown, and a refund shows its own id.
    """
    found = mapping.events(provider, request, provider.defaults() | (settings or {}))
    api = fetch.RecordedApi(documents)
    result: dict[str, list[dict[str, Any]]] = {"payments": [], "ignored": []}
    for hint in found:
        for event in mapping.complete(provider, hint, api):
            payment = mapping.payment(provider, event, currency)
            if isinstance(payment, Ignored):
                told = _told(payment, "transaction_id", *_ABOUT)
                result["ignored"].append(_head(event) | {"reason": payment.reason} | told)
            else:
                result["payments"].append(_head(event) | _payment(payment))
    return result


def _head(event: Event) -> dict[str, Any]:
    return {"event_id": event.id, "event_type": event.type}


def _told(it: Payment | Ignored, *names: str) -> dict[str, Any]:
    """Those of the fields that say something, as JSON."""
    values = {name: getattr(it, name) for name in names if getattr(it, name)}
    return {
        name: mapping.iso(value) if isinstance(value, datetime) else value
        for name, value in values.items()
    }


def _payment(payment: Payment) -> dict[str, Any]:
    known = payment if payment.amount is not None else replace(payment, **_ALL_THAT_IS_LEFT)
    body = mapping.body(known)
    if known is not payment:
        body.fields.update(amount=None, currency=payment.currency)
    shown = {
        "kind": payment.kind.value,
        "recurrence": payment.recurrence.value if payment.recurrence else None,
        "transaction_id": payment.transaction_id,
        "original_id": payment.original_id,
        "subscription_id": payment.subscription_id,
        "test": payment.test,
        "datafast": body.fields,
    } | _told(payment, *_SELDOM)
    if body.left_out:
        shown["left_out"] = body.left_out
    return shown


def unreadable(error: PayloadError) -> dict[str, str]:
    """The shape in which a recorded request says that it cannot be mapped."""
    return {"error": error.reason, "path": error.path}
