"""Patreon.

Quirks (there is no published vector of a signature, and the official SDK checks none):
- The signature is an HMAC-MD5 of the body. The event's type stands only in a header that is not
  signed, so every mapped type is read in the same way: by what the body says of the last charge.
- Nothing has an id of its own. A charge is known by its member and `last_charge_date`, an event by
  the digest of its type and body. A member is sent again at every change, with the same charge.
- The body says what the member pledges now (or what a pledge per creation is worth), in the
  campaign's currency, and that currency only in bodies of old API clients. What was charged, in the
  patron's own currency, is read from `pledge_history` if there is an `api_key`; else the pledge
  stands in, in the source's `currency`: inexact after an upgrade, or for who pays in another one.
- An entry of the history names no charge: the nearest in time that was paid is taken, a day off at
  most (uncertain: whether both times are equal). If there is none, the pledge stands in.
- A charge within an hour of the pledge's start is its first. Later ones are left to the ledger:
  campaigns that do not charge at once charge at the month's end, and trials at theirs.
- A last charge from before the pledge's start belongs to an earlier pledge: it was told then.
- A refund has no time and no amount: it is told at receipt, as all of the charge. How much a partial
  refund was is said nowhere for sure (the history's `amount_cents` may be the charge's), so such an
  event is dead with `unknown_refund_amount`, to be seen by its owner.
- Who gives a membership as a gift is not told of. A charge that turns `Fraud` is ignored.
- The test button sends an invented member whose `id` is null; a real one has an id.
- Uncertain: the decimals of `…_cents` in yen; they are read as ISO 4217 has them.
"""

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from relay import money
from relay.errors import PayloadError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import BodyHmac

TITLE = "Patreon"
DOCS = "https://docs.patreon.com/#webhooks"

SETUP = Setup(
    where="patreon.com/portal/registration/register-webhooks: paste the URL, press the plus sign, "
    "then add the triggers. A webhook that fails for weeks is paused there; switch it on again and "
    "it sends what has waited.",
    events=("members:create", "members:update", "members:pledge:create"),
    secret="The webhook's secret, on the same page beside the webhook.",
    visitor="It cannot: the checkout takes nothing from your site. The relay looks for the visitor of "
    "another payment with the same e-mail address.",
    checkout="""\
<!-- nothing to add to the link; count the clicks in DataFast, at least -->
<a href="https://www.patreon.com/YOURPAGE" data-fast-goal="patreon_click">Become a patron</a>""",
    notes="Set `api_key` for exact amounts and currencies: make a client at "
    "patreon.com/portal/registration/register-clients and copy its Creator's Access Token; when it "
    "expires, events wait until there is a new one. Without it, set `currency` to your campaign's.",
)

SETTINGS = (
    Setting("api_key", "the Creator's Access Token: reads what was really charged", secret=True),
    Setting("api_base", "where the API is", default="https://www.patreon.com/api/oauth2/v2"),
)

# https://docs.patreon.com/#webhooks
SIGNATURE = BodyHmac("X-Patreon-Signature", algorithm="md5")

_TYPE = "x-patreon-event"
_READ = "pledge_history"
_HISTORY = (
    "?include=pledge_history"
    "&fields%5Bpledge-event%5D=amount_cents,currency_code,date,payment_status,type"
)
_REFUNDED = frozenset({"Refunded", "Refunded by Patreon"})
# A charge may be refunded by the time it is asked for. The status of a first one can be missing.
_WHOLE = _REFUNDED | {"Paid", None}
_AT_ONCE, _SAME_CHARGE = timedelta(hours=1), timedelta(days=1)


def parse(request: Received) -> list[Event]:
    """One event a request: a member as it is now. Its time is that of receipt."""
    body = Payload.json(request.body).object()
    type = Payload(request.headers.get(_TYPE), f"$[{_TYPE}]").text()
    id = hashlib.sha256(type.encode() + b"\n" + request.body).hexdigest()
    return [Event(id, type, body, request.received_at)]


# https://docs.patreon.com/#pledge-event
def fetch(event: Event, api: Api) -> list[Event]:
    """The member with its history, if money has moved and there is an `api_key`."""
    member, key = event.data.at("data"), event.settings["api_key"]
    status = member.text_or_none("attributes", "last_charge_status")
    moved = status == "Paid" or status in _REFUNDED
    if not key or event.type not in EVENTS or not moved or is_invented(member):
        return [event]
    path = f"/members/{quote(member.text('id'), safe='')}{_HISTORY}"
    answer = api.get(path, {"Authorization": f"Bearer {key}"})
    return [replace(event, data=Payload(event.data.value | {_READ: answer.value}))]


