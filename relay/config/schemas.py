"""The settings: type, default, limits, and what to write instead of a wrong one.

`config.example.yaml` shows every setting; a test keeps it complete.
"""

from collections.abc import Sequence
from typing import Any

from marshmallow import Schema, fields, validate

from relay.provider import Setting

_PORT = r"(?:\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"
ADDRESS = rf"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):{_PORT}\Z"
# As browsers write it in the header `Origin`; another spelling would never be met there.
ORIGIN = rf"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::(?!80\Z|443\Z){_PORT})?\Z"
_AS_BROWSERS_SAY = (
    "write an origin as browsers send it, such as https://shop.example.com: small letters, no path"
)

# marshmallow's own words, and what helps the person who reads them.
WORDS = {
    "Missing data for required field.": "this setting is missing; config.example.yaml shows it",
    "Field may not be null.": "this is empty; write a value, or take the line out",
    "Not a valid string.": "this must be text; put it in quotes",
    "Not a valid mapping type.": "this must hold settings of its own, indented, one a line",
    "Not a valid list.": "this must be a list: one entry a line, each after a dash",
    "Not a valid integer.": "this must be a whole number, such as 8",
    "Not a valid number.": "this must be a number, such as 2.5",
    "Number too large.": "this number is too large",
    "Special numeric values (nan or infinity) are not permitted.": "this must be a number",
    "Not a valid boolean.": "write true or false",
    "Not a valid URL.": "write a whole address, such as https://relay.example.com",
}


class Whole(fields.Integer):
    """A whole number; 2.5 is a mistake and not 2."""

    def _validated(self, value: Any) -> int:  # noqa: ANN401 - YAML
        if isinstance(value, float) and not value.is_integer():
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


def span(low: float, high: float, unit: str = "") -> validate.Range:
    """A number's limits, both included."""
    words = f"write a number from {low} to {high}" + (f", in {unit}" if unit else "")
    return validate.Range(low, high, error=words)


def choice(*known: str) -> validate.OneOf:
    """One of a few words."""
    return validate.OneOf(known, error=f"write one of: {', '.join(known)}")


class ServerSchema(Schema):
    """`server:`."""

    bind = fields.String(
        load_default="127.0.0.1:8080",
        validate=validate.Regexp(
            ADDRESS, error="write address:port, such as 127.0.0.1:8080 or 0.0.0.0:8080"
        ),
    )
    public_url = fields.Url(
        load_default="http://127.0.0.1:8080", require_tld=False, schemes={"http", "https"}
    )
    processes = Whole(load_default=1, validate=span(1, 64))
    threads = Whole(load_default=8, validate=span(1, 256))
    max_body = Whole(load_default=1_048_576, validate=span(1_024, 104_857_600, "bytes"))
    drain_seconds = Whole(load_default=25, validate=span(1, 3_600, "seconds"))


class WorkSchema(Schema):
    """`worker:`."""

    processes = Whole(load_default=1, validate=span(1, 64))
    threads = Whole(load_default=4, validate=span(1, 64))
    lease_seconds = Whole(load_default=120, validate=span(30, 3_600, "seconds"))


class DestinationSchema(Schema):
    """One of `destinations:`."""

    api_key = fields.String(
        required=True,
        validate=validate.Regexp(
            r"dft?_\S+\Z",
            error="write the key as DataFast shows it: df_… (of a website) or dft_… (of an account)",
        ),
    )
    website_id = fields.String(
        load_default=None,
        validate=validate.Regexp(
            r"[A-Za-z0-9_-]+\Z", error="write the website's id as DataFast shows it"
        ),
    )
    base_url = fields.Url(
        load_default="https://datafa.st", require_tld=False, schemes={"http", "https"}
    )
    rate_limit = Whole(load_default=60, validate=span(0, 60_000, "requests a minute (0: no limit)"))
    refunds = fields.String(
        load_default="auto", validate=choice("auto", "original_id", "refund_id")
    )
    connect_timeout = fields.Float(load_default=5, validate=span(0.1, 60, "seconds"))
    read_timeout = fields.Float(load_default=20, validate=span(0.1, 120, "seconds"))
    match_email = fields.Boolean(load_default=True)
    repair = fields.String(load_default="manual", validate=choice("manual", "automatic"))
    identify_key = fields.String(
        load_default=None,
        validate=validate.Regexp(
            r"[A-Za-z0-9_-]{16,128}\Z", error="write 16 to 128 letters, digits, - and _"
        ),
    )
    identify_origins = fields.List(
        fields.String(validate=validate.Regexp(ORIGIN, error=_AS_BROWSERS_SAY)), load_default=None
    )


class SourceSchema(Schema):
    """One of `sources:`, without its provider's own settings."""

    provider = fields.String(required=True)
    destination = fields.String(required=True)
    secrets = fields.List(
        fields.String(),
        required=True,
        validate=validate.Length(1, 10, error="write 1 to 10 secrets, each after a dash"),
    )
    tolerance_seconds = fields.Float(load_default=300, validate=span(1, 86_400, "seconds"))
    test_events = fields.String(load_default="ignore", validate=choice("ignore", "forward"))
    disputes = fields.String(load_default="refund", validate=choice("refund", "ignore"))
    hold_seconds = Whole(load_default=600, validate=span(0, 604_800, "seconds"))
    currency = fields.String(load_default=None)


class RelaySchema(Schema):
    """The whole file. The parts have schemas of their own, so that each mistake finds its line."""

    server = fields.Dict(load_default=dict)
    worker = fields.Dict(load_default=dict)
    database = fields.String(load_default="sqlite:///relay.db")
    log_level = fields.String(
        load_default="info", validate=choice("debug", "info", "warning", "error")
    )
    destinations = fields.Dict(required=True)
    sources = fields.Dict(required=True)


def with_settings(own: Sequence[Setting]) -> Schema:
    """The schema of a source whose provider has settings of its own."""
    schema: Schema = type("Source", (SourceSchema,), {it.name: _field(it) for it in own})()
    return schema


def _field(setting: Setting) -> fields.Field[Any]:
    """The field of one of a provider's own settings; its type follows from the default."""
    common: dict[str, Any] = {"load_default": setting.default}
    if setting.required:
        common = {"required": True}
    if isinstance(setting.default, bool):
        return fields.Boolean(**common)
    if setting.choices:
        return fields.String(validate=choice(*setting.choices), **common)
    return fields.String(**common)
