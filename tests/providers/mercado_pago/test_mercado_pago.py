import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers import mercado_pago
from relay import fetch, mapping, provider, samples
from relay.errors import FetchError, VerificationError
from relay.model import Document, Event, Ignored, Kind, Payment, Received, Recurrence
from relay.samples import Sample

HOME = Path(__file__).parent
PROVIDER = provider.load("mercado_pago")
VISITOR = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"


def recorded(name: str) -> Sample:
    return samples.read(HOME / f"{name}.http")


def events(name: str, **changes: Any) -> list[Event]:
    """What the recorded request turns out to be, with `changes` in the API's first answer."""
    sample = recorded(name)
    settings = PROVIDER.defaults() | dict(sample.settings)
    documents = list(sample.documents)
    if documents:
        answer = json.loads(documents[0].body) | changes
        documents[0] = replace(documents[0], body=json.dumps(answer).encode())
    (hint,) = mapping.events(PROVIDER, sample.request, settings)
    return mapping.complete(PROVIDER, hint, fetch.RecordedApi(documents))


def become(name: str, **changes: Any) -> list[Payment | Ignored]:
    return [mapping.payment(PROVIDER, event) for event in events(name, **changes)]


def only(name: str, **changes: Any) -> Payment:
    (found,) = become(name, **changes)
    assert isinstance(found, Payment)
    return found


def refused(sample: Sample, request: Received) -> bool:
    try:
        mercado_pago.SIGNATURE.verify(request, sample.trust())
    except VerificationError:
        return True
    return False


# The signature


@pytest.mark.parametrize("name", sorted(path.stem for path in HOME.glob("*.http")))
def test_the_official_sdk_agrees_about_the_id_in_the_query(name: str) -> None:
    webhook = pytest.importorskip("mercadopago.webhook", reason="the SDK is not installed")
    sample = recorded(name)
    check = webhook.WebhookSignatureValidator.validate
    signature = sample.request.headers.get("x-signature")
    request_id = sample.request.headers.get("x-request-id")
    id = mercado_pago.signed_id(sample.request.url)
    check(signature, request_id, id, sample.secrets[0])
    with pytest.raises(webhook.InvalidWebhookSignatureError):
        check(signature, request_id, f"{id}0", sample.secrets[0])


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?type=payment",
        "?data.id=17014025135&type=payment",
        "?data.id=&type=payment",
        "?id=17014025134",
        # The text that is signed, with its parts in other places.
        "?data.id=17014025134;request-id:bb56a2f1-0000-4000-8000-000900000001",
        "?data.id=../17014025134",
        "?data.id=1&data.id=17014025134",
    ],
)
def test_what_the_query_does_not_say_is_refused(query: str) -> None:
    sample = recorded("payment.approved")
    url = f"https://relay.example.com/webhooks/mercado_pago{query}"
    assert refused(sample, replace(sample.request, url=url))


def test_the_id_may_be_signed_as_it_comes_or_in_lower_case() -> None:
    sample = recorded("order")
    shouted = replace(sample.request, url=sample.request.url.replace("ord01jq", "ORD01JQ"))
    assert not refused(sample, shouted)
    upper = mercado_pago.SIGNATURE.sign(shouted, sample.trust())
    assert not refused(sample, upper)
    assert refused(sample, replace(upper, url=sample.request.url))


def test_a_request_id_cannot_be_taken_away_or_changed() -> None:
    sample = recorded("payment.approved")
    headers = sample.request.headers
    assert refused(sample, replace(sample.request, headers=headers.replaced(x_request_id="")))
    assert refused(sample, replace(sample.request, headers=headers.replaced(x_request_id="other")))


@pytest.mark.parametrize("after", [timedelta(hours=6), timedelta(days=3)])
def test_a_late_retry_is_genuine(after: timedelta) -> None:
    sample = recorded("payment.approved")
    later = sample.request.received_at + after
    assert not refused(sample, replace(sample.request, received_at=later))


