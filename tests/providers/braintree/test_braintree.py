"""Braintree's traps."""

import base64
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import pytest

from relay import mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Ignored, Kind, Payment, Received, Recurrence, Trust

HERE = Path(__file__).parent
BRAINTREE = provider.load("braintree")
KEYS = "integration_public_key:integration_private_key"
TRUST = Trust((KEYS,), 300, {}, lambda _: b"")


def form(request: Received) -> dict[str, str]:
    return {name: texts[0] for name, texts in parse_qs(request.body.decode()).items()}


def sent(name: str, **fields: str) -> Received:
    """The recorded request with other fields in its form."""
    request = samples.read(HERE / f"{name}.http").request
    return replace(request, body=urlencode({**form(request), **fields}).encode())


def becomes(name: str, old: str = "", new: str = "", currency: str = "USD") -> Payment | Ignored:
    """What the recorded notification becomes with `old` in its XML replaced by `new`."""
    xml = base64.b64decode(form(sent(name))["bt_payload"]).decode()
    assert old in xml
    payload = base64.encodebytes(xml.replace(old, new).encode()).decode()
    (event,) = mapping.events(BRAINTREE, sent(name, bt_payload=payload), BRAINTREE.defaults())
    return mapping.payment(BRAINTREE, event, currency)


def paid(name: str, old: str = "", new: str = "") -> Payment:
    found = becomes(name, old, new)
    assert isinstance(found, Payment)
    return found


def test_a_signature_among_those_of_other_keys_is_found() -> None:
    own = form(sent("check"))["bt_signature"]
    others = "&".join(f"other{number}|{'0' * 40}" for number in range(40))
    BRAINTREE.signature.verify(sent("check", bt_signature=f"{others}&{own}&junk"), TRUST)
    with pytest.raises(VerificationError):
        BRAINTREE.signature.verify(
            sent("check", bt_signature=own.replace("public", "PUBLIC")), TRUST
        )


def test_a_payload_that_lost_its_last_line_break_is_genuine() -> None:
    payload = form(sent("check"))["bt_payload"]
    BRAINTREE.signature.verify(sent("check", bt_payload=payload.rstrip("\n")), TRUST)
    with pytest.raises(VerificationError):
        BRAINTREE.signature.verify(sent("check", bt_payload=payload + "\n"), TRUST)


def test_the_check_of_the_url_is_answered_as_the_sdk_does() -> None:
    """The vector is in the unit tests of Braintree's own SDKs."""
    url = "https://relay.example.com/webhooks/shop?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53"
    asked = replace(sent("check"), method="GET", url=url)
    answer = BRAINTREE.challenge and BRAINTREE.challenge(asked, TRUST)
    assert answer
    assert answer.body == "integration_public_key|d9b899556c966b3f06945ec21311865d35df3ce4"


@pytest.mark.parametrize(
    "text", ["", "20f9f8ed", "20F9F8ED05F77439FE955C977E4C8A53", "PG5vdGlmaWNhdGlvbj4"]
)
def test_nothing_but_a_challenge_is_signed_for_whoever_asks(text: str) -> None:
    url = f"https://relay.example.com/webhooks/shop?bt_challenge={text}"
    assert BRAINTREE.challenge
    assert BRAINTREE.challenge(replace(sent("check"), method="GET", url=url), TRUST) is None


def test_the_answer_to_a_challenge_is_no_signature_of_a_notification() -> None:
    forged = {
        "bt_payload": "20f9f8ed05f77439fe955c977e4c8a53",
        "bt_signature": "integration_public_key|d9b899556c966b3f06945ec21311865d35df3ce4",
    }
    with pytest.raises(VerificationError):
        BRAINTREE.signature.verify(sent("check", **forged), TRUST)


@pytest.mark.parametrize(
    "xml",
    [
        "<notification><kind>check</kind>",
        "plain text that is long enough to be a payload",
        "<a>" * 3_000 + "</a>" * 3_000,
        '<!DOCTYPE a [<!ENTITY b "c">]><notification><kind>&b;</kind></notification>',
        '<?xml version="1.0" encoding="no-such"?><notification></notification>',
        "<notification><subject><kind>check</kind></subject></notification>",
    ],
)
def test_what_is_no_notification_is_unreadable_and_breaks_nothing(xml: str) -> None:
    payload = base64.encodebytes(xml.encode()).decode()
    with pytest.raises(PayloadError) as refused:
        mapping.events(BRAINTREE, sent("check", bt_payload=payload), {})
    assert refused.value.reason in {"malformed_xml", "missing_field", "wrong_type"}


def test_failed_attempts_and_refunds_are_no_earlier_charges() -> None:
    name = "subscription_charged_successfully.renewal"
    assert paid(name).transaction_id == "ex4mpl02"
    cycle = '<current-billing-cycle type="integer">2<', '<current-billing-cycle type="integer">1<'
    assert paid(name, *cycle).recurrence is Recurrence.RENEWAL
    first = "<id>ex4mpl01</id>\n          <status>"
    declined = paid(
        "subscription_charged_successfully.upgrade",
        f"{first}submitted_for_settlement",
        f"{first}processor_declined",
    )
    assert declined.recurrence is Recurrence.FIRST


def test_without_a_cycle_and_earlier_charges_the_ledger_decides() -> None:
    found = paid("subscription_charged_successfully.first", "current-billing-cycle", "other")
    assert found.recurrence is Recurrence.UNKNOWN


def test_what_the_customer_paid_counts_and_not_what_was_paid_out() -> None:
    found = paid("transaction_disbursed.card")
    assert (found.amount, found.currency) == (Decimal(500), "JPY")
    assert found.occurred_at == datetime(2026, 3, 2, 9, 0, 5, tzinfo=UTC)


def test_every_turn_of_a_chargeback_is_one_dispute_of_what_is_disputed() -> None:
    told = [paid(it) for it in ("dispute_opened.partial", "dispute_accepted", "dispute_expired")]
    assert {(it.kind, it.transaction_id, it.amount) for it in told} == {
        (Kind.DISPUTE, "ex4dis01", Decimal(20))
    }
    assert paid("dispute_won.partial").amount == Decimal(15)


def test_a_trial_counts_from_its_beginning_though_its_end_tells_it() -> None:
    begun, ended = paid("subscription_went_active.trial"), paid("subscription_trial_ended")
    assert (begun.transaction_id, begun.occurred_at) == (ended.transaction_id, ended.occurred_at)


def test_a_bank_debit_of_a_subscription_that_bounces_is_taken_back() -> None:
    new = "<subscription-id>ex4sub</subscription-id><amount>99.90"
    found = paid("transaction_settlement_declined.never_settled", "<amount>99.90", new)
    assert (found.kind, found.original_id) == (Kind.DISPUTE, "ex4ach02")
