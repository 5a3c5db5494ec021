"""Adyen's traps."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from providers import adyen
from relay import mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Ignored, Kind, Payment, Received, Recurrence
from relay.samples import Sample

HERE = Path(__file__).parent
FIELDS = (
    "pspReference",
    "originalReference",
    "merchantAccountCode",
    "merchantReference",
    "value",
    "currency",
    "eventCode",
    "success",
)

Edit = Callable[[dict[str, Any]], object]


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def edited(name: str, *edits: Edit, at: int = 0) -> Received:
    """The recorded request, with edits to the item `at`, and its old signature."""
    request = recorded(name).request
    body = json.loads(request.body)
    for edit in edits:
        edit(body["notificationItems"][at]["NotificationRequestItem"])
    return replace(request, body=json.dumps(body).encode())


def put(**fields: Any) -> Edit:
    return lambda item: item.update(fields)


def extra(**fields: Any) -> Edit:
    """Set fields of `additionalData`; None removes one."""

    def edit(item: dict[str, Any]) -> None:
        item["additionalData"].update(fields)
        item["additionalData"] = {k: v for k, v in item["additionalData"].items() if v is not None}

    return edit


def money(currency: str, value: int | str) -> Edit:
    return put(amount={"currency": currency, "value": value})


def verify(sample: Sample, request: Received, settings: dict[str, Any] | None = None) -> None:
    trust = sample.trust()
    adyen.SIGNATURE.verify(request, replace(trust, settings=settings or trust.settings))


def refusal(sample: Sample, request: Received, settings: dict[str, Any] | None = None) -> str:
    with pytest.raises(VerificationError) as refused:
        verify(sample, request, settings)
    return refused.value.reason


def mapped(request: Received, **settings: Any) -> Payment | Ignored:
    loaded = provider.load("adyen")
    event = mapping.events(loaded, request, loaded.defaults() | settings)[0]
    return mapping.payment(loaded, event)


def paid(request: Received, **settings: Any) -> Payment:
    found = mapped(request, **settings)
    assert isinstance(found, Payment)
    return found


# The signature


@pytest.mark.parametrize("at", [0, 1])
def test_one_bad_item_refuses_the_whole_request(at: int) -> None:
    name = "AUTHORISATION.renewal_and_partial_refund"
    forged = edited(name, money("EUR", 99), at=at)
    assert refusal(recorded(name), forged) == "bad_signature"


@pytest.mark.parametrize("field", FIELDS)
def test_each_of_the_eight_fields_is_signed(field: str) -> None:
    def edit(item: dict[str, Any]) -> None:
        holder = item["amount"] if field in item["amount"] else item
        holder[field] = "9"

    assert refusal(recorded("REFUND.full"), edited("REFUND.full", edit)) == "bad_signature"


def test_time_metadata_and_live_are_not_signed() -> None:
    """Not a wish: it is why the docstring and the set-up ask for HTTP Basic."""
    edits = put(eventDate="2026-03-02T10:00:00+01:00"), extra(shopperEmail="other@example.com")
    verify(recorded("AUTHORISATION.first"), edited("AUTHORISATION.first", *edits))


@pytest.mark.parametrize(
    "found", [[], None, {}, "x", [{}], [None], [{"NotificationRequestItem": 1}]]
)
def test_a_request_without_items_is_refused(found: object) -> None:
    sample = recorded("AUTHORISATION.first")
    body = json.dumps({"live": "true", "notificationItems": found}).encode()
    assert refusal(sample, replace(sample.request, body=body)) in {
        "malformed_body",
        "missing_header",
    }


@pytest.mark.parametrize("claimed", [None, "", " ", 1, True, [], "x" * 44, "é" * 44, "\ud800" * 44])
def test_an_item_without_a_good_signature_is_refused(claimed: object) -> None:
    name = "AUTHORISATION.first"
    refusal(recorded(name), edited(name, extra(hmacSignature=claimed)))
    refusal(recorded(name), edited(name, put(additionalData=claimed)))


def test_a_signature_with_white_space_around_it_is_refused() -> None:
    name = "AUTHORISATION.first"
    item = json.loads(recorded(name).request.body)["notificationItems"][0]
    claimed = item["NotificationRequestItem"]["additionalData"]["hmacSignature"]
    refusal(recorded(name), edited(name, extra(hmacSignature=claimed + " ")))


def test_a_genuine_text_cannot_be_cut_into_other_references() -> None:
    """Joined by colons, both items read alike, and the SDK accepts both; one is a second payment."""
    sample = recorded("AUTHORISATION.published_colon")
    request = edited(
        "AUTHORISATION.published_colon",
        put(
            pspReference="M8NB66SBZSGLNK82:",
            originalReference="AntoniStroinski",
            merchantAccountCode="",
            merchantReference="slashes are fun",
        ),
    )
    assert run_path(str(HERE / "oracle.py"))["accepts"](replace(sample, request=request))
    assert refusal(sample, request) == "malformed_body"


@pytest.mark.parametrize("value", [None, ""])
def test_a_reference_that_is_null_or_empty_is_signed_as_nothing(value: object) -> None:
    name = "AUTHORISATION.first"
    verify(recorded(name), edited(name, put(originalReference=value)))


@pytest.mark.parametrize("value", [True, 1.0, [], {}])
def test_a_signed_field_of_another_type_is_refused(value: object) -> None:
    name = "AUTHORISATION.first"
    assert refusal(recorded(name), edited(name, put(success=value))) == "malformed_body"


def test_the_key_is_hexadecimal() -> None:
    assert adyen.SIGNATURE.flaw("74f4900D") is None
    for secret in ("", "xyz", "74F", " 74F4", "74 F4", "é0"):
        assert adyen.SIGNATURE.flaw(secret)
        sample = replace(recorded("AUTHORISATION.first"), secrets=(secret,))
        assert refusal(sample, sample.request) == "unusable_secret"


def test_the_family_signed_in_a_header_is_signed_as_a_whole() -> None:
    sample = recorded("merchant.created.published")
    for at in (0, len(sample.request.body) // 2, len(sample.request.body) - 1):
        body = bytearray(sample.request.body)
        body[at] ^= 1
        refusal(sample, replace(sample.request, body=bytes(body)))


def test_a_signed_header_does_not_stand_in_for_the_items_signatures() -> None:
    name = "AUTHORISATION.first"
    unsigned = edited(name, extra(hmacSignature=None))
    header = {"HmacSignature": "A" * 43 + "="}
    unsigned = replace(unsigned, headers=unsigned.headers.replaced(**header))
    assert refusal(recorded(name), unsigned) == "missing_signature"


@pytest.mark.parametrize("given", [None, "", "Basic", "Basic e", "basic é", "Bearer x"])
def test_basic_authentication_is_asked_for_when_it_is_configured(given: str | None) -> None:
    sample = recorded("AUTHORISATION.first")
    request = sample.request
    if given is not None:
        request = replace(request, headers=request.headers.replaced(Authorization=given))
    settings = {"basic_user": "relay", "basic_password": "example-password"}
    assert refusal(sample, request, settings) == "bad_credentials"


def test_another_password_is_refused() -> None:
    sample = recorded("AUTHORISATION.basic_auth")
    settings = {"basic_user": "relay", "basic_password": "another"}
    assert refusal(sample, sample.request, settings) == "bad_credentials"
    assert refusal(sample, sample.request, {"basic_user": "relay"}) == "bad_credentials"


# The meaning


def test_an_authorisation_and_its_capture_are_one_payment() -> None:
    held = recorded("AUTHORISATION.first").request
    taken = recorded("CAPTURE.told_by_authorisation").request
    told = paid(held, charge_on="authorisation"), paid(taken, charge_on="capture")
    assert {each.transaction_id for each in told} == {"EXAMPLE100000002"}
    ignored = mapped(held, charge_on="capture")
    assert isinstance(ignored, Ignored)
    assert (ignored.reason, ignored.transaction_id) == ("told_by_CAPTURE", "EXAMPLE100000002")
    assert ignored.visitor_id == told[0].visitor_id, "a capture seldom has the metadata"
    assert mapped(taken, charge_on="authorisation") == Ignored("told_by_AUTHORISATION")


def test_a_trial_is_told_whichever_event_tells_of_payments() -> None:
    assert paid(recorded("AUTHORISATION.trial").request, charge_on="capture").kind is Kind.TRIAL


@pytest.mark.parametrize(
    ("interaction", "model", "expected"),
    [
        ("ContAuth", "Subscription", Recurrence.RENEWAL),
        ("ContAuth", "UnscheduledCardOnFile", Recurrence.RENEWAL),
        ("Ecommerce", "Subscription", Recurrence.FIRST),
        ("Moto", "Subscription", Recurrence.FIRST),
        (None, "Subscription", Recurrence.UNKNOWN),
        ("ContAuth", "CardOnFile", Recurrence.ONE_TIME),
        ("Ecommerce", "CardOnFile", Recurrence.ONE_TIME),
        (None, "CardOnFile", Recurrence.ONE_TIME),
        ("Ecommerce", None, Recurrence.ONE_TIME),
        ("ContAuth", None, Recurrence.UNKNOWN),
        (None, None, Recurrence.UNKNOWN),
    ],
)
def test_a_renewal_is_a_standing_charge_that_the_server_starts(
    interaction: str | None, model: str | None, expected: Recurrence
) -> None:
    edit = extra(shopperInteraction=interaction, recurringProcessingModel=model)
    assert paid(edited("AUTHORISATION.first", edit)).recurrence is expected


def test_a_customer_who_pays_once_has_no_subscription() -> None:
    charge = paid(edited("AUTHORISATION.first", extra(recurringProcessingModel="CardOnFile")))
    assert (charge.customer_id, charge.subscription_id) == ("cus_0001", None)


@pytest.mark.parametrize(
    ("currency", "value", "amount"),
    [
        ("CLP", 100_000, "1000"),
        ("CVE", 1_000, "1000"),
        ("IDR", 150_000, "150000"),
        ("ISK", 279_000, "2790"),
        ("JPY", 500, "500"),
        ("KWD", 1_500, "1.5"),
        ("EUR", "2420", "24.20"),
    ],
)
def test_four_currencies_do_not_follow_iso(currency: str, value: int | str, amount: str) -> None:
    assert paid(edited("AUTHORISATION.first", money(currency, value))).amount == Decimal(amount)


def test_money_that_is_taken_back_twice_in_one_dispute_returned_in_between() -> None:
    first = paid(edited("CHARGEBACK.won", extra(disputeStatus="Pending")))
    again = paid(recorded("CHARGEBACK_REVERSED").request)
    second = paid(recorded("SECOND_CHARGEBACK").request)
    told = [(it.kind, it.transaction_id) for it in (first, again, second)]
    assert told == [
        (Kind.DISPUTE, "EXAMPLE100000020"),
        (Kind.REINSTATED, "EXAMPLE100000020:won"),
        (Kind.DISPUTE, "EXAMPLE100000020:second"),
    ]
    assert {it.original_id for it in (first, again, second)} == {"EXAMPLE100000004"}


def test_a_refund_that_fails_later_returns_once_whatever_it_is_called() -> None:
    refund = paid(recorded("REFUND.full").request)
    failed = paid(recorded("REFUND_FAILED").request)
    reversed_ = paid(edited("REFUNDED_REVERSED", put(pspReference=refund.transaction_id)))
    assert failed.transaction_id == reversed_.transaction_id == "EXAMPLE100000013:returned"
    assert (failed.amount, failed.original_id) == (refund.amount, refund.original_id)


@pytest.mark.parametrize("name", ["CHARGEBACK_REVERSED", "REFUND_FAILED"])
def test_money_that_did_not_return_is_not_told(name: str) -> None:
    assert mapped(edited(name, put(success="false"))) == Ignored("no_money_moved")


def test_a_card_that_is_stored_is_remembered_for_the_charges_of_its_owner() -> None:
    stored = mapped(edited("AUTHORISATION.first", money("EUR", 0)))
    assert isinstance(stored, Ignored)
    assert (stored.reason, stored.customer_id) == ("zero_amount", "cus_0001")
    assert stored.visitor_id == "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"


def test_a_chargeback_without_a_status_takes_money_back() -> None:
    """Adyen leaves the status out in Brazil."""
    assert paid(edited("CHARGEBACK.lost", extra(disputeStatus=None))).kind is Kind.DISPUTE


def test_a_second_chargeback_that_names_no_payment_is_not_guessed() -> None:
    with pytest.raises(PayloadError) as error:
        mapped(edited("SECOND_CHARGEBACK", put(originalReference=None)))
    assert error.value.path == "$.notificationItems[0].NotificationRequestItem.originalReference"


def test_a_refund_that_names_no_payment_is_told_without_it() -> None:
    refund = paid(edited("REFUND_WITH_DATA", put(originalReference="")))
    assert (refund.kind, refund.original_id) == (Kind.REFUND, None)


def test_a_duplicate_with_another_time_has_the_same_id() -> None:
    loaded = provider.load("adyen")
    again = edited("REFUND.full", put(eventDate="2026-03-07T11:11:44+01:00"))
    ids = [loaded.parse(each)[0].id for each in (recorded("REFUND.full").request, again)]
    assert ids == ["REFUND:EXAMPLE100000013:true"] * 2


def test_a_payment_without_additional_data_is_still_told() -> None:
    charge = paid(edited("AUTHORISATION.first", put(additionalData=None)))
    assert (charge.visitor_id, charge.email, charge.name) == (None, None, None)


def test_an_order_reference_is_not_taken_for_a_visitor() -> None:
    reference = put(merchantReference="0b9f3a52-8c1d-4f0e-9a7b-3c2d1e0f4a5b", additionalData=None)
    assert paid(edited("AUTHORISATION.first", reference)).visitor_id is None


def test_a_request_that_does_not_say_whether_it_is_live_is_not_guessed() -> None:
    request = recorded("AUTHORISATION.first").request
    body = json.loads(request.body)
    del body["live"]
    with pytest.raises(PayloadError):
        mapped(replace(request, body=json.dumps(body).encode()))


def test_the_old_acknowledgement_is_given() -> None:
    assert provider.load("adyen").acknowledge().body == "[accepted]"
