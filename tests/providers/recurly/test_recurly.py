"""Recurly's traps."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay import fetch, mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.samples import Sample

HERE = Path(__file__).parent
RECURLY = provider.load("recurly")
KEY = {"api_key": "example-private-key"}
SIGNED = "payment.succeeded.first"

Edit = Callable[[dict[str, Any]], object]


class Listening(fetch.RecordedApi):
    """The recorded API, which also notes with what it was asked."""

    headers: Mapping[str, str] | None = None

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        self.headers = headers
        return super().get(path, headers)


def sample(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def becomes(name: str, kind: str = "", edit: Edit = lambda _: None) -> Payment | Ignored:
    """What the recorded event becomes after an edit of the API's answers about a `kind`."""
    recorded, documents = sample(name), []
    for document in recorded.documents:
        body = json.loads(document.body)
        if document.path and kind and document.path.startswith(f"/{kind}s/"):
            edit(body)
        documents.append(replace(document, body=json.dumps(body).encode()))
    (hint,) = mapping.events(RECURLY, recorded.request, RECURLY.defaults() | KEY)
    (event,) = mapping.complete(RECURLY, hint, fetch.RecordedApi(documents))
    return mapping.payment(RECURLY, event)


def paid(name: str, kind: str = "", edit: Edit = lambda _: None) -> Payment:
    found = becomes(name, kind, edit)
    assert isinstance(found, Payment)
    return found


def refused(request: Received) -> str:
    """Why a request is refused by the secret of the signed sample, or of the XML one."""
    trust = replace(
        sample(SIGNED).trust(), secrets=(*sample(SIGNED).secrets, "relay:example-password")
    )
    with pytest.raises(VerificationError) as error:
        RECURLY.signature.verify(request, trust)
    return error.value.reason


@pytest.mark.parametrize("at", [0, 40, -1])
def test_no_flipped_bit_of_a_signed_body_passes(at: int) -> None:
    request = sample(SIGNED).request
    body = bytearray(request.body)
    body[at] ^= 1
    assert refused(replace(request, body=bytes(body))) == "bad_signature"


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_signed_time_that_is_stale_or_ahead_is_refused(minutes: int) -> None:
    request = sample(SIGNED).request
    moved = request.received_at + timedelta(minutes=minutes)
    assert refused(replace(request, received_at=moved)) == "stale_timestamp"


def test_any_signature_counts_while_the_secret_is_rotated() -> None:
    recorded = sample(SIGNED)
    stamp, digest = (recorded.request.headers.get("recurly-signature") or "").split(",")

    def signed(text: str) -> Received:
        headers = recorded.request.headers.replaced(recurly_signature=text)
        return replace(recorded.request, headers=headers)

    RECURLY.signature.verify(signed(f"{stamp},{'0' * 64},{digest}"), recorded.trust())
    assert refused(signed(f"{stamp},{'0' * 64},{digest.upper()}")) == "bad_signature"
    assert refused(signed(f"{int(stamp) + 1},{digest}")) == "bad_signature"
    assert refused(signed(f"{stamp},")) == "bad_signature"
    assert refused(signed(stamp)) == "malformed_header"


def test_the_right_password_does_not_mend_a_wrong_signature() -> None:
    basic = sample("payment.succeeded.xml_test").request.headers.get("authorization") or ""
    request = sample(SIGNED).request
    both = request.headers.replaced(authorization=basic)
    assert refused(replace(request, headers=both, body=request.body + b" ")) == "bad_signature"


@pytest.mark.parametrize("secret", ["relay:", ":password", " key", "key\n"])
def test_a_secret_is_a_key_or_a_user_and_a_password(secret: str) -> None:
    assert RECURLY.signature.flaw(secret)
    assert RECURLY.signature.flaw("key") is RECURLY.signature.flaw("relay:password") is None


@pytest.mark.parametrize(
    "xml",
    [
        b"<successful_payment_notification>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a><account>&b;</account></a>',
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b"<a>\xff</a>",
    ],
)
def test_what_is_no_xml_is_unreadable_and_breaks_nothing(xml: bytes) -> None:
    request = replace(sample("payment.succeeded.xml_test").request, body=xml)
    with pytest.raises(PayloadError) as error:
        mapping.events(RECURLY, request, {})
    assert error.value.reason == "malformed_xml"


def test_an_empty_or_deep_notification_is_unknown() -> None:
    for xml in (b"<unknown_notification />", b"<unknown_notification>" + b"<a>" * 9 + b"</a>" * 9):
        whole = xml if xml.endswith(b"/>") else xml + b"</unknown_notification>"
        request = replace(sample("payment.succeeded.xml_test").request, body=whole)
        (event,) = mapping.events(RECURLY, request, {})
        assert mapping.payment(RECURLY, event) == Ignored("unknown_type")


def test_both_formats_tell_of_one_payment_under_one_id() -> None:
    xml = sample("payment.succeeded.xml_test").request
    uuid = "61d0c0de000000000000000000000007"
    body = sample(SIGNED).request.body.replace(b"61d0c0de000000000000000000000001", uuid.encode())
    ids = {
        mapping.events(RECURLY, request, {})[0].id
        for request in (xml, replace(sample(SIGNED).request, body=body))
    }
    assert ids == {f"payment.succeeded:{uuid}"}


def test_the_api_key_is_the_user_of_the_api() -> None:
    recorded = sample(SIGNED)
    api = Listening(recorded.documents)
    (hint,) = mapping.events(RECURLY, recorded.request, RECURLY.defaults() | KEY)
    mapping.complete(RECURLY, hint, api)
    assert api.headers
    key = base64.b64encode(b"example-private-key:").decode()
    assert api.headers["Authorization"] == f"Basic {key}"


def test_a_payment_that_is_void_by_now_was_paid_and_is_taken_back() -> None:
    charge = paid(SIGNED, "transaction", lambda it: it.update(status="void"))
    assert charge.kind is Kind.CHARGE
    void = paid("payment.voided.payment")
    assert (void.kind, void.original_id) == (Kind.REFUND, "61d0c0de000000000000000000000021")


def test_without_the_invoices_origin_the_subscriptions_age_or_the_ledger_decides() -> None:
    def no_origin(invoice: dict[str, Any]) -> None:
        invoice["origin"] = None

    assert paid(SIGNED, "invoice", no_origin).recurrence is Recurrence.FIRST
    found = paid("payment.succeeded.renewal", "invoice", no_origin)
    assert found.recurrence is Recurrence.UNKNOWN


def test_a_subscription_that_cannot_be_read_is_still_one() -> None:
    recorded = sample("payment.succeeded.renewal")
    documents = [it for it in recorded.documents if "/subscriptions/" not in (it.path or "")]
    (hint,) = mapping.events(RECURLY, recorded.request, RECURLY.defaults() | KEY)
    (event,) = mapping.complete(RECURLY, hint, fetch.RecordedApi(documents))
    found = mapping.payment(RECURLY, event)
    assert isinstance(found, Payment)
    assert (found.recurrence, found.subscription_id) == (Recurrence.RENEWAL, "ex4mpl3su001")


def test_the_subscriptions_visitor_comes_before_the_accounts() -> None:
    visitor_id = "00000000-0000-4000-8000-000000000001"
    field = {"name": "datafast_visitor_id", "value": visitor_id}
    found = paid(SIGNED, "subscription", lambda it: it["custom_fields"].append(field))
    assert found.visitor_id == visitor_id
