"""The traps of Ko-fi."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
import simplejson

from relay import mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Event, Payment, Received, Recurrence
from relay.samples import Sample

HERE = Path(__file__).parent
LOADED = provider.load("kofi")
TOKEN = "3f0e6d1c-0000-4000-8000-0000000000aa"


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def changed(name: str, **changes: Any) -> Received:
    """The recorded request with some fields of the JSON in its form changed."""
    request = recorded(name).request
    data = simplejson.loads(parse_qs(request.body.decode())["data"][0]) | changes
    return replace(request, body=urlencode({"data": simplejson.dumps(data)}).encode())


def event(request: Received) -> Event:
    (found,) = mapping.events(LOADED, request, LOADED.defaults())
    return found


def paid(name: str, **changes: Any) -> Payment:
    found = mapping.payment(LOADED, event(changed(name, **changes)))
    assert isinstance(found, Payment), found
    return found


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "missing_token"),
        (None, "missing_token"),
        (True, "missing_token"),
        ([TOKEN], "missing_token"),
        (TOKEN.upper(), "bad_signature"),
        (f" {TOKEN} ", "bad_signature"),
        (TOKEN[:-1], "bad_signature"),
        ("é\ud800", "bad_signature"),
    ],
)
def test_only_the_very_token_is_accepted(token: object, reason: str) -> None:
    request = changed("Donation", verification_token=token)
    with pytest.raises(VerificationError) as refused:
        LOADED.signature.verify(request, recorded("Donation").trust())
    assert refused.value.reason == reason


def test_a_missing_token_is_not_the_secret_none() -> None:
    trust = replace(recorded("Donation").trust(), secrets=("None", "null"))
    with pytest.raises(VerificationError):
        LOADED.signature.verify(changed("Donation", verification_token=None), trust)


def test_of_two_notifications_in_one_body_the_one_that_is_read_is_checked() -> None:
    genuine = recorded("Donation").request
    forged = changed("Donation", verification_token="guessed", amount="9999.00")
    trust = recorded("Donation").trust()
    behind = replace(genuine, body=forged.body + b"&" + genuine.body)
    with pytest.raises(VerificationError):
        LOADED.signature.verify(behind, trust)
    before = replace(genuine, body=genuine.body + b"&" + forged.body)
    LOADED.signature.verify(before, trust)
    assert event(before).data.text("amount") == "3.00"


def test_every_field_of_the_json_may_be_broken() -> None:
    data = parse_qs(recorded("ShopOrder").request.body.decode())["data"][0]
    for key in simplejson.loads(data):
        for other in (None, [], {}, "", "x", -1, 10**40, True, 1.5, "\ud800", "\x00"):
            request = changed("ShopOrder", **{key: other})
            try:
                mapping.payment(LOADED, event(request))
            except PayloadError as error:
                assert error.reason != "adapter_error", (key, other)  # noqa: PT017


def test_a_letter_longer_than_any_text_loses_no_payment() -> None:
    assert paid("ShopOrder", shipping={"street_address": "x" * 30_000}).amount == Decimal("27.95")


def test_presses_of_the_test_button_are_told_apart_although_ko_fi_does_not() -> None:
    first, second = paid("Donation.test"), paid("Donation.test", message_id="another-message")
    assert first.test
    assert second.test
    assert first.transaction_id != second.transaction_id


def test_what_is_no_subscription_payment_is_neither_first_nor_a_renewal() -> None:
    odd = paid("Donation", is_subscription_payment=False, is_first_subscription_payment=True)
    assert odd.recurrence is Recurrence.ONE_TIME


def test_a_message_is_no_visitor_unless_it_is_an_id() -> None:
    assert paid("Donation", message="Thank you & keep going = great").visitor_id is None
    assert paid("Donation.visitor-in-the-message").visitor_id
