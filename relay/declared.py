"""A provider without Python: what a `mapping:` block of the configuration declares.

The block says in JMESPath (https://jmespath.org) where in an event everything stands, and what each
type of event means. It is read in `relay.config.declaration`; here it becomes a Provider.

Numbers stay as exact as they came: a fraction is a Decimal for JMESPath's functions as well, and
what cannot be computed exactly is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Context, Decimal, localcontext
from typing import Any

import jmespath
import simplejson
from jmespath import functions
from jmespath.visitor import Options

from relay import money, visitor
from relay.errors import PayloadError
from relay.model import About, Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Provider, Setup
from relay.verify import Signature

NAME = "mapping"
NOTHING_MOVED = "no_money_moved"

ABOUT = (*(it.name for it in fields(About)), "test")

# More digits than any sum here has. The endless ones of a division are no amount to a Payload.
_EXACTLY = Context(prec=200)

# JMESPath's own tables of what is a number.
functions.TYPES_MAP["Decimal"] = "number"
functions.REVERSE_TYPES_MAP["number"] = ("float", "int", "long", "Decimal")


class Functions(functions.Functions):
    """JMESPath's functions; these three would make a float or a text of a Decimal."""

    @functions.signature({"types": []})
    def _func_to_number(self, it: Any) -> Any:  # noqa: ANN401 - foreign data
        try:
            return Payload(it).decimal()
        except PayloadError:
            return None

    @functions.signature({"types": []})
    def _func_to_string(self, it: Any) -> str:  # noqa: ANN401 - foreign data
        return it if isinstance(it, str) else simplejson.dumps(it, separators=(",", ":"))

    @functions.signature({"types": []})
    def _func_type(self, it: Any) -> str:  # noqa: ANN401 - foreign data
        return functions.TYPES_MAP[type(it).__name__]


class Expression:
    """One JMESPath expression. Raises jmespath's own errors if it is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._parsed = jmespath.compile(text)
        for node in nodes(self._parsed.parsed):
            if node["type"] == "literal":  # `0.1` in an expression is as exact as in an event
                node["value"] = simplejson.loads(
                    simplejson.dumps(node["value"], use_decimal=True), use_decimal=True
                )

    def calls(self) -> Iterator[tuple[str, int]]:
        """The functions that are called in it, and with how many arguments."""
        for node in nodes(self._parsed.parsed):
            if node["type"] == "function_expression":
                yield node["value"], len(node["children"])

    def of(self, data: Payload) -> Payload:
        """What it finds, null if nothing. Raises PayloadError where it cannot be applied."""
        try:
            with localcontext(_EXACTLY):
                found = self._parsed.search(data.value, Options(custom_functions=Functions()))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            msg = f"this expression cannot be applied here ({type(error).__name__})"
            raise PayloadError("wrong_type", self.text, msg) from None
        return Payload(found, self.text)


def nodes(tree: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - jmespath's tree
    """Every node of a parsed expression."""
    if isinstance(tree, dict):
        yield tree
        for child in tree["children"]:
            yield from nodes(child)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a type of event means, if `when` holds; `kind` is None for: nothing to tell.

    `fields` are the expressions by the fields of a Payment. `amount_is` says what the amount of
    money that is taken back is: `this` movement's, the sum of all `so_far`, or the `rest`, which
    needs none.
    """

    kind: Kind | None
    fields: Mapping[str, Expression] = field(default_factory=dict)
    when: Expression | None = None
    recurrence: Recurrence | None = None
    amount_is: str = "this"
    unit: str | None = None
    currency_is: str | None = None
    reason: str = NOTHING_MOVED

    def at(self, name: str, data: Payload) -> Payload:
        """What stands where the field's expression points, null if it has none."""
        return self.fields[name].of(data) if name in self.fields else Payload(None, name)

    def money(self, data: Payload) -> tuple[Decimal | None, str | None]:
        """Amount and currency, the amount in major units."""
        code, amount = self.at("currency", data), self.at("amount", data)
        currency = self.currency_is if code.text_or_none() is None else money.currency(code)
        if self.kind is Kind.TRIAL:
            return Decimal(0), currency
        if self.amount_is == "rest":
            return None, currency
        if currency is None:
            raise PayloadError("missing_field", code.path, "the currency is missing")
        if self.unit == "minor":
            return money.minor_units(amount, code=currency), currency
        return money.major_units(amount), currency


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """A whole block. `time` is `iso`, `seconds` or `milliseconds`; `form_field` holds JSON in a form."""

    signature: Signature
    id: Expression
    type: Expression
    types: Mapping[str, Sequence[Rule]]
    title: str = "Your own"
    body: str = "json"
    form_field: str | None = None
    events: Expression = field(default_factory=lambda: Expression("@"))
    occurred_at: Expression | None = None
    time: str = "iso"

    def parse(self, request: Received) -> list[Event]:
        """The events in the request. What has no time of its own has that of its arrival."""
        found = self.events.of(self._whole(request))
        if not found:
            raise PayloadError("missing_field", found.path, "there are no events here")
        events: dict[str, Event] = {}
        for data in found.items() if isinstance(found.value, list) else [found]:
            id = self.id.of(data).text()
            moment = self._time_or_none(data) if self.occurred_at else request.received_at
            event = Event(id, self.type.of(data).text(), data, moment)
            if events.setdefault(id, event).data.value != data.value:
                msg = "two events of one request have this id; it must tell them apart"
                raise PayloadError("repeated_id", self.id.text, msg)
        return list(events.values())

    def mean(self, event: Event) -> Payment | Ignored:
        """The mapper of every type: by the first rule that holds."""
        data = event.data
        rules = self.types[event.type]
        rule = next((it for it in rules if it.when is None or it.when.of(data)), None)
        if rule is None:
            return Ignored("no_rule_holds")
        if rule.kind is None:
            return Ignored(rule.reason, occurred_at=event.occurred_at, **self._known(rule, data))
        amount, currency = rule.money(data)
        return Payment(
            kind=rule.kind,
            transaction_id=rule.at("transaction_id", data).text(),
            original_id=rule.at("original_id", data).text_or_none(),
            amount=amount,
            currency=currency,
            cumulative=rule.amount_is == "so_far",
            occurred_at=event.occurred_at or self._time(self._told_at(data)),
            recurrence=rule.recurrence,
            **{name: self._about(rule, name, data) for name in ABOUT},
        )

    def _whole(self, request: Received) -> Payload:
        if self.body == "json":
            return Payload.json(request.body)
        form = Payload.form(request.body)
        if self.form_field is None:
            return form
        return Payload.json(str(form.at(self.form_field).value).encode(), f"$.{self.form_field}")

    def _about(self, rule: Rule, name: str, data: Payload) -> Any:  # noqa: ANN401 - by its name
        found = rule.at(name, data)
        if name == "visitor_id":
            return visitor.find(found)
        if name == "test":
            return found.flag()
        if name == "subscribed_at":
            return None if found.value is None else self._time(found)
        return found.text_or_none()

    def _known(self, rule: Rule, data: Payload) -> dict[str, Any]:
        """What can be told of an event that moves no money; it may be of quite another shape."""
        known = {}
        for name in ABOUT:
            try:
                known[name] = self._about(rule, name, data)
            except PayloadError:
                continue
        return known

    def _told_at(self, data: Payload) -> Payload:
        return self.occurred_at.of(data) if self.occurred_at else Payload(None, "occurred_at")

    def _time(self, place: Payload) -> datetime:
        if self.time == "iso":
            return place.time()
        return place.unix_time(unit=1000 if self.time == "milliseconds" else 1)

    def _time_or_none(self, data: Payload) -> datetime | None:
        try:
            return self._time(self._told_at(data))
        except PayloadError:
            return None  # and the mapper says why, if it needs it