def told(event: Event) -> Payment | Ignored:
    """A member, whatever has changed: a trial, or what became of the last charge."""
    member = event.data.object("data")
    if is_invented(member):
        return Ignored("test_event", test=True)
    status = member.text_or_none("attributes", "last_charge_status")
    charged_at, began_at = moment(member, "last_charge_date"), began(member)
    is_old = charged_at is None or (began_at is not None and charged_at < began_at - _AT_ONCE)
    on_trial = member.flag("attributes", "is_free_trial") and (is_old or status != "Paid")
    if on_trial or status == "Free Trial":
        return trial(event)
    if status == "Partially Refunded":
        path = member.at("attributes", "last_charge_status").path
        hint = "Patreon does not say how much; enter this refund in DataFast by hand"
        raise PayloadError("unknown_refund_amount", path, hint)
    if status in _REFUNDED:
        return refund(event)
    if status != "Paid":
        return Ignored("not_paid" if status else "never_charged")
    return Ignored("charge_of_earlier_pledge") if charged_at and is_old else charge(event)


def charge(event: Event) -> Payment:
    """The last charge, as the history has it or as the pledge is."""
    member = event.data.object("data")
    charged_at, began_at = member.time("attributes", "last_charge_date"), began(member)
    at_once = began_at is not None and abs(charged_at - began_at) <= _AT_ONCE
    amount, currency = in_history(event, charged_at) or pledged(member.object("attributes"))
    return Payment(
        kind=Kind.CHARGE,
        transaction_id=charge_id(member, charged_at),
        amount=amount,
        currency=currency,
        occurred_at=charged_at,
        recurrence=Recurrence.FIRST if at_once else Recurrence.UNKNOWN,
        **about(member),
    )


def refund(event: Event) -> Payment:
    """The last charge, taken back: all of it, or all that is left of it."""
    member = event.data.object("data")
    charged_at = member.time("attributes", "last_charge_date")
    original_id = charge_id(member, charged_at)
    found = in_history(event, charged_at)
    amount, currency = found or (None, None)
    return Payment(
        kind=Kind.REFUND,
        transaction_id=f"{original_id}:refund",
        amount=amount,
        currency=currency,
        cumulative=found is not None,
        occurred_at=event.occurred_at or charged_at,
        original_id=original_id,
        **about(member),
    )


def trial(event: Event) -> Payment:
    """A free trial, from the day the pledge began."""
    member = event.data.object("data")
    return Payment(
        kind=Kind.TRIAL,
        transaction_id=f"{member.text('id')}:trial",
        amount=Decimal(0),
        currency=None,
        occurred_at=member.time("attributes", "pledge_relationship_start"),
        **about(member),
    )


def in_history(event: Event, charged_at: datetime) -> tuple[Decimal, str] | None:
    """What was charged, in the patron's currency; None if nothing in the history is this charge."""
    near = []
    for entry in event.data.items(_READ, "included") if event.data.at(_READ, "included") else ():
        it = entry.at("attributes")
        date, amount = it.time_or_none("date"), it.at("amount_cents").value
        if date and amount and it.text_or_none("payment_status") in _WHOLE:
            near.append((abs(date - charged_at), it))
    distance, found = min(near, key=lambda each: each[0], default=(_SAME_CHARGE, None))
    if found is None or distance > _SAME_CHARGE:
        return None
    currency = money.currency(found, "currency_code")
    return money.minor_units(found, "amount_cents", code=currency), currency


def pledged(member: Payload) -> tuple[Decimal, str | None]:
    """What the pledge is worth, in the campaign's currency, which only old clients are told."""
    known = member.at("campaign_currency")
    currency = money.currency(known) if known else None
    old = member.at("currently_entitled_amount_cents").value is None
    key = "campaign_pledge_amount_cents" if old else "currently_entitled_amount_cents"
    return money.minor_units(member, key, code=currency or "USD"), currency


def about(member: Payload) -> dict[str, Any]:
    """Whom it is about: the member is the subscription, its user the customer."""
    return {
        "subscription_id": member.text("id"),
        "subscribed_at": began(member),
        "customer_id": member.text_or_none("relationships", "user", "data", "id"),
        "email": member.text_or_none("attributes", "email"),
        "name": member.text_or_none("attributes", "full_name"),
    }


def charge_id(member: Payload, charged_at: datetime) -> str:
    """`<member>:<second of the charge>`, however the time is written."""
    return f"{member.text('id')}:{charged_at:%Y-%m-%dT%H:%M:%SZ}"


def began(member: Payload) -> datetime | None:
    """When the present pledge began; a change of it does not move this."""
    return moment(member, "pledge_relationship_start")


def moment(member: Payload, key: str) -> datetime | None:
    """The time at `key`, which need not be there."""
    place = member.at("attributes", key)
    return place.time() if place else None


def is_invented(member: Payload) -> bool:
    """Whether it is the test button's member."""
    return isinstance(member.value, dict) and member.value.get("id", "") is None


# https://docs.patreon.com/#triggers-v2
EVENTS: dict[str, Mapper] = {
    "members:create": told,
    "members:update": told,
    "members:pledge:create": told,
}

IGNORED = {
    # It has the new amount beside the old charge; a charge that follows is an update of its own.
    "members:pledge:update": "told_by_members:update",
    "members:pledge:delete": "no_money_moved",
    "members:delete": "no_money_moved",
    "posts:publish": "no_money_moved",
    "posts:update": "no_money_moved",
    "posts:delete": "no_money_moved",
}
