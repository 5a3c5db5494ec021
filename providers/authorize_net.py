"""Authorize.net.

Quirks:
- The signature key is used as its 128 characters of text, and not decoded from hex (as another hash
  of this provider wants it). A real delivery proves it whose key was published with it. The amount is
  signed as it is spelled: a body that was parsed and written again does not match.
- The webhook is thin: id, amount and a code. Customer, visitor, subscription and a refund's payment are
  in the API's answer, which is asked for if there is a `transaction_key`. Without one all charges are
  left to the ledger, which cannot know: after `hold_seconds` they count as new revenue.
- Neither names a currency. It is the account's: set `currency` of the source.
- The answer's fields are read by their documented names; no live answer was seen (uncertain: that a
  `payNum` is in each charge of a subscription). It begins with a byte order mark.
- The API answers 200 to all: whether it could answer is in `resultCode`.
- What comes back in the webhook is `merchantReferenceId`: the `refId` of the API's request, 20 characters
  at most, too short for a visitor's id. In the answer there is `order.description`.
- `responseCode` 1 is approved, 4 is held for review. A held payment is told again, by
  `fraud.approved`, if it is released; with the same id, so that both are one. Without the answer,
  what was only authorized and held counts then before it is captured.
- A capture of an earlier authorization has the authorization's id. Uncertain: whether `authAmount`
  is then what was captured, if that was less.
- A void has the id of what it cancels before it settles: of a charge, which it takes back whole; or
  of what was only authorized, or of a refund. The answer says which; without it, a void of those is
  dead with `unknown_amount`.
- In test mode all transactions have the id 0. The sandbox is another account: nothing in an event
  says whether it is one.
- Disputes and returned eChecks are not told.
- Uncertain: 10 tries within about 8 days; then the webhook is switched off.
"""

from dataclasses import replace
from urllib.parse import quote

from relay import money, visitor
from relay.errors import FetchError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import BodyHmac

TITLE = "Authorize.net"
DOCS = "https://developer.authorize.net/api/reference/features/webhooks.html"

SETUP = Setup(
    where="account.authorize.net (sandbox.authorize.net for the sandbox: a source of its own, with "
    "`test: true`), Account, Settings, Business Settings, Webhooks, Add endpoint: paste the URL, tick "
    "the payment events, status active. Without a signature key nothing is sent.",
    events=(
        "net.authorize.payment.authcapture.created",
        "net.authorize.payment.capture.created",
        "net.authorize.payment.priorAuthCapture.created",
        "net.authorize.payment.fraud.approved",
        "net.authorize.payment.refund.created",
        "net.authorize.payment.void.created",
    ),
    secret="The signature key, 128 letters and digits: Account, Settings, Security Settings, API "
    "Credentials & Keys, New Signature Key (not the transaction key). A new one ends the old one "
    "after 24 hours: list both until then.",
    visitor="In `order.description` of the transaction or subscription (read with a `transaction_key`).",
    checkout="""\
// on your server; refId is an id of your own, of 20 characters at most
createTransactionRequest: { merchantAuthentication, refId: order.id, transactionRequest: {
  ...transaction, order: { description: cookies.get("datafast_visitor_id") } } }""",
    notes="Set `currency` of the source to the account's, and `api_login_id` and `transaction_key` (API "
    "Credentials & Keys): without them renewals count as new revenue, and no visitor is known.",
)

SETTINGS = (
    Setting("api_login_id", "your API login id; goes with `transaction_key`"),
    Setting(
        "transaction_key",
        "your transaction key: each transaction is read, to know its customer and subscription",
        secret=True,
    ),
    Setting(
        "api_base",
        "where the API is; https://apitest.authorize.net for the sandbox",
        default="https://api.authorize.net",
    ),
    Setting(
        "test",
        "true if this source is of the sandbox; the events do not say it",
        default=False,
    ),
)

# https://developer.authorize.net/api/reference/features/webhooks.html#Verifying_the_Notification
SIGNATURE = BodyHmac("X-ANET-Signature", "sha512", "HEX", prefix="sha512=")


def parse(request: Received) -> list[Event]:
    """One event a request; a retry repeats its id."""
    body = Payload.json(request.body).object()
    return [Event(body.text("notificationId"), body.text("eventType"), body)]


# https://developer.authorize.net/api/reference/index.html#transaction-reporting-get-transaction-details
def fetch(event: Event, api: Api) -> list[Event]:
    """The event with its transaction as the API tells it."""
    login, key = event.settings["api_login_id"], event.settings["transaction_key"]
    if not key or event.type not in EVENTS or nothing_moved(event):
        return [event]
    id = event.data.text("payload", "id")
    who = {"name": login or "", "transactionKey": key}
    # The order of the keys matters to this API.
    question = {"getTransactionDetailsRequest": {"merchantAuthentication": who, "transId": id}}
    answer = api.ask(f"/xml/v1/request.api#{quote(id, safe='')}", question)
    if answer.text_or_none("messages", "resultCode") != "Ok":
        raise FetchError("fetch_refused", f"the provider's API answered {code_of(answer)}")
    found = event.data.value | {"transaction": answer.object("transaction").value}
    return [replace(event, data=Payload(found))]


