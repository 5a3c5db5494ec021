"""Gumroad's traps, beside what `test_providers.py` asks of every provider."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from providers import gumroad
from relay import mapping, provider, samples
from relay.errors import FetchError, PayloadError, VerificationError
from relay.model import Event, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.samples import Sample

HERE = Path(__file__).parent
TOKEN = {"access_token": "example-access-token"}


class Answers:
    """An API that gives one sale, whatever is asked, and notes what was asked."""

    def __init__(self, **sale: Any) -> None:
        recorded = json.loads((HERE / "refund.partial.api.json").read_text())["sale"]
        self.sale = recorded | sale
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        self.asked.append((path, headers or {}))
        return Payload({"success": True, "sale": self.sale})

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        return self.get(path, headers)


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def changed(name: str, **fields: str | None) -> Received:
    """The recorded form with some of its fields set, or left out (None)."""
    request = recorded(name).request
    kept = [
        pair
        for pair in parse_qsl(request.body.decode(), keep_blank_values=True)
        if pair[0] not in fields
    ]
    kept += [(key, text) for key, text in fields.items() if text is not None]
    return replace(request, body=urlencode(kept).encode())


def event(request: Received, **settings: str) -> Event:
    loaded = provider.load("gumroad")
    return mapping.events(loaded, request, loaded.defaults() | settings)[0]


def fetched(request: Received, answers: Answers, **settings: str) -> Event:
    (found,) = mapping.complete(provider.load("gumroad"), event(request, **settings), answers)
    return found


def paid(found: Event) -> Payment:
    payment = gumroad.EVENTS[found.type](found)
    assert isinstance(payment, Payment)
    return payment


# Is it genuine?


@pytest.mark.parametrize("seller_id", ["Ex4mpl3S3ll3rId00001==", "", None, "é", "\x00"])
def test_a_ping_of_another_seller_or_of_none_is_refused_when_the_seller_is_set(
    seller_id: str | None,
) -> None:
    trust = recorded("sale.one-time").trust()
    assert trust.settings["seller_id"]
    with pytest.raises(VerificationError) as refused:
        gumroad.SIGNATURE.verify(changed("sale.one-time", seller_id=seller_id), trust)
    assert refused.value.reason == "wrong_seller"


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", b'{"seller_id": {}}', b"seller_id[a]=1"]
)
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_a_body_that_names_no_seller_is_refused_when_the_seller_is_set(
    body: bytes, content_type: str
) -> None:
    sample = recorded("sale.one-time")
    headers = sample.request.headers.replaced(content_type=content_type)
    with pytest.raises(VerificationError) as refused:
        gumroad.SIGNATURE.verify(
            replace(sample.request, body=body, headers=headers), sample.trust()
        )
    assert refused.value.reason == "wrong_seller"


def test_any_seller_is_accepted_when_none_is_set() -> None:
    trust = replace(recorded("sale.one-time").trust(), settings={})
    gumroad.SIGNATURE.verify(changed("sale.one-time", seller_id="another"), trust)


# Which event is it?


def test_a_retry_and_a_resource_subscription_tell_of_the_same_event_as_the_ping() -> None:
    ids = {
        event(changed("sale.one-time", **change)).id
        for change in ({}, {"resource_name": None}, {"retry_count": "2"})
    }
    assert ids == {"sale:Ex4mpl3-S4le_0001=="}


def test_a_test_ping_does_not_swallow_the_sale_that_it_repeats() -> None:
    test, real = event(recorded("sale.test-ping").request), event(recorded("sale.one-time").request)
    assert test.data.text("sale_id") == real.data.text("sale_id")
    assert test.id != real.id


def test_the_same_ping_of_a_partial_refund_is_looked_at_again_each_time() -> None:
    partial = event(recorded("refund.partial").request)
    assert partial.reopens
    assert not event(changed("refund.partial", refunded="true")).reopens


def test_a_full_refund_after_a_partial_one_is_an_event_of_its_own() -> None:
    partial = recorded("refund.partial").request
    assert event(changed("refund.partial", refunded="true")).id != event(partial).id


# Partial refunds


def test_the_sale_is_asked_for_by_its_encoded_id_and_with_the_token() -> None:
    answers = Answers()
    fetched(recorded("refund.partial").request, answers, **TOKEN)
    wanted = ("/v2/sales/Ex4mpl3-S4le_0002%3D%3D", {"Authorization": "Bearer example-access-token"})
    assert answers.asked == [wanted]


def test_an_id_cannot_lead_to_another_path_of_the_api() -> None:
    answers = Answers()
    fetched(changed("refund.partial", sale_id="../user?a=b#"), answers, **TOKEN)
    assert answers.asked[0][0] == "/v2/sales/..%2Fuser%3Fa%3Db%23"


def test_a_partial_refund_without_a_token_is_dead_and_says_what_to_set() -> None:
    with pytest.raises(FetchError, match="set access_token") as failed:
        fetched(recorded("refund.partial").request, Answers())
    assert failed.value.permanent


def test_each_further_partial_refund_is_a_movement_of_its_own_and_a_repetition_is_none() -> None:
    request = recorded("refund.partial").request
    found = [
        fetched(request, Answers(amount_refundable_in_currency=left), **TOKEN)
        for left in ("24", "24.00", "18.50")
    ]
    sale = "Ex4mpl3-S4le_0002=="
    assert [each.id for each in found] == [f"refund:{sale}:{sum}" for sum in (500, 500, 1050)]
    assert [paid(each).transaction_id for each in found] == [
        f"{sale}:refund:{sum}" for sum in (500, 500, 1050)
    ]
    assert not any(each.reopens for each in found)
    assert [str(paid(each).amount) for each in found] == ["5.00", "5.00", "10.50"]
    assert all(paid(each).cumulative for each in found), "each tells the sum of all so far"


def test_a_full_refund_tells_the_sum_as_well_since_partial_ones_may_have_gone_before() -> None:
    assert paid(event(recorded("refund.full").request)).cumulative
    assert not paid(event(recorded("dispute").request)).cumulative


def test_a_partial_refund_that_has_become_a_full_one_is_told_as_the_full_one() -> None:
    answers = Answers(refunded=True, partially_refunded=False, amount_refundable_in_currency="0")
    late = fetched(recorded("refund.partial").request, answers, **TOKEN)
    full = event(changed("refund.partial", refunded="true"))
    assert (late.id, paid(late)) == (full.id, paid(full))


def test_a_refund_that_the_api_does_not_know_yet_is_asked_for_again() -> None:
    answers = Answers(partially_refunded=False, amount_refundable_in_currency="29")
    with pytest.raises(FetchError) as failed:
        fetched(recorded("refund.partial").request, answers, **TOKEN)
    assert not failed.value.permanent


def test_separators_of_thousands_in_what_is_left_are_understood() -> None:
    answers = Answers(price=250_000, amount_refundable_in_currency="1,234.50")
    refund = paid(fetched(recorded("refund.partial").request, answers, **TOKEN))
    assert str(refund.amount) == "1265.50"


@pytest.mark.parametrize(("ping", "sale"), [("eur", "eur"), ("eur", None), ("usd", "eur")])
def test_a_partial_refund_in_another_currency_than_the_prices_is_never_guessed(
    ping: str, sale: str | None
) -> None:
    with pytest.raises(PayloadError) as failed:
        fetched(changed("refund.partial", currency=ping), Answers(currency=sale), **TOKEN)
    assert failed.value.reason == "unknown_refund_amount"


# Memberships


def test_a_membership_is_read_back_only_with_a_token() -> None:
    request, answers = recorded("sale.trial").request, Answers(free_trial_ends_on="Mar 8, 2026")
    assert paid(fetched(request, answers)).recurrence is Recurrence.FIRST
    assert not answers.asked


@pytest.mark.parametrize("name", ["sale.one-time", "refund.full", "dispute", "sale.test-ping"])
def test_what_is_complete_is_not_asked_for(name: str) -> None:
    answers = Answers()
    fetched(recorded(name).request, answers, **TOKEN)
    assert not answers.asked


@pytest.mark.parametrize(("recurring", "means"), [("true", "renewal"), (None, "first")])
def test_a_membership_without_a_trial_is_what_its_ping_says(
    recurring: str | None, means: str
) -> None:
    request = changed("sale.first", is_recurring_charge=recurring)
    assert paid(fetched(request, Answers(), **TOKEN)).recurrence == means


@pytest.mark.parametrize(
    ("ends_on", "paid_from"), [("Mar 8, 2026", "2026-03-08T00:00:00+00:00"), ("soon", None)]
)
def test_after_a_trial_the_paid_time_begins_when_the_trial_ends(
    ends_on: str, paid_from: str | None
) -> None:
    request = recorded("sale.after-trial").request
    found = paid(
        fetched(request, Answers(free_trial_ends_on=ends_on, recurring_charge=True), **TOKEN)
    )
    assert found.recurrence is Recurrence.UNKNOWN
    assert found.subscribed_at == (datetime.fromisoformat(paid_from) if paid_from else None)


# What it means


def test_a_dispute_that_is_won_by_now_was_opened_and_its_own_ping_gives_the_money_back() -> None:
    late = paid(event(changed("dispute", dispute_won="true")))
    won = paid(event(recorded("dispute_won").request))
    assert (late.kind, won.kind) == (Kind.DISPUTE, Kind.REINSTATED)
    assert (late.amount, late.original_id) == (won.amount, won.original_id)
    assert late.transaction_id != won.transaction_id


def test_refunds_and_disputes_happened_when_they_were_received() -> None:
    for name in ("refund.full", "dispute"):
        request = recorded(name).request
        assert paid(event(request)).occurred_at == request.received_at


def test_a_sale_that_has_no_time_is_not_told_at_the_time_of_receipt() -> None:
    with pytest.raises(PayloadError, match="sale_timestamp"):
        paid(event(changed("sale.one-time", sale_timestamp=None)))


def test_a_gift_is_paid_by_its_giver() -> None:
    gift = paid(event(recorded("sale.gift").request))
    assert (str(gift.amount), gift.email, gift.name) == ("29.00", "jordan@example.com", None)


def test_parameters_of_the_url_in_one_json_text_are_read_too() -> None:
    id = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"
    text = json.dumps({"datafast_visitor_id": id})
    old = changed("sale.one-time", **{"url_params[datafast_visitor_id]": None, "url_params": text})
    assert paid(event(old)).visitor_id == id
