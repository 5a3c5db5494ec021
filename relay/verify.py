"""Parts of signature schemes. Everything here fails closed.

A scheme is an object with two directions: `verify` proves that a request is the provider's, `sign`
does what the provider would have done (for `relay send`, the demo and the benchmarks). Claims are
compared as bytes, in constant time, in the exact spelling the provider uses: what differs from it
by one bit is refused, even where it would decode to the same digest.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from relay.errors import VerificationError
from relay.model import Received, Trust

Encoding = Literal["hex", "HEX", "base64"]

_LONGEST_HEADER = 4_096
_LENGTHS = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}
_UNIX_TIME = re.compile(r"[0-9]{1,13}")


@dataclass(frozen=True, repr=False)
class Rehearsal:
    """Secrets (and settings) made up on the spot; `downloads` by their path under `api_base`."""

    secrets: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    downloads: Mapping[str, bytes] = field(default_factory=dict)


class Signature(Protocol):
    """How a provider proves that a request is its own."""

    summary: str
    signs_time: bool = False
    covers_body: bool = True
    place: Literal["header", "body", "url"] = "header"

    def verify(self, request: Received, trust: Trust) -> None:
        """Return if the request is genuine; else raise VerificationError."""

    def sign(self, request: Received, trust: Trust) -> Received:
        """The request as the provider would send it at `received_at`, with the newest secret."""
        ...

    def flaw(self, secret: str) -> str | None:
        """What is wrong with the form of a configured secret, or None."""
        return None if secret == secret.strip() else "it has white space around it"

    def rehearse(self) -> Rehearsal:
        """All that is needed to sign and verify here, without the provider."""
        return Rehearsal((secrets.token_hex(24),))


@dataclass(frozen=True)
class BodyHmac(Signature):
    """A header that holds the HMAC of the raw body, keyed with the secret's own characters."""

    header: str
    algorithm: str = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""

    @property
    def summary(self) -> str:  # type: ignore[override]
        """For tables: `HMAC-SHA256 of the body`."""
        return f"HMAC-{self.algorithm.upper()} of the body"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_header, malformed_header, bad_signature."""
        claimed = header(request, self.header).removeprefix(self.prefix)
        well_formed(claimed, self.header, self.algorithm, self.encoding)
        matches([claimed], (self._digest(secret, request.body) for secret in trust.secrets))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        digest = self._digest(trust.secrets[0], request.body)
        return with_header(request, self.header, self.prefix + digest)

    def _digest(self, secret: str, message: bytes) -> str:
        return encode(hmac.digest(secret.encode(), message, self.algorithm), self.encoding)


@dataclass(frozen=True)
class TemplateHmac(BodyHmac):
    """A header that holds the HMAC of a text with the raw body in it, such as `{timestamp}.{body}`.

    `{timestamp}` is the header `timestamp_header` as it came, a Unix time; `unit` is how many of it
    make a second.
    """

    template: str = "{timestamp}.{body}"
    timestamp_header: str = ""
    unit: int = 1

    @property
    def summary(self) -> str:  # type: ignore[override]
        """For tables: `HMAC-SHA256 of {timestamp}.{body}`."""
        return f"HMAC-{self.algorithm.upper()} of {self.template}"

    @property
    def signs_time(self) -> bool:  # type: ignore[override]
        """Whether a time is part of what is signed."""
        return "{timestamp}" in self.template

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_header, malformed_…, stale_timestamp, bad_signature."""
        claimed = header(request, self.header).removeprefix(self.prefix)
        well_formed(claimed, self.header, self.algorithm, self.encoding)
        stamp = ""
        if self.signs_time:
            stamp = header(request, self.timestamp_header)
            signed_at = unix_time(stamp, self.timestamp_header, self.unit)
            fresh(signed_at, request.received_at, trust.tolerance)
        message = self._message(request.body, stamp)
        matches([claimed], (self._digest(secret, message) for secret in trust.secrets))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        stamp = str(int(request.received_at.timestamp() * self.unit))
        if self.signs_time:
            request = with_header(request, self.timestamp_header, stamp)
        digest = self._digest(trust.secrets[0], self._message(request.body, stamp))
        return with_header(request, self.header, self.prefix + digest)

    def _message(self, body: bytes, stamp: str) -> bytes:
        # The body last, and once: what stands in it must not be taken for the template's.
        before, _, after = self.template.replace("{timestamp}", stamp).partition("{body}")
        return before.encode() + body + after.encode()