def code_of(answer: Payload) -> str:
    """The first of the answer's codes, such as E00007 for a wrong key."""
    found = answer.at("messages", "message", 0).at("code").value
    return found if isinstance(found, str) and found.isalnum() else "something else than Ok"


def charge(event: Event) -> Payment | Ignored:
    """`payment.*apture.created` and `payment.fraud.approved`: a payment that was approved."""
    reason, read = nothing_moved(event), event.data.at("transaction")
    if reason or read.at("transactionType").value == "authOnlyTransaction":
        return Ignored(reason or "not_paid")
    found = payment(event, Kind.CHARGE)
    recurrence = Recurrence.UNKNOWN
    if read.at("subscription", "payNum"):
        is_first = read.integer("subscription", "payNum") <= 1
        recurrence = Recurrence.FIRST if is_first else Recurrence.RENEWAL
    elif read and not read.at("subscription") and not read.flag("recurringBilling"):
        recurrence = Recurrence.ONE_TIME
    began = found.occurred_at if recurrence is Recurrence.FIRST else None
    return replace(found, recurrence=recurrence, subscribed_at=began)


def refund(event: Event) -> Payment | Ignored:
    """`payment.refund.created`: this refund's amount, full or partial."""
    reason = nothing_moved(event)
    if reason:
        return Ignored(reason)
    return replace(payment(event, Kind.REFUND), original_id=original(event))


def void(event: Event) -> Payment | Ignored:
    """`payment.void.created`: all of what has the same id, which is mostly a charge."""
    reason, what = nothing_moved(event), event.data.at("transaction", "transactionType").value
    if reason or what == "authOnlyTransaction":
        return Ignored(reason or "never_captured")
    found = payment(event, Kind.REFUND)
    id = f"{found.transaction_id}:void"
    if what == "refundTransaction":
        return replace(found, kind=Kind.REINSTATED, transaction_id=id, original_id=original(event))
    return replace(
        found, transaction_id=id, original_id=found.transaction_id, amount=None, currency=None
    )


def original(event: Event) -> str | None:
    """The payment that a refund is of."""
    return event.data.text_or_none("transaction", "refTransId")


def nothing_moved(event: Event) -> str | None:
    """Why this moved no money, if it did not. A held payment that is released need not say 1."""
    if event.data.text("payload", "id") == "0":
        return "test_mode"
    approved = event.data.integer("payload", "responseCode") == 1
    return None if approved or event.type.endswith(".fraud.approved") else "not_approved"


def payment(event: Event, kind: Kind) -> Payment:
    """What the movements have in common."""
    moved, read = event.data.object("payload"), event.data.at("transaction")
    names = (read.text_or_none("billTo", it) for it in ("firstName", "lastName"))
    return Payment(
        kind=kind,
        transaction_id=moved.text("id"),
        amount=money.major_units(moved, "authAmount"),
        currency=None,
        occurred_at=event.data.time("eventDate"),
        subscription_id=read.text_or_none("subscription", "id"),
        customer_id=read.text_or_none("profile", "customerProfileId"),
        email=read.text_or_none("customer", "email"),
        name=" ".join(filter(None, names)) or None,
        visitor_id=visitor.find(read.at("order", "description")),
        reference=moved.text_or_none("merchantReferenceId")
        or read.text_or_none("order", "invoiceNumber"),
        test=event.settings["test"],
    )


# https://developer.authorize.net/api/reference/features/webhooks.html#Event_Types_and_Payloads
EVENTS: dict[str, Mapper] = {
    "net.authorize.payment.authcapture.created": charge,
    "net.authorize.payment.capture.created": charge,
    "net.authorize.payment.priorAuthCapture.created": charge,
    "net.authorize.payment.fraud.approved": charge,
    "net.authorize.payment.refund.created": refund,
    "net.authorize.payment.void.created": void,
}

IGNORED = {
    "net.authorize.payment.authorization.created": "not_paid",
    "net.authorize.payment.fraud.declined": "not_paid",
    "net.authorize.payment.fraud.held": "not_paid",
    "net.authorize.customer.created": "no_money_moved",
    "net.authorize.customer.updated": "no_money_moved",
    "net.authorize.customer.deleted": "no_money_moved",
    "net.authorize.customer.paymentProfile.created": "no_money_moved",
    "net.authorize.customer.paymentProfile.updated": "no_money_moved",
    "net.authorize.customer.paymentProfile.deleted": "no_money_moved",
    "net.authorize.customer.subscription.cancelled": "no_money_moved",
    "net.authorize.customer.subscription.created": "no_money_moved",
    "net.authorize.customer.subscription.expired": "no_money_moved",
    "net.authorize.customer.subscription.expiring": "no_money_moved",
    "net.authorize.customer.subscription.failed": "no_money_moved",
    "net.authorize.customer.subscription.suspended": "no_money_moved",
    "net.authorize.customer.subscription.terminated": "no_money_moved",
    "net.authorize.customer.subscription.updated": "no_money_moved",
}