# What is fetched


def test_the_payment_that_is_read_is_the_one_that_was_signed_not_the_bodys() -> None:
    request = recorded("payment.approved").request
    forged = replace(request, body=request.body.replace(b"17014025134", b"99999999999"))
    (hint,) = mapping.events(PROVIDER, forged, PROVIDER.defaults())
    assert (hint.id, hint.reopens) == ("payment:17014025134", True)


def test_an_unknown_payment_of_the_simulator_is_a_test_and_any_other_an_error() -> None:
    assert become("payment.simulator") == [Ignored("test_notification")]
    request = recorded("payment.approved").request
    (hint,) = mapping.events(PROVIDER, request, PROVIDER.defaults() | {"api_key": "example"})
    with pytest.raises(FetchError):
        mapping.complete(PROVIDER, hint, fetch.RecordedApi([]))


def test_the_access_token_is_shown_to_the_api() -> None:
    class Listening(fetch.RecordedApi):
        def get(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
            assert headers == {"Authorization": "Bearer example-access-token"}
            return super().get(path, headers)

    sample = recorded("payment.refund-listed-apart")
    settings = PROVIDER.defaults() | dict(sample.settings)
    (hint,) = mapping.events(PROVIDER, sample.request, settings)
    documents: list[Document] = list(sample.documents)
    assert len(mercado_pago.fetch(hint, Listening(documents))) == 3


# Payments


@pytest.mark.parametrize("status", ["pending", "in_process", "authorized", "rejected", "cancelled"])
def test_a_date_of_approval_alone_pays_nothing(status: str) -> None:
    assert become("payment.approved", status=status) == [Ignored("not_paid")]


@pytest.mark.parametrize("status", ["approved", "refunded", "in_mediation"])
def test_what_was_paid_once_stays_one_whole_charge(status: str) -> None:
    found = only("payment.approved", status=status, status_detail="partially_refunded")
    assert (found.kind, found.amount) == (Kind.CHARGE, Decimal("12.34"))


@pytest.mark.parametrize(
    ("data", "recurrence"),
    [
        ({"subscription_sequence": {"number": 1}, "first_time_use": False}, Recurrence.FIRST),
        ({"first_time_use": True}, Recurrence.FIRST),
        ({"first_time_use": False}, Recurrence.RENEWAL),
        ({}, Recurrence.UNKNOWN),
    ],
)
def test_the_number_in_the_subscription_comes_first(
    data: dict[str, Any], recurrence: Recurrence
) -> None:
    point = {"transaction_data": data}
    found = only("payment.subscription-renewal", point_of_interaction=point)
    assert found.recurrence is recurrence


def test_money_that_a_seller_moves_is_no_sale() -> None:
    assert become("payment.approved", operation_type="account_fund") == [Ignored("not_a_sale")]


def test_a_bare_uuid_is_the_sites_own_reference() -> None:
    found = only("payment.approved", metadata={}, external_reference=VISITOR)
    assert (found.visitor_id, found.reference) == (None, VISITOR)


def test_money_that_comes_back_is_what_was_left_of_the_payment() -> None:
    part = {"id": 1, "amount": 0.34, "date_created": "2026-03-05T10:10:10.000-04:00"}
    charge, dispute, again, _ = become(
        "payment.reimbursed", transaction_amount_refunded=0.34, refunds=[part]
    )
    assert isinstance(charge, Payment)
    assert isinstance(dispute, Payment)
    assert isinstance(again, Payment)
    assert (dispute.amount, again.amount) == (None, Decimal("12.00"))
    assert dispute.original_id == again.original_id == charge.transaction_id


def test_a_trial_that_was_charged_is_over() -> None:
    (found,) = become("subscription.authorized.trial", summarized={"charged_quantity": 1})
    assert isinstance(found, Ignored)
    assert (found.reason, found.visitor_id) == ("trial_is_over", VISITOR)
