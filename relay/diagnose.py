"""Why a signature is not good: which common mistake would make it match.

Each guess is one change to the request or to the secret, after which the provider's own check
passes. Nothing is guessed that a forger could use: the check itself stays what it is.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from relay.errors import VerificationError
from relay.model import Headers, Received, Trust
from relay.provider import Provider

_YEARS = 10 * 365 * 86_400.0


@dataclass(frozen=True)
class Verdict:
    """Good or not; why not (slug and sentence), and what would have made it good."""

    good: bool
    reason: str = ""
    message: str = ""
    hint: str = ""


def diagnose(
    provider: Provider,
    request: Received,
    trust: Trust,
    others: Mapping[str, Sequence[str]] | None = None,
) -> Verdict:
    """Check a request. `others` are the secrets of other sources, by the source's name."""
    try:
        provider.signature.verify(request, trust)
    except VerificationError as error:
        guesses = _guesses(request, trust, others or {})
        hint = next((hint for hint, *try_ in guesses if _passes(provider, *try_)), "")
        return Verdict(False, error.reason, error.message, hint)
    return Verdict(True)


def _passes(provider: Provider, request: Received, trust: Trust) -> bool:
    try:
        provider.signature.verify(request, trust)
    except VerificationError:
        return False
    return True


def _guesses(
    request: Received, trust: Trust, others: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Received, Trust]]:
    patient = replace(trust, tolerance=_YEARS)
    yield (
        "the signature is good, only its time is not; --at gives the time of receipt",
        request,
        patient,
    )
    for hint, secrets in _secrets(trust.secrets):
        yield hint, request, replace(patient, secrets=secrets)
    for name, secrets in others.items():
        yield (
            f"it matches the secret of the source {name!r}",
            request,
            replace(patient, secrets=secrets),
        )
    for hint, body in _bodies(request.body):
        yield hint, replace(request, body=body), patient
    for hint, headers in _headers(request.headers):
        yield hint, replace(request, headers=headers), patient


def _secrets(secrets: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    yield "the secret has white space around it; take it away", [it.strip() for it in secrets]
    bare = [it.strip().strip("\"'") for it in secrets]
    yield "the secret stands in quotation marks; take them away", bare
    yield "the secret lacks its prefix whsec_", [f"whsec_{it}" for it in bare]
    yield "at the provider the secret ends with a line break", [f"{it}\n" for it in bare]
    yield "at the provider the secret ends with a blank", [f"{it} " for it in bare]


def _bodies(body: bytes) -> Iterator[tuple[str, bytes]]:
    yield "the saved body lacks the line break at its end", body + b"\n"
    yield "the saved body has a line break at its end that was not sent", body.rstrip(b"\r\n")
    yield "the saved body has other line ends than what was sent", body.replace(b"\r\n", b"\n")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    hint = "the body was read as JSON and written again before it came here; keep the raw bytes"
    for written in _written(value):
        yield hint, written
        yield hint, written + b"\n"


def _written(value: object) -> Iterable[bytes]:
    """JSON as the usual libraries write it."""
    for separators in ((",", ":"), (", ", ": ")):
        for ascii_only in (False, True):
            for sort in (False, True):
                yield json.dumps(
                    value, separators=separators, ensure_ascii=ascii_only, sort_keys=sort
                ).encode("utf-8", "replace")
    for indent in (2, 4):
        yield json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "replace")


def _headers(headers: Headers) -> Iterator[tuple[str, Headers]]:
    """Each header's digest in the other spellings, its prefix and the blanks around it kept apart."""
    for name, value in headers.pairs:
        rest = [pair for pair in headers.pairs if pair[0] != name]
        for hint, other in _respelt(value):
            yield f"the header {name} {hint}", Headers([*rest, (name, other)])


def _respelt(value: str) -> Iterator[tuple[str, str]]:
    yield "has white space around it", value.strip()
    yield "has its letters in the other case", value.lower()
    yield "has its letters in the other case", value.upper()
    prefix, equals, digest = value.rpartition("=") if value.startswith("sha") else ("", "", value)
    try:
        yield "holds hex where base64 is wanted", prefix + equals + _to_base64(digest)
    except ValueError:
        pass
    try:
        yield "holds base64 where hex is wanted", _to_hex(value)
    except (ValueError, binascii.Error):
        pass


def _to_base64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


def _to_hex(digest: str) -> str:
    return base64.b64decode(digest, validate=True).hex()
