"""From a `mapping:` block to the provider that it declares, noting each mistake and going on."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from marshmallow import Schema, ValidationError, fields, validate

from relay import declared, money, yamlfile
from relay.config import checks
from relay.config.schemas import choice
from relay.declared import Declaration, Rule
from relay.model import Kind, Recurrence
from relay.provider import Provider
from relay.verify import (
    BodyHmac,
    Signature,
    StandardWebhooks,
    StaticToken,
    TemplateHmac,
    UrlSecret,
)

if TYPE_CHECKING:
    from relay.config.reader import Reader

IGNORE = "ignore"
_BY_ITSELF = "write ignore, or what it means: a list of rules, each with a `kind`"

_HEADER = validate.Regexp(
    r"[A-Za-z0-9-]{1,100}\Z", error="write a header's name, such as X-Billing-Signature"
)
# With what kind of a rule some of its settings go.
_GOES_WITH = {
    "recurrence": (Kind.CHARGE,),
    "amount_is": (Kind.REFUND, Kind.DISPUTE),
    "reason": (IGNORE,),
}
# The settings of `signature:` that each scheme has besides.
_SCHEMES: dict[str, set[str]] = {
    "hmac": {
        "header",
        "algorithm",
        "encoding",
        "prefix",
        "template",
        "timestamp_header",
        "timestamp_unit",
    },
    "standard_webhooks": {"prefix"},
    "static_token": {"header", "prefix"},
    "url_secret": set(),
}


class Path(fields.String):
    """A JMESPath expression."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **more: Any) -> Any:  # noqa: ANN401
        text = super()._deserialize(value, attr, data, **more)
        problem = checks.expression(text)
        if problem:
            raise ValidationError(problem)
        return declared.Expression(text)


class SignatureSchema(Schema):
    """`mapping.signature`."""

    scheme = fields.String(required=True, validate=choice(*_SCHEMES))
    header = fields.String(load_default=None, validate=_HEADER)
    algorithm = fields.String(
        load_default="sha256", validate=choice("sha256", "sha512", "sha1", "md5")
    )
    encoding = fields.String(load_default="hex", validate=choice("hex", "HEX", "base64"))
    prefix = fields.String(load_default=None)
    template = fields.String(load_default="{body}")
    timestamp_header = fields.String(load_default=None, validate=_HEADER)
    timestamp_unit = fields.String(
        load_default="seconds", validate=choice("seconds", "milliseconds")
    )


class PaymentSchema(Schema):
    """`mapping.payment`; every rule can have settings of its own in place of these."""

    transaction_id = Path(load_default=None)
    original_id = Path(load_default=None)
    amount = Path(load_default=None)
    unit = fields.String(load_default=None, validate=choice("minor", "major"))
    currency = Path(load_default=None)
    currency_is = fields.String(load_default=None)
    subscription_id = Path(load_default=None)
    subscribed_at = Path(load_default=None)
    customer_id = Path(load_default=None)
    email = Path(load_default=None)
    name = Path(load_default=None)
    visitor_id = Path(load_default=None)
    reference = Path(load_default=None)
    test = Path(load_default=None)


class RuleSchema(PaymentSchema):
    """One rule of `mapping.types`."""

    kind = fields.String(required=True, validate=choice(*(it.value for it in Kind), IGNORE))
    when = Path(load_default=None)
    recurrence = fields.String(
        load_default="unknown", validate=choice(*(it.value for it in Recurrence))
    )
    amount_is = fields.String(load_default="this", validate=choice("this", "so_far", "rest"))
    reason = fields.String(
        load_default=declared.NOTHING_MOVED,
        validate=validate.Regexp(
            r"[A-Za-z0-9_.-]{1,60}\Z", error="write a few words joined by _, such as no_money_moved"
        ),
    )


