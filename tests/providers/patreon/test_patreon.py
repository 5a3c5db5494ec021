"""Patreon's traps, beside what `test_providers.py` asks of every provider."""

import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers import patreon
from relay import mapping, provider, samples
from relay.errors import FetchError, PayloadError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload

HERE = Path(__file__).parent
LOADED = provider.load("patreon")
KEY = {"api_key": "example-creator-token"}


class Refusing:
    """An API that a token may not read any more."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        self.asked.append(path)
        raise FetchError("fetch_401", "the provider's API answered 401")

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        raise NotImplementedError


def request(name: str, **attributes: Any) -> Received:
    """The recorded request, with some attributes of its member set."""
    recorded = samples.read(HERE / f"{name}.http").request
    body = json.loads(recorded.body)
    body["data"]["attributes"] |= attributes
    return replace(recorded, body=json.dumps(body).encode())


def event(name: str, settings: Mapping[str, Any] = {}, **attributes: Any) -> Event:
    all_settings = LOADED.defaults() | settings
    (found,) = mapping.events(LOADED, request(name, **attributes), all_settings)
    return found


def meaning(name: str, **attributes: Any) -> Payment | Ignored:
    return mapping.payment(LOADED, event(name, **attributes), "USD")


def payment(name: str, **attributes: Any) -> Payment:
    found = meaning(name, **attributes)
    assert isinstance(found, Payment)
    return found


def test_every_type_that_repeats_a_charge_tells_the_same_movement() -> None:
    first = payment("members.pledge.create.first")
    again = payment("members.update.renewal", last_charge_date="2026-02-01T06:26:19+01:00")
    assert first.transaction_id == again.transaction_id
    assert first.transaction_id != payment("members.update.renewal").transaction_id


def test_an_event_without_its_header_is_unreadable() -> None:
    recorded = samples.read(HERE / "members.update.renewal.http").request
    bare = replace(recorded, headers=recorded.headers.replaced(x_patreon_event=""))
    with pytest.raises(PayloadError, match="x-patreon-event"):
        mapping.events(LOADED, bare, {})


@pytest.mark.parametrize("status", ["Pending", "Declined", "Deleted", "Fraud", "Other", "New"])
def test_only_paid_is_paid(status: str) -> None:
    name = "members.update.renewal"
    assert meaning(name, last_charge_status=status) == Ignored("not_paid")


def test_a_charge_long_after_the_pledge_began_is_left_to_the_ledger() -> None:
    found = payment("members.pledge.create.first", last_charge_date="2026-02-08T05:26:19+00:00")
    assert found.recurrence is Recurrence.UNKNOWN
    assert found.subscribed_at is not None


def test_the_last_charge_of_an_earlier_pledge_is_not_told_at_the_new_pledges_price() -> None:
    found = meaning("members.update.renewal", pledge_relationship_start="2026-06-01T00:00:00+00:00")
    assert found == Ignored("charge_of_earlier_pledge")


def test_a_trial_of_who_once_paid_is_a_trial_and_its_first_charge_a_charge() -> None:
    name, again = "members.update.renewal", {"pledge_relationship_start": "2026-06-01T00:00:00Z"}
    assert payment(name, is_free_trial=True, **again).kind is Kind.TRIAL
    assert payment(name, last_charge_status="Free Trial").kind is Kind.TRIAL
    assert payment(name, is_free_trial=True).kind is Kind.CHARGE


def test_without_a_key_the_pledge_needs_the_sources_currency() -> None:
    with pytest.raises(PayloadError, match="currency"):
        mapping.payment(LOADED, event("members.update.renewal"))


def test_a_history_without_this_charge_leaves_the_pledge() -> None:
    name = "members.update.upgrade.fetched"
    sample = samples.read(HERE / f"{name}.http")
    history = Payload.json(sample.documents[0].body).value
    for date, amount in (("2026-03-15T10:00:04Z", Decimal("4.5")), ("2026-05-01T00:00:00Z", 10)):
        told = event(name, KEY, last_charge_date=date)
        told = replace(told, data=Payload(told.data.value | {"pledge_history": history}))
        found = mapping.payment(LOADED, told, "USD")
        assert isinstance(found, Payment)
        assert found.amount == amount


def test_an_expired_token_is_waited_for_instead_of_guessing() -> None:
    api = Refusing()
    with pytest.raises(FetchError):
        mapping.complete(LOADED, event("members.update.renewal", KEY), api)
    assert api.asked[0].startswith("/members/5e0a7d10-0000-4000-8000-000000000001?")


@pytest.mark.parametrize(
    "name",
    ["members.update.trial", "members.update.declined", "members.pledge.create.test_button"],
)
def test_nothing_is_asked_where_no_money_moved(name: str) -> None:
    api, told = Refusing(), event(name, KEY)
    assert patreon.fetch(told, api) == [told]
    assert not api.asked
