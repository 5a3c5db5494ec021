"""What a request would become, without a server, a secret or a store.

For `relay map`, and for the recorded requests of the tests: what is printed here is what they
must become.
"""

from collections.abc import Sequence
from typing import Any

from relay import fetch, mapping
from relay.errors import PayloadError
from relay.model import Document, Event, Ignored, Payment, Received
from relay.provider import Provider


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
                result["ignored"].append(_head(event) | {"reason": payment.reason})
            else:
                result["payments"].append(_head(event) | _payment(payment))
    return result


def _head(event: Event) -> dict[str, Any]:
    return {"event_id": event.id, "event_type": event.type}


def _payment(payment: Payment) -> dict[str, Any]:
    body = mapping.body(payment)
    shown = {
        "kind": payment.kind.value,
        "recurrence": payment.recurrence.value if payment.recurrence else None,
        "transaction_id": payment.transaction_id,
        "original_id": payment.original_id,
        "subscription_id": payment.subscription_id,
        "test": payment.test,
        "datafast": body.fields,
    }
    if body.left_out:
        shown["left_out"] = body.left_out
    return shown


def unreadable(error: PayloadError) -> dict[str, str]:
    """The shape in which a recorded request says that it cannot be mapped."""
    return {"error": error.reason, "path": error.path}