class MappingSchema(Schema):
    """`mapping:`."""

    title = fields.String(load_default="Your own", validate=validate.Length(1, 60))
    signature = fields.Dict(required=True)
    body = fields.String(load_default="json", validate=choice("json", "form"))
    field = fields.String(load_default=None)
    events = Path(load_default=None)
    id = Path(required=True)
    type = Path(required=True)
    occurred_at = Path(load_default=None)
    time = fields.String(load_default="iso", validate=choice("iso", "seconds", "milliseconds"))
    types = fields.Dict(required=True, validate=validate.Length(1, error="write what each means"))
    payment = fields.Dict(load_default=dict)


def provider(reader: "Reader", source: Mapping[str, Any], path: yamlfile.Path) -> Provider | None:
    """The provider of a source with `provider: mapping`; None if anything in its block is wrong."""
    path = (*path, "mapping")
    if source.get("mapping") is None:
        reader.note("this block is missing; `relay providers mapping` prints one", path)
        return None
    problems = len(reader.file.problems)
    found = reader.part(MappingSchema(), source["mapping"], path)
    if found.get("field") and found.get("body") == "json":
        reader.note("this goes with `body: form`; take it out", (*path, "field"))
    sign = signature(reader, found.get("signature"), (*path, "signature"))
    base = reader.part(PaymentSchema(), found.get("payment", {}), (*path, "payment"))
    rules = Rules(reader, base, source.get("currency"))
    rules.one_currency(base, (*path, "payment"))
    types = {
        type: rules.read(data, (*path, "types", type))
        for type, data in found.get("types", {}).items()
    }
    if sign is None or len(found) < len(MappingSchema().fields):
        return None
    if len(reader.file.problems) > problems:
        return None
    return declared.provider(
        Declaration(
            signature=sign,
            types=types,
            form_field=found["field"],
            events=found["events"] or declared.Expression("@"),
            **{it: found[it] for it in ("id", "type", "title", "body", "occurred_at", "time")},
        )
    )


def signature(reader: "Reader", data: Any, path: yamlfile.Path) -> Signature | None:  # noqa: ANN401
    """How a request is proved, by one of the parts of `relay.verify`."""
    if data is None:
        return None
    schema = SignatureSchema()
    found = reader.part(schema, data, path)
    scheme = found.get("scheme", "")
    goes = _SCHEMES.get(scheme, schema.fields.keys()) | {"scheme"}
    for name in [it for it in schema.fields if it in data and it not in goes]:
        reader.note(f"this does not go with `scheme: {scheme}`; take it out", (*path, name))
    lacks_header = scheme and "header" in goes and found.get("header", "") is None
    if lacks_header:
        msg = f"`scheme: {scheme}` needs it: the name of the header in which it comes"
        reader.note(msg, (*path, "header"))
    if lacks_header or len(found) < len(schema.fields):
        return None
    if scheme == "hmac":
        return _hmac(reader, found, path)
    others: dict[str, Signature] = {
        "standard_webhooks": StandardWebhooks(found["prefix"] or "webhook-"),
        "static_token": StaticToken(found["header"] or "", found["prefix"] or ""),
        "url_secret": UrlSecret(),
    }
    return others[scheme]


def _hmac(reader: "Reader", found: Mapping[str, Any], path: yamlfile.Path) -> Signature:
    template, place = found["template"], (*path, "template")
    for name in sorted({*re.findall(r"\{\w+\}", template)} - {"{timestamp}", "{body}"}):
        reader.note(f"there is no {name}; there are {{timestamp}} and {{body}}", place)
    if template.count("{body}") != 1:
        reader.note("write {body} into it, once: what is not in it is not signed", place)
    timed = "{timestamp}" in template
    if timed and not found["timestamp_header"]:
        msg = "{timestamp} needs `timestamp_header`: the name of the header in which it comes"
        reader.note(msg, place)
    if found["timestamp_header"] and not timed:
        msg = "this time is not signed; write {timestamp} into `template`, or take this out"
        reader.note(msg, (*path, "timestamp_header"))
    common = {name: found[name] for name in ("header", "algorithm", "encoding")}
    common["prefix"] = found["prefix"] or ""
    if template == "{body}":
        return BodyHmac(**common)
    return TemplateHmac(
        **common,
        template=template,
        timestamp_header=found["timestamp_header"] or "",
        unit=1000 if found["timestamp_unit"] == "milliseconds" else 1,
    )


