"""The parts of signature schemes: they take what is genuine, and nothing that is one bit from it."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from relay import verify
from relay.errors import VerificationError
from relay.model import Headers, Received, Trust
from relay.verify import (
    BasicAuth,
    BodyHmac,
    Signature,
    StandardWebhooks,
    StaticToken,
    TemplateHmac,
    UrlSecret,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()

HMACS = [
    BodyHmac("X-Signature"),
    BodyHmac("X-Signature", encoding="HEX"),
    BodyHmac("X-Signature", algorithm="sha512", encoding="base64"),
    BodyHmac("X-Signature", algorithm="sha1", prefix="sha1="),
    BodyHmac("X-Signature", algorithm="md5"),
    TemplateHmac("X-Signature", template="{timestamp}.{body}", timestamp_header="X-Timestamp"),
]
STANDARD = [
    StandardWebhooks(),
    StandardWebhooks(prefix="svix-"),
    StandardWebhooks(literal_key=True),
]
each_hmac = pytest.mark.parametrize("scheme", HMACS, ids=lambda it: f"{it.algorithm}-{it.encoding}")
each_standard = pytest.mark.parametrize("scheme", STANDARD, ids=["webhook", "svix", "literal"])


def trust(*secrets: str, tolerance: float = 300) -> Trust:
    return Trust(secrets, tolerance, {}, lambda _: b"")


def received(body: bytes = b'{"a": 1}', *headers: tuple[str, str], at: datetime = NOON) -> Received:
    return Received(body, Headers(headers), at)


def refusal(scheme: Signature, request: Received, by: Trust) -> str:
    """Why it is refused."""
    with pytest.raises(VerificationError) as caught:
        scheme.verify(request, by)
    return caught.value.reason


def is_good(scheme: Signature, request: Received, by: Trust) -> bool:
    try:
        scheme.verify(request, by)
    except VerificationError:
        return False
    return True


def with_headers(request: Received, name: str, *values: str) -> Received:
    rest = [pair for pair in request.headers.pairs if pair[0] != name.lower()]
    return replace(request, headers=Headers([*rest, *((name, value) for value in values)]))


def flipped(data: bytes, bit: int) -> bytes:
    """The same with one bit turned over."""
    at, within = divmod(bit % (len(data) * 8), 8)
    return data[:at] + bytes([data[at] ^ (1 << within)]) + data[at + 1 :]


BITS = st.integers(0, 10**9)
BODIES = st.binary(min_size=1, max_size=200)
SECRETS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


# HMAC of the body


@each_hmac
@given(body=BODIES, secret=SECRETS)
def test_what_is_signed_is_good(scheme: BodyHmac, body: bytes, secret: str) -> None:
    scheme.verify(scheme.sign(received(body), trust(secret)), trust(secret))


def test_the_digest_is_the_one_that_everybody_computes() -> None:
    digest = hmac.new(b"secret", b'{"a": 1}', hashlib.sha256).hexdigest()
    BodyHmac("X-Signature").verify(received(b'{"a": 1}', ("x-signature", digest)), trust("secret"))


@each_hmac
@given(body=BODIES, secret=SECRETS, bit=BITS)
def test_no_flipped_bit_of_a_body_is_good(
    scheme: BodyHmac, body: bytes, secret: str, bit: int
) -> None:
    signed = scheme.sign(received(body), trust(secret))
    forged = replace(signed, body=flipped(body, bit))
    assert not is_good(scheme, forged, trust(secret))


@each_hmac
@given(bit=BITS)
def test_no_flipped_bit_of_a_signature_is_good(scheme: BodyHmac, bit: int) -> None:
    signed = scheme.sign(received(), trust("secret"))
    claimed = signed.headers.get("x-signature") or ""
    at = len(scheme.prefix)
    forged = claimed[:at] + flipped(claimed[at:].encode(), bit).decode("latin-1")
    assert forged != claimed
    assert not is_good(scheme, with_headers(signed, "X-Signature", forged), trust("secret"))


@each_hmac
@given(secret=SECRETS, bit=BITS)
def test_no_flipped_bit_of_a_secret_is_good(scheme: BodyHmac, secret: str, bit: int) -> None:
    try:
        other = flipped(secret.encode(), bit).decode()
    except UnicodeDecodeError:
        other = secret + "x"
    # HMAC itself pads a short key with zeros, so these two are one key.
    if other.rstrip("\x00") != secret.rstrip("\x00"):
        signed = scheme.sign(received(), trust(secret))
        assert refusal(scheme, signed, trust(other)) == "bad_signature"


@each_hmac
def test_any_of_the_secrets_is_enough(scheme: BodyHmac) -> None:
    signed = scheme.sign(received(), trust("old"))
    scheme.verify(signed, trust("newest", "newer", "old"))
    assert refusal(scheme, signed, trust("newest", "newer")) == "bad_signature"


@each_hmac
def test_a_missing_a_doubled_and_a_broken_header_are_told_apart(scheme: BodyHmac) -> None:
    signed = scheme.sign(received(), trust("secret"))
    claimed = signed.headers.get("x-signature") or ""
    for values, reason in (
        ([], "missing_header"),
        ([""], "missing_header"),
        (["  "], "missing_header"),
        ([claimed, claimed], "malformed_header"),
        ([claimed[:-1]], "malformed_header"),
        ([claimed + "0"], "malformed_header"),
        (["x" * 10_000], "malformed_header"),
        (["0" * (len(claimed) - len(scheme.prefix))], "bad_signature"),
    ):
        request = with_headers(signed, "X-Signature", *values)
        assert refusal(scheme, request, trust("secret")) == reason, values


def test_only_the_providers_own_spelling_counts() -> None:
    scheme = BodyHmac("X-Signature")
    signed = scheme.sign(received(), trust("secret"))
    claimed = signed.headers.get("x-signature") or ""
    for other in (claimed.upper(), f" {claimed}", f"{claimed}\n", f"0x{claimed[2:]}"):
        assert not is_good(scheme, with_headers(signed, "X-Signature", other), trust("secret"))


@pytest.mark.parametrize("scheme", [BodyHmac("X-Signature"), StandardWebhooks(literal_key=True)])
@given(text=st.text(max_size=80))
def test_no_header_breaks_the_check(scheme: Signature, text: str) -> None:
    request = received(
        b"{}", ("X-Signature", text), ("webhook-id", text), ("webhook-timestamp", text),
        ("webhook-signature", text),
    )  # fmt: skip
    assert not is_good(scheme, request, trust("secret"))


def test_without_secrets_nothing_is_good() -> None:
    signed = BodyHmac("X-Signature").sign(received(), trust("secret"))
    assert refusal(BodyHmac("X-Signature"), signed, trust()) == "bad_signature"
    assert refusal(UrlSecret(), replace(received(), url_secret="x"), trust()) == "bad_url_secret"


# HMAC of a template

TIMED = TemplateHmac("X-Signature", timestamp_header="X-Timestamp")


def test_the_template_says_what_is_signed() -> None:
    scheme = TemplateHmac(
        "X-Signature",
        prefix="v1=",
        template="v1:{timestamp}:{body}!",
        timestamp_header="X-Timestamp",
    )
    stamp = str(int(NOON.timestamp()))
    digest = hmac.new(b"secret", f'v1:{stamp}:{{"a": 1}}!'.encode(), hashlib.sha256).hexdigest()
    request = received(b'{"a": 1}', ("X-Signature", f"v1={digest}"), ("X-Timestamp", stamp))
    scheme.verify(request, trust("secret"))
    assert scheme.sign(received(b'{"a": 1}'), trust("secret")).headers == request.headers.replaced(
        x_timestamp=stamp, x_signature=f"v1={digest}"
    )
    assert scheme.signs_time
    assert scheme.summary == "HMAC-SHA256 of v1:{timestamp}:{body}!"


@pytest.mark.parametrize("body", [b"{body}{timestamp}", b"{timestamp}.", b"\xff{body}"])
def test_what_looks_like_a_template_in_a_body_is_only_a_body(body: bytes) -> None:
    stamp = str(int(NOON.timestamp()))
    digest = hmac.new(b"secret", f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    TIMED.verify(received(body, ("X-Signature", digest), ("X-Timestamp", stamp)), trust("secret"))


@pytest.mark.parametrize("unit", [1, 1000])
@pytest.mark.parametrize(("seconds", "good"), [(0, True), (300, True), (301, False), (-301, False)])
def test_a_signed_time_is_fresh_within_the_tolerance(
    seconds: int,
    good: bool,  # noqa: FBT001
    unit: int,
) -> None:
    scheme = replace(TIMED, unit=unit)
    signed = scheme.sign(received(), trust("secret"))
    moved = replace(signed, received_at=NOON + timedelta(seconds=seconds))
    assert is_good(scheme, moved, trust("secret")) is good
    if not good:
        assert refusal(scheme, moved, trust("secret")) == "stale_timestamp"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "missing_header"),
        (["1772366400", "1772366400"], "malformed_header"),
        (["noon"], "malformed_timestamp"),
        (["2026-03-01T12:00:00Z"], "malformed_timestamp"),
        (["1772366401"], "bad_signature"),
    ],
)
def test_another_time_than_the_signed_one_is_refused(values: list[str], reason: str) -> None:
    signed = TIMED.sign(received(), trust("secret"))
    assert signed.headers.get("x-timestamp") == "1772366400"
    assert refusal(TIMED, with_headers(signed, "X-Timestamp", *values), trust("secret")) == reason


def test_a_template_with_a_time_and_no_header_for_it_lets_nothing_in() -> None:
    scheme = TemplateHmac("X-Signature")
    signed = TIMED.sign(received(), trust("secret"))
    assert refusal(scheme, signed, trust("secret")) == "missing_header"


def test_a_template_without_a_time_asks_for_none() -> None:
    scheme = TemplateHmac("X-Signature", template="salt{body}")
    signed = scheme.sign(received(), trust("secret"))
    assert not scheme.signs_time
    assert signed.headers.get("x-timestamp") is None
    scheme.verify(replace(signed, received_at=NOON + timedelta(days=9)), trust("secret"))
    assert refusal(BodyHmac("X-Signature"), signed, trust("secret")) == "bad_signature"


# Standard Webhooks


@each_standard
@given(body=BODIES)
def test_what_is_signed_by_the_standard_is_good(scheme: StandardWebhooks, body: bytes) -> None:
    scheme.verify(scheme.sign(received(body), trust(KEY)), trust(KEY))


def test_the_standards_own_library_agrees_both_ways() -> None:
    scheme, now = StandardWebhooks(), datetime.now(UTC)
    body = '{"type": "payment.succeeded", "name": "Zoë"}'
    signed = scheme.sign(received(body.encode(), at=now), trust(KEY))
    assert Webhook(KEY).verify(body, dict(signed.headers.pairs))
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(KEY).sign("msg_1", now, body),
    }
    scheme.verify(received(body.encode(), *headers.items(), at=now), trust(KEY))


@each_standard
@given(body=BODIES, bit=BITS)
def test_no_flipped_bit_of_a_body_is_good_by_the_standard(
    scheme: StandardWebhooks, body: bytes, bit: int
) -> None:
    signed = scheme.sign(received(body), trust(KEY))
    assert refusal(scheme, replace(signed, body=flipped(body, bit)), trust(KEY)) == "bad_signature"


@each_standard
@pytest.mark.parametrize("part", ["id", "timestamp", "signature"])
@given(bit=BITS)
def test_no_flipped_bit_of_a_header_is_good_by_the_standard(
    scheme: StandardWebhooks, part: str, bit: int
) -> None:
    signed = scheme.sign(received(), trust(KEY))
    name = scheme.prefix + part
    value = (signed.headers.get(name) or "").encode()
    forged = flipped(value, bit).decode("latin-1")
    # However patient the source is: what is signed is the time itself.
    assert not is_good(scheme, with_headers(signed, name, forged), trust(KEY, tolerance=10**9))


@each_standard
@pytest.mark.parametrize("part", ["id", "timestamp", "signature"])
def test_a_header_that_is_missing_is_named(scheme: StandardWebhooks, part: str) -> None:
    name = scheme.prefix + part
    without = with_headers(scheme.sign(received(), trust(KEY)), name)
    with pytest.raises(VerificationError, match=name) as caught:
        scheme.verify(without, trust(KEY))
    assert caught.value.reason == "missing_header"


@pytest.mark.parametrize(
    ("seconds", "good"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)]
)
def test_a_time_is_good_within_the_tolerance_in_both_directions(
    seconds: int,
    good: bool,  # noqa: FBT001
) -> None:
    signed = StandardWebhooks().sign(received(), trust(KEY))
    moved = replace(signed, received_at=NOON + timedelta(seconds=seconds))
    assert is_good(StandardWebhooks(), moved, trust(KEY)) is good
    if not good:
        assert refusal(StandardWebhooks(), moved, trust(KEY)) == "stale_timestamp"
        assert is_good(StandardWebhooks(), moved, trust(KEY, tolerance=302))


@pytest.mark.parametrize(
    "stamp",
    ["x", "1.5", "-1", "+1", "1e9", " 1", "1 ", "٣", "", "9" * 14, "9" * 400, "0x10", "1_0"],
)
def test_a_time_that_is_none_is_refused(stamp: str) -> None:
    signed = StandardWebhooks().sign(received(), trust(KEY))
    request = with_headers(signed, "webhook-timestamp", stamp)
    reason = refusal(StandardWebhooks(), request, trust(KEY, tolerance=10**12))
    assert reason in {"malformed_timestamp", "missing_header"}


def test_one_good_signature_of_several_is_enough() -> None:
    signed = StandardWebhooks().sign(received(), trust(KEY))
    claimed = signed.headers.get("webhook-signature") or ""
    wrong = "v1," + base64.b64encode(b"x" * 32).decode()
    for value in (f"{wrong} {claimed}", f"{claimed} {wrong}", f"v2,x v1a,y {claimed}"):
        StandardWebhooks().verify(with_headers(signed, "webhook-signature", value), trust(KEY))


@pytest.mark.parametrize("version", ["v2,", "v1a,", "V1,", ""])
def test_another_version_does_not_count(version: str) -> None:
    signed = StandardWebhooks().sign(received(), trust(KEY))
    claimed = (signed.headers.get("webhook-signature") or "").removeprefix("v1,")
    request = with_headers(signed, "webhook-signature", version + claimed)
    assert refusal(StandardWebhooks(), request, trust(KEY)) == "malformed_header"


def test_a_flood_of_signatures_is_not_worked_off() -> None:
    signed = StandardWebhooks().sign(received(), trust(KEY))
    claimed = signed.headers.get("webhook-signature") or ""
    wrong = "v1,AAAA "
    late = with_headers(signed, "webhook-signature", wrong * 20 + claimed)
    assert refusal(StandardWebhooks(), late, trust(KEY)) == "bad_signature"
    long = with_headers(signed, "webhook-signature", wrong * 1_000 + claimed)
    assert refusal(StandardWebhooks(), long, trust(KEY)) == "malformed_header"


def test_the_key_is_what_follows_the_prefix_or_the_literal_text() -> None:
    bare = KEY.removeprefix("whsec_")
    signed = StandardWebhooks().sign(received(), trust(KEY))
    StandardWebhooks().verify(signed, trust(bare))
    assert refusal(StandardWebhooks(literal_key=True), signed, trust(KEY)) == "bad_signature"


@pytest.mark.parametrize("secret", ["whsec_!", "not base64", "é", "whsec_abc"])
def test_a_secret_that_is_no_key_is_refused_and_not_guessed(secret: str) -> None:
    signed = StandardWebhooks().sign(received(), trust(KEY))
    assert refusal(StandardWebhooks(), signed, trust(secret)) == "unusable_secret"
    assert "base64" in (StandardWebhooks().flaw(secret) or "")


# A secret in the URL


@given(secret=st.text("abcdefgh0123456789-_", min_size=16, max_size=40), bit=BITS)
def test_only_the_very_secret_in_the_url_is_good(secret: str, bit: int) -> None:
    scheme, request = UrlSecret(), received()
    scheme.verify(scheme.sign(request, trust(secret)), trust(secret))
    forged = flipped(secret.encode(), bit).decode("latin-1")
    for other in (forged, secret[:-1], f"{secret}x", secret.upper() + "X"):
        assert (
            refusal(scheme, replace(request, url_secret=other), trust(secret)) == "bad_url_secret"
        )


@pytest.mark.parametrize("secret", [None, ""])
def test_a_url_without_a_secret_is_refused(secret: str | None) -> None:
    request = replace(received(), url_secret=secret)
    assert refusal(UrlSecret(), request, trust("0123456789abcdef")) == "missing_url_secret"
    assert refusal(UrlSecret(), request, trust("")) == "missing_url_secret"


@pytest.mark.parametrize(
    ("scheme", "secret", "is_fine"),
    [
        (UrlSecret(), "0123456789abcdef", True),
        (UrlSecret(), "0123456789abcde", False),
        (UrlSecret(), "0123456789abc/ef", False),
        (UrlSecret(), "0123456789abcdef\n", False),
        (UrlSecret(), "x" * 129, False),
        (BodyHmac("X"), "anything goes", True),
        (BodyHmac("X"), " blank", False),
        (BodyHmac("X"), "newline\n", False),
        (StandardWebhooks(), KEY, True),
        (StandardWebhooks(), f" {KEY}", False),
        (StandardWebhooks(literal_key=True), "anything goes", True),
    ],
)
def test_the_form_of_a_secret_is_looked_at(
    scheme: Signature,
    secret: str,
    is_fine: bool,  # noqa: FBT001
) -> None:
    flaw = scheme.flaw(secret)
    assert (flaw is None) is is_fine
    assert secret.strip() not in (flaw or "")


@pytest.mark.parametrize("scheme", [HMACS[0], STANDARD[0], UrlSecret()])
def test_a_rehearsal_has_a_new_secret_each_time_that_is_fine(scheme: Signature) -> None:
    first, second = scheme.rehearse(), scheme.rehearse()
    assert first.secrets != second.secrets
    assert scheme.flaw(first.secrets[0]) is None
    assert first.secrets[0] not in repr(first)


# The parts


def test_a_comparison_looks_at_every_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that its time does not tell which secret was nearly right."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def note(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(verify.hmac, "compare_digest", note)
    verify.matches(["b", "x"], ["a", "b", "c"])
    assert len(compared) == 6


@pytest.mark.parametrize(
    ("claimed", "digests"),
    [([], ["a"]), (["a"], []), (["a"], ["b"]), (["é"], ["a"]), (["\ud800"], ["a"])],
)
def test_what_matches_nothing_is_refused(claimed: Sequence[str], digests: Sequence[str]) -> None:
    with pytest.raises(VerificationError):
        verify.matches(claimed, digests)


@pytest.mark.parametrize(("text", "unit"), [("1772366400", 1), ("1772366400000", 1000)])
def test_a_unix_time_is_read_in_its_unit(text: str, unit: int) -> None:
    assert verify.unix_time(text, "X-Time", unit) == NOON


@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda at: at - timedelta(hours=1), "3600 s old"),
     (lambda at: at + timedelta(hours=1), "3600 s ahead of our clock")],
)  # fmt: skip
def test_a_stale_time_says_by_how_much_and_in_which_direction(
    change: Callable[[datetime], datetime], words: str
) -> None:
    with pytest.raises(VerificationError, match=words):
        verify.fresh(change(NOON), NOON, 300)


def test_no_refusal_repeats_a_secret_or_a_signature() -> None:
    messages: list[Any] = []
    signed = BodyHmac("X-Signature").sign(received(), trust("hush-hush"))
    for request in (
        signed,
        with_headers(signed, "X-Signature", "hush"),
        replace(received(), url_secret="hush"),
    ):
        for scheme in (BodyHmac("X-Signature"), UrlSecret(), StandardWebhooks()):
            try:
                scheme.verify(request, trust("other-hush"))
            except VerificationError as error:
                messages.append(error.message)
    assert len(messages) == 9
    assert not [
        it for it in messages if "hush" in it or (signed.headers.get("x-signature") or "-") in it
    ]


TOKENS = [StaticToken("X-Token"), StaticToken("Authorization", prefix="Bearer ")]


@pytest.mark.parametrize("scheme", TOKENS, ids=lambda it: it.header)
def test_a_static_token_is_good_whole_and_while_it_is_rotated(scheme: StaticToken) -> None:
    sent = scheme.sign(received(), trust("old token"))
    assert is_good(scheme, sent, trust("old token"))
    assert is_good(scheme, sent, trust("new token", "old token"))
    assert refusal(scheme, sent, trust("new token")) == "bad_signature"
    assert refusal(scheme, received(), trust("old token")) == "missing_header"
    for wrong in ("old toke", "old tokenn", "OLD TOKEN", "old token, old token", "é"):
        forged = received(b"{}", (scheme.header, scheme.prefix + wrong))
        assert refusal(scheme, forged, trust("old token")) == "bad_signature"


def test_a_user_and_a_password_are_good_together_only() -> None:
    scheme = BasicAuth()
    sent = scheme.sign(received(), trust("relay:secret"))
    assert sent.headers.get("authorization") == "Basic cmVsYXk6c2VjcmV0"
    assert is_good(scheme, sent, trust("new:one", "relay:secret"))
    assert refusal(scheme, sent, trust("relay:other")) == "bad_signature"
    assert refusal(scheme, received(), trust("relay:secret")) == "missing_header"
    for wrong in ("secret", ":secret", "relay:"):
        assert scheme.flaw(wrong)
    assert scheme.flaw("relay:secret") is None
