"""BTCPay Server's traps."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay import fetch, mapping, provider, samples
from relay.errors import PayloadError
from relay.model import Document, Event, Ignored, Payment, Recurrence
from relay.payload import Payload

HERE = Path(__file__).parent
BTCPAY = provider.load("btcpayserver")

Edit = Callable[[dict[str, Any]], object]


class Asked:
    """An API that notes what it is asked, and answers with one invoice."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, str] | None]] = []

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        self.asked.append((path, headers))
        return Payload({"status": "Settled"})

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        return self.get(path, headers)


def told(name: str, edit: Edit = lambda _: None) -> Event:
    """The recorded event, with its body edited."""
    sample = samples.read(HERE / f"{name}.http")
    body = json.loads(sample.request.body)
    edit(body)
    request = replace(sample.request, body=json.dumps(body).encode())
    (event,) = mapping.events(BTCPAY, request, BTCPAY.defaults() | dict(sample.settings))
    return event


def become(name: str, edit: Edit = lambda _: None, **invoice: Any) -> Payment | Ignored:
    """What the recorded event means when its invoice differs."""
    sample = samples.read(HERE / f"{name}.http")
    documents = [
        Document(it.path, json.dumps(json.loads(it.body) | invoice).encode(), it.fetched_at)
        for it in sample.documents
    ]
    (event,) = mapping.complete(BTCPAY, told(name, edit), fetch.RecordedApi(documents))
    return mapping.payment(BTCPAY, event)


def paid(name: str, edit: Edit = lambda _: None, **invoice: Any) -> Payment:
    found = become(name, edit, **invoice)
    assert isinstance(found, Payment)
    return found


def test_a_delivery_sent_again_is_the_same_event() -> None:
    first, again = told("InvoiceSettled.visitor"), told("InvoiceSettled.redelivery")
    assert first.data.text("deliveryId") != again.data.text("deliveryId")
    assert first.id == again.id


def test_only_settled_invoices_are_asked_for_with_the_servers_own_kind_of_token() -> None:
    api = Asked()
    for name in ("InvoiceProcessing", "SubscriberCharged", "InvoiceSettled.test_button"):
        assert mapping.complete(BTCPAY, told(name), api)
    assert not api.asked
    mapping.complete(BTCPAY, told("InvoiceSettled.visitor"), api)
    ((path, headers),) = api.asked
    assert path.endswith("/invoices/Ex4mpl3Invoice00000001")
    assert headers == {"Authorization": "token example-greenfield-key"}


def test_an_id_cannot_lead_the_key_to_another_address() -> None:
    api = Asked()
    event = told("InvoiceSettled.visitor", lambda body: body.update(invoiceId="../../users/me?"))
    mapping.complete(BTCPAY, event, api)
    assert api.asked[0][0].endswith("/invoices/..%2F..%2Fusers%2Fme%3F")


def test_what_was_converted_from_coins_does_not_stand_for_the_price() -> None:
    assert paid("InvoiceSettled.visitor", paidAmount="24.2003914").amount == Decimal("24.20")
    assert paid("InvoiceSettled.by_hand").amount == Decimal("15.5")


def test_more_than_the_price_counts_in_the_currencys_own_unit() -> None:
    name = "InvoiceSettled.overpaid"
    assert paid(name).amount == 2600
    assert paid(name, currency="EUR", paidAmount="30.12699").amount == Decimal("30.13")
    assert paid(name, paidAmount=None).amount == 2500


@pytest.mark.parametrize("code", ["BTC", "SATS", "XBT"])
def test_a_price_in_coins_is_shown_to_the_owner_and_not_sent(code: str) -> None:
    with pytest.raises(PayloadError, match="currency"):
        become("InvoiceSettled.visitor", currency=code)


def test_an_existing_subscribers_invoice_is_not_taken_for_a_first_one() -> None:
    name = "InvoiceSettled.new_subscriber"
    without = paid(name, lambda body: body["metadata"].pop("offeringId"))
    assert paid(name).recurrence is Recurrence.FIRST
    assert without.recurrence is Recurrence.ONE_TIME


def test_metadata_that_the_webhook_leaves_out_is_read_from_the_invoice() -> None:
    found = paid("InvoiceSettled.visitor", lambda body: body.update(metadata={}))
    assert (found.email, found.reference) == ("jordan@example.com", "1001")
    assert found.visitor_id == "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"