class Rules:
    """Reads the rules of each type; `base` is what `payment:` says, `currency` the source's own."""

    def __init__(self, reader: "Reader", base: Mapping[str, Any], currency: str | None) -> None:
        self.reader = reader
        self.base = base
        self.currency = currency

    def read(self, data: Any, path: yamlfile.Path) -> tuple[Rule, ...]:  # noqa: ANN401 - YAML
        """The rules of one type, in their order."""
        if data == IGNORE:
            data = {"kind": IGNORE}
        if isinstance(data, dict):
            return tuple(filter(None, [self.rule(data, path)]))
        if not data or not isinstance(data, list):
            self.reader.note(_BY_ITSELF, path)
            return ()
        for index, each in enumerate(data[:-1]):
            if isinstance(each, dict) and each.get("when") is None:
                msg = "this rule has no `when`, so the next one is never reached; put it last"
                self.reader.note(msg, (*path, index))
        found = [self.rule(each, (*path, index)) for index, each in enumerate(data)]
        return tuple(filter(None, found))

    def rule(self, data: Any, path: yamlfile.Path) -> Rule | None:  # noqa: ANN401 - YAML
        """One rule, with what `payment:` says where it says nothing itself."""
        found = self.reader.part(RuleSchema(), data, path)
        if "kind" not in found:
            return None
        for name, kinds in _GOES_WITH.items():
            if data.get(name) is not None and found["kind"] not in kinds:
                msg = f"this goes with `kind: {'` or `kind: '.join(kinds)}`; take it out"
                self.reader.note(msg, (*path, name))
        self.one_currency(found, path)
        kind = None if found["kind"] == IGNORE else Kind(found["kind"])
        use = self.merged(found)
        if kind:
            self.essentials(kind, use, path)
        return Rule(
            kind=kind,
            fields={
                name: it
                for name, it in use.items()
                if isinstance(it, declared.Expression) and name != "when"
            },
            when=use.get("when"),
            recurrence=Recurrence(use.get("recurrence", "unknown"))
            if kind is Kind.CHARGE
            else None,
            amount_is=use.get("amount_is", "this"),
            unit=use.get("unit"),
            currency_is=use.get("currency_is") or self.currency,
            reason=use.get("reason", declared.NOTHING_MOVED),
        )

    def merged(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """The rule's own settings over those of `payment:`. What is wrong in either is in neither."""
        base = dict(self.base)
        if found.get("currency") or found.get("currency_is"):
            base |= {"currency": None, "currency_is": None}
        own = {name: value for name, value in found.items() if value is not None}
        return {name: it for name, it in {**base, **own}.items() if name in found}

    def essentials(self, kind: Kind, use: Mapping[str, Any], path: yamlfile.Path) -> None:
        """Note what a payment cannot be without."""
        needed = ["transaction_id"]
        if use.get("amount_is") == "rest":
            needed += ["original_id"]
        elif kind is not Kind.TRIAL:
            needed += ["amount", "unit"]
            if not self.currency and not use.get("currency_is", "?"):
                needed += ["currency"]
        for name in needed:
            if use.get(name, "") is None:
                msg = f"this rule has no `{name}`; write it here, or in `payment` for all rules"
                self.reader.note(msg, path)

    def one_currency(self, found: Mapping[str, Any], path: yamlfile.Path) -> None:
        """Either read from the event or fixed; and if fixed, one that there is."""
        fixed = found.get("currency_is")
        if fixed and found.get("currency"):
            self.reader.note("`currency` says it already; keep one", (*path, "currency_is"))
        if fixed and money.exponent(fixed) is None:
            msg = "this is no code of ISO 4217, such as EUR"
            self.reader.note(msg, (*path, "currency_is"))