@dataclass(frozen=True)
class StandardWebhooks(Signature):
    """Standard Webhooks 1.0: `id.timestamp.body`, several signatures while a secret is rotated.

    Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    `prefix` is `webhook-`, or `svix-` where the provider uses Svix's own names. With `literal_key`
    the key is the secret's characters (Whop, Polar), else what follows `whsec_` is base64.
    """

    prefix: str = "webhook-"
    literal_key: bool = False
    summary = "Standard Webhooks"
    signs_time = True

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_header, malformed_…, stale_timestamp, bad_signature."""
        id = header(request, f"{self.prefix}id")
        stamp = header(request, f"{self.prefix}timestamp")
        given = header(request, self.prefix + "signature").split(" ")
        claimed = [text.removeprefix("v1,") for text in given if text.startswith("v1,")]
        if not claimed:
            msg = f"{self.prefix}signature holds no signature of version v1"
            raise VerificationError("malformed_header", msg)
        fresh(unix_time(stamp, self.prefix + "timestamp"), request.received_at, trust.tolerance)
        message = f"{id}.{stamp}.".encode() + request.body
        matches(claimed, (self._digest(secret, message) for secret in trust.secrets))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature. The id is the request's own, or made from its body."""
        id_header = self.prefix + "id"
        id = (
            request.headers.get(id_header) or f"msg_{hashlib.sha256(request.body).hexdigest()[:24]}"
        )
        stamp = str(int(request.received_at.timestamp()))
        message = f"{id}.{stamp}.".encode() + request.body
        signed = with_header(request, id_header, id)
        signed = with_header(signed, self.prefix + "timestamp", stamp)
        digest = self._digest(trust.secrets[0], message)
        return with_header(signed, self.prefix + "signature", f"v1,{digest}")

    def flaw(self, secret: str) -> str | None:
        """See Signature."""
        if not self.literal_key:
            try:
                base64.b64decode(secret.removeprefix("whsec_"), validate=True)
            except (binascii.Error, ValueError):
                return "what follows whsec_ is not base64; copy the whole signing secret"
        return Signature.flaw(self, secret)

    def rehearse(self) -> Rehearsal:
        """See Signature."""
        return Rehearsal((f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}",))

    def _digest(self, secret: str, message: bytes) -> str:
        key = secret.encode() if self.literal_key else _base64_key(secret)
        return encode(hmac.digest(key, message, "sha256"), "base64")


@dataclass(frozen=True)
class StaticToken(Signature):
    """For providers that send the secret itself, in a header, with every request."""

    header: str
    prefix: str = ""
    covers_body = False

    @property
    def summary(self) -> str:  # type: ignore[override]
        """For tables: `static token in Authorization`."""
        return f"static token in {self.header}"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_header, malformed_header, bad_signature."""
        claimed = header(request, self.header)
        matches([claimed], (self.prefix + secret for secret in trust.secrets))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        return with_header(request, self.header, self.prefix + trust.secrets[0])


@dataclass(frozen=True)
class BasicAuth(Signature):
    """HTTP Basic: the secret is `user:password`, as it was typed at the provider."""

    summary = "HTTP Basic: user and password"
    covers_body = False

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_header, malformed_header, bad_signature."""
        claimed = header(request, "Authorization")
        matches([claimed], (self._spelled(secret) for secret in trust.secrets))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        return with_header(request, "Authorization", self._spelled(trust.secrets[0]))

    def flaw(self, secret: str) -> str | None:
        """See Signature."""
        user, _, password = secret.partition(":")
        if not (user and password):
            return "user and password are wanted, with a colon between them"
        return super().flaw(secret)

    def rehearse(self) -> Rehearsal:
        """See Signature."""
        return Rehearsal((f"relay:{secrets.token_hex(24)}",))

    def _spelled(self, secret: str) -> str:
        return f"Basic {base64.b64encode(secret.encode()).decode()}"


@dataclass(frozen=True)
class UrlSecret(Signature):
    """For providers that sign nothing: an unguessable last part of the source's URL."""

    summary = "none: secret in the URL"
    covers_body = False
    place = "url"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_url_secret, bad_url_secret."""
        if not request.url_secret:
            msg = "the URL lacks the source's secret: /webhooks/<source>/<secret>"
            raise VerificationError("missing_url_secret", msg)
        try:
            matches([request.url_secret], trust.secrets)
        except VerificationError:
            msg = "the secret in the URL is none of the source's"
            raise VerificationError("bad_url_secret", msg) from None

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        return replace(request, url_secret=trust.secrets[0])

    def flaw(self, secret: str) -> str | None:
        """See Signature."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{16,128}", secret):
            return "a secret in a URL is 16 to 128 letters, digits, - and _; try `openssl rand -hex 24`"
        return None