def provider(block: Declaration) -> Provider:
    """The provider that a block declares."""
    form = f"a form whose field `{block.form_field}` holds JSON" if block.form_field else "a form"
    moving = [type for type, rules in block.types.items() if any(it.kind for it in rules)]
    return Provider(
        name=NAME,
        title=block.title,
        docs="docs/mapping.md",
        about=f"{block.title}.\n\nDeclared in the configuration.",
        setup=Setup(
            where=f"In your own code: POST {form if block.body == 'form' else 'JSON'} to this URL.",
            events=tuple(moving),
            secret=f"Of your own making; what is signed is: {block.signature.summary}.",
            visitor="Where `visitor_id` of the block points.",
            checkout="",
        ),
        signature=block.signature,
        parse=block.parse,
        events=dict.fromkeys(block.types, block.mean),
    )


SKELETON = """\
sources:
  billing:                                  # the URL to post to ends in this name
    provider: mapping
    destination: main
    secrets:
      - ${BILLING_SECRET}
    mapping:                                # every path is JMESPath; docs/mapping.md has all settings
      title: Our billing
      signature:
        scheme: hmac                        # or standard_webhooks, static_token, url_secret
        header: X-Billing-Signature
        timestamp_header: X-Billing-Timestamp
        template: "{timestamp}.{body}"      # what is signed; without this line the body alone
      id: id
      type: type
      occurred_at: created_at
      types:                                # what each type means: the first rule that holds
        invoice.paid:
          - when: "reason == 'renewal'"
            kind: charge
            recurrence: renewal
          - kind: charge
        invoice.refunded:
          - kind: refund
            transaction_id: refund.id
            original_id: invoice.id
            amount: refund.amount
        customer.created: ignore
      payment:                              # where the payment's fields are, for all rules
        transaction_id: invoice.id
        amount: invoice.amount
        unit: minor                         # 2999; or major: 29.99
        currency: invoice.currency
        subscription_id: invoice.subscription
        customer_id: customer.id
        email: customer.email
        visitor_id: customer.metadata
"""
