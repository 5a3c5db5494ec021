"""The traps of Authorize.net."""

import hmac
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import simplejson

from relay import mapping, provider, samples
from relay.errors import FetchError, PayloadError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.samples import Sample
from relay.verify import with_header

HERE = Path(__file__).parent
LOADED = provider.load("authorize_net")
PAYMENT = "net.authorize.payment"


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{PAYMENT}.{name}.http")


def told(name: str, currency: str | None = "USD", /, **changes: Any) -> Payment | Ignored:
    """What a recorded event becomes, with its payload changed."""
    request = recorded(name).request
    body = simplejson.loads(request.body, use_decimal=True)
    body["payload"].update(changes)
    request = replace(request, body=simplejson.dumps(body, use_decimal=True).encode())
    (event,) = mapping.events(LOADED, request, LOADED.defaults())
    return mapping.payment(LOADED, event, currency)


def paid(found: Payment | Ignored) -> Payment:
    assert isinstance(found, Payment), found
    return found


def refused(sample: Sample, request: Received) -> bool:
    try:
        LOADED.signature.verify(request, sample.trust())
    except VerificationError:
        return True
    return False


def test_the_key_is_text_and_not_decoded_from_hex() -> None:
    sample = recorded("authcapture.created.published")
    key = bytes.fromhex(sample.secrets[0])
    digest = hmac.digest(key, sample.request.body, "sha512").hex().upper()
    assert refused(sample, with_header(sample.request, "X-ANET-Signature", f"sha512={digest}"))


def test_an_amount_spelled_otherwise_is_not_what_was_signed() -> None:
    sample = recorded("authcapture.created.published")
    body = sample.request.body.replace(b"1.10", b"1.1")
    assert refused(sample, replace(sample.request, body=body))


@pytest.mark.parametrize("code", [2, 3, 4, "4"])
@pytest.mark.parametrize("name", ["authcapture.created", "refund.created", "void.created"])
def test_only_what_was_approved_moved_money(name: str, code: int | str) -> None:
    assert told(name, responseCode=code) == Ignored("not_approved")


def test_a_held_payment_and_its_release_are_one_movement() -> None:
    assert told("authcapture.created.held") == Ignored("not_approved")
    released = paid(told("fraud.approved", responseCode=4))
    held = recorded("authcapture.created.held").request.body
    assert simplejson.loads(held)["payload"]["id"] == released.transaction_id


def test_a_void_takes_back_all_of_the_charge_whose_id_it_has() -> None:
    charge, void = paid(told("authcapture.created")), paid(told("void.created"))
    assert void.original_id == charge.transaction_id != void.transaction_id
    assert (void.kind, void.amount) == (Kind.REFUND, None)


def test_a_refund_is_told_with_its_own_id_since_its_payment_is_not_said() -> None:
    refund = paid(told("refund.created"))
    assert (refund.original_id, str(refund.amount)) == (None, "0.72")


def test_a_charge_is_left_to_the_ledger_since_nothing_says_whether_it_renews() -> None:
    assert paid(told("authcapture.created")).recurrence is Recurrence.UNKNOWN


def test_without_the_sources_currency_nothing_is_guessed() -> None:
    with pytest.raises(PayloadError) as failed:
        told("authcapture.created", None)
    assert failed.value.reason == "missing_currency"


def test_what_is_done_in_test_mode_has_no_id_and_is_not_told() -> None:
    for name in ("authcapture.created", "fraud.approved", "void.created"):
        assert told(name, id="0") == Ignored("test_mode")


def test_the_owners_own_reference_is_kept_for_identifying_the_visitor() -> None:
    assert paid(told("authcapture.created.reference")).reference == "order-1001"


class Answers:
    """An API that gives one answer, whatever is asked, and notes what was asked."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        raise AssertionError(path)

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        raise AssertionError(path)

    def ask(self, path: str, question: Mapping[str, Any]) -> Payload:
        self.asked.append((path, question))
        return Payload(self.answer)


def fetched(name: str, answers: Answers, **settings: str) -> Event:
    settings = LOADED.defaults() | settings
    (event,) = mapping.events(LOADED, recorded(name).request, settings)
    (found,) = mapping.complete(LOADED, event, answers)
    return found


KEY = {"api_login_id": "login", "transaction_key": "key"}


def test_the_transaction_is_asked_for_with_the_keys_in_the_order_that_the_api_wants() -> None:
    answers = Answers({"transaction": {}, "messages": {"resultCode": "Ok"}})
    fetched("authcapture.created", answers, **KEY)
    ((path, question),) = answers.asked
    assert path == "/xml/v1/request.api#60022194830"
    assert simplejson.dumps(question) == (
        '{"getTransactionDetailsRequest": {"merchantAuthentication": '
        '{"name": "login", "transactionKey": "key"}, "transId": "60022194830"}}'
    )


def test_an_answer_of_200_that_says_error_is_asked_for_again() -> None:
    messages = {"resultCode": "Error", "message": [{"code": "E00007", "text": "wrong key"}]}
    with pytest.raises(FetchError, match="E00007") as failed:
        fetched("authcapture.created", Answers({"messages": messages}), **KEY)
    assert not failed.value.permanent


@pytest.mark.parametrize(
    ("name", "settings"), [("authcapture.created", {}), ("authcapture.created.declined", KEY)]
)
def test_nothing_is_asked_without_a_key_or_of_what_was_not_approved(
    name: str, settings: dict[str, str]
) -> None:
    answers = Answers({})
    fetched(name, answers, **settings)
    assert not answers.asked


def test_a_payment_that_the_owner_renews_on_a_schedule_of_their_own_is_left_to_the_ledger() -> None:
    read = {"transaction": {"recurringBilling": True}, "messages": {"resultCode": "Ok"}}
    found = fetched("authcapture.created", Answers(read), **KEY)
    assert paid(mapping.payment(LOADED, found, "USD")).recurrence is Recurrence.UNKNOWN


def test_a_released_payment_that_was_only_authorized_waits_for_its_capture() -> None:
    read = {"transactionType": "authOnlyTransaction"}
    answers = Answers({"transaction": read, "messages": {"resultCode": "Ok"}})
    found = fetched("fraud.approved", answers, **KEY)
    assert mapping.payment(LOADED, found, "USD") == Ignored("not_paid")