# The parts


def header(request: Received, name: str) -> str:
    """The one value of `name`. Raises missing_header, or malformed_header when there are several."""
    values = request.headers.all(name)
    if not values or not values[0].strip():
        raise VerificationError("missing_header", f"the header {name} is missing")
    if len(values) > 1 or len(values[0]) > _LONGEST_HEADER:
        raise VerificationError("malformed_header", f"the header {name} is doubled or too long")
    return values[0]


def with_header(request: Received, name: str, value: str) -> Received:
    """The request with the header `name` set to `value`."""
    return replace(request, headers=request.headers.replaced(**{name: value}))


def encode(digest: bytes, encoding: Encoding) -> str:
    """The digest in the provider's spelling."""
    if encoding == "base64":
        return base64.b64encode(digest).decode()
    return digest.hex().upper() if encoding == "HEX" else digest.hex()


def well_formed(claimed: str, name: str, algorithm: str, encoding: Encoding) -> None:
    """Refuse a claim that cannot be a digest, and say what one looks like."""
    size = _LENGTHS[algorithm]
    length = -(-size // 3) * 4 if encoding == "base64" else size * 2
    if len(claimed) != length:
        msg = f"{name} holds {len(claimed)} characters; {length} of {encoding} are wanted"
        raise VerificationError("malformed_header", msg)


def matches(claimed: Sequence[str], digests: Iterable[str]) -> None:
    """Return if any claim is any of the digests. Raises bad_signature. Takes the same time always."""
    claims = [claim.encode("utf-8", "replace") for claim in claimed[:16]]
    found = False
    for digest in digests:
        for claim in claims:
            found |= hmac.compare_digest(claim, digest.encode())
    if not found:
        msg = "the signature matches none of the source's secrets; `relay verify` tells more"
        raise VerificationError("bad_signature", msg)


def unix_time(text: str, name: str, unit: int = 1) -> datetime:
    """The Unix time in a header; `unit` is how many make a second. Raises malformed_timestamp."""
    if not _UNIX_TIME.fullmatch(text):
        raise VerificationError("malformed_timestamp", f"{name} is not a Unix time")
    try:
        return datetime.fromtimestamp(int(text) / unit, UTC)
    except (ValueError, OverflowError, OSError):
        raise VerificationError("malformed_timestamp", f"{name} is not a Unix time") from None


def fresh(signed_at: datetime, received_at: datetime, tolerance: float) -> None:
    """Refuse what was signed too long ago, or in the future. Raises stale_timestamp."""
    age = (received_at - signed_at).total_seconds()
    if abs(age) > tolerance:
        direction = "old" if age > 0 else "ahead of our clock"
        msg = f"the request was signed {abs(age):.0f} s {direction}; {tolerance:.0f} s are allowed"
        raise VerificationError("stale_timestamp", msg)


def _base64_key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        msg = "the configured secret is not base64; `relay check` says which"
        raise VerificationError("unusable_secret", msg) from None
