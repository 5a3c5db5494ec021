"""Ko-fi.

Quirks:
- Nothing is signed. A token stands in the body, in plain text: whoever has seen one notification
  can write others. There is no published vector for it.
- The body is a form with one field, `data`, and that is JSON.
- Refunds, chargebacks and the end of a membership are never told, and there is no API to ask.
- Nothing travels from your site to the payment and back. What is left is the e-mail address, which
  can be missing or empty, and a visitor id that a supporter was asked to leave as the message.
- A membership has no id, only a tier's name; each payment says whether it is the first one.
- Yen come without decimals ("1500"), so amounts are taken as they are written.
- The page's test buttons send a real looking payment under a transaction id that is the same for
  all (and, as far as is known, for all accounts). It is told with the message's id, so that the
  second test is not taken for a repetition of the first.
- How often Ko-fi tries again is not published; a repetition has the same `message_id`.
"""

import json
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from relay import money, verify, visitor
from relay.errors import PayloadError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Mapper, Setup

TITLE = "Ko-fi"
DOCS = "https://help.ko-fi.com/hc/en-us/articles/360004162298"

SETUP = Setup(
    where="ko-fi.com/manage/webhooks (More, API): paste the URL and press Update. Everything is "
    "sent, there is nothing to tick. The buttons on the same page send tests.",
    events=("Donation", "Subscription", "Shop Order", "Commission"),
    secret="The verification token: on the same page, under Advanced.",
    visitor="It does not travel: Ko-fi has no field for it (a message that is a visitor id is taken "
    "for one). The relay looks for the visitor of another payment with the same e-mail address.",
    checkout="""\
<!-- nothing to add to the link; count the clicks in DataFast, at least -->
<a href="https://ko-fi.com/YOURPAGE" data-fast-goal="kofi_click">Support me</a>""",
    notes="Refunds are never told, so what you give back stays counted.",
)

# What the test buttons send, whoever presses them.
_TEST = "00000000-1111-2222-3333-444444444444"


@dataclass(frozen=True)
class BodyToken(verify.Signature):
    """`verification_token` in the notification itself."""

    summary = "static token in the body"
    covers_body = False
    place = "body"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises malformed_body, missing_token, bad_signature."""
        try:
            claimed = notification(request).at("verification_token").value
        except PayloadError:
            msg = "the body is no form whose field `data` holds JSON"
            raise VerificationError("malformed_body", msg) from None
        if not isinstance(claimed, str) or not claimed:
            raise VerificationError("missing_token", "`verification_token` is missing in the body")
        verify.matches([claimed], trust.secrets)

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        told = {**notification(request).value, "verification_token": trust.secrets[0]}
        return replace(request, body=urlencode({"data": json.dumps(told)}).encode())


SIGNATURE = BodyToken()


def notification(request: Received) -> Payload:
    """The JSON in the form's one field."""
    # Not as a `text`, which has a limit that a shop order with a long letter could reach.
    data = Payload.form(request.body).at("data").value
    return Payload.json(str(data).encode(), "$.data").object()


def parse(request: Received) -> list[Event]:
    """One event a request; a repetition has its `message_id`."""
    told = notification(request)
    return [Event(told.text("message_id"), told.text("type"), told, told.time_or_none("timestamp"))]


def charge(event: Event) -> Payment | Ignored:
    """All that Ko-fi tells of is paid."""
    paid = event.data
    id = paid.text("kofi_transaction_id")
    recurrence = Recurrence.ONE_TIME
    if paid.flag("is_subscription_payment"):
        is_first = paid.flag("is_first_subscription_payment")
        recurrence = Recurrence.FIRST if is_first else Recurrence.RENEWAL
    return Payment(
        kind=Kind.CHARGE,
        transaction_id=f"{id}:{event.id}" if id == _TEST else id,
        amount=money.major_units(paid, "amount"),
        currency=money.currency(paid, "currency"),
        occurred_at=paid.time("timestamp"),
        recurrence=recurrence,
        email=paid.text_or_none("email"),
        name=paid.text_or_none("from_name"),
        visitor_id=visitor.find(paid.at("message")),
        test=id == _TEST,
    )


# https://ko-fi.com/manage/webhooks (to be seen when signed in)
EVENTS: dict[str, Mapper] = {
    "Donation": charge,
    "Subscription": charge,
    "Shop Order": charge,
    "Commission": charge,
}
