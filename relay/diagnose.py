"""Why a signature is not good: which common mistake would make it match.

Each guess is one change to the request or to the secret, after which the provider's own check
passes. Nothing is guessed that a forger could use: the check itself stays what it is.
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import simplejson

from relay.errors import VerificationError
from relay.model import Headers, Received, Trust
from relay.provider import Provider

# What stands before a digest: `sha256=`, `v1,`.
_PREFIX = re.compile(r"sha\d+=|v\d,")
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
        hint = next((hint for hint, other, by in guesses if _passes(provider, other, by)), "")
        return Verdict(good=False, reason=error.reason, message=error.message, hint=hint)
    return Verdict(good=True)


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
    for name, theirs in others.items():
        yield (
            f"it matches the secret of the source {name!r}",
            request,
            replace(patient, secrets=theirs),
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
    yield "the secret is in base64 where hex is wanted", _all(_to_hex, bare)
    yield "the secret is in hex where base64 is wanted", _all(_to_base64, bare)
    yield "at the provider the secret ends with a line break", [f"{it}\n" for it in bare]
    yield "at the provider the secret ends with a blank", [f"{it} " for it in bare]


def _all(respell: Callable[[str], str], secrets: Sequence[str]) -> list[str]:
    """Those secrets that can be spelt so."""
    found = []
    for secret in secrets:
        try:
            found.append(respell(secret.removeprefix("whsec_")))
        except ValueError:
            continue
    return found


def _bodies(body: bytes) -> Iterator[tuple[str, bytes]]:
    yield "the saved body lacks the line break at its end", body + b"\n"
    yield "the saved body has a line break at its end that was not sent", body.rstrip(b"\r\n")
    yield "the saved body has other line ends than what was sent", body.replace(b"\r\n", b"\n")
    try:
        value = simplejson.loads(body, use_decimal=True)
    except (ValueError, ArithmeticError, RecursionError):
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
                written = simplejson.dumps(
                    value,
                    separators=separators,
                    ensure_ascii=ascii_only,
                    sort_keys=sort,
                    use_decimal=True,
                ).encode("utf-8", "replace")
                yield written
                yield written.replace(b"/", b"\\/")  # as PHP does
    for indent in (2, 4):
        yield simplejson.dumps(value, indent=indent, ensure_ascii=False, use_decimal=True).encode(
            "utf-8", "replace"
        )


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
    before = _PREFIX.match(value)
    prefix = before.group() if before else ""
    digest = value.removeprefix(prefix)
    yield "lacks the prefix sha256=", f"sha256={digest}"
    yield "lacks the prefix v1,", f"v1,{digest}"
    yield "has a prefix that was not sent", digest
    for hint, respell in (
        ("holds hex where base64 is wanted", _to_base64),
        ("holds base64 where hex is wanted", _to_hex),
    ):
        try:
            yield hint, prefix + respell(digest)
        except ValueError:
            continue


def _to_base64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


def _to_hex(digest: str) -> str:
    return base64.b64decode(digest, validate=True).hex()
