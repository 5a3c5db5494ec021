"""`relay verify`: is a signature good, and if not, which mistake would explain it?"""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import simplejson
from command import Ran, run

from relay import diagnose, provider, samples
from relay.model import Headers, Received, Trust
from relay.rehearse import Rehearsed, StandIn

each_name = pytest.mark.parametrize("name", provider.names())


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    """Where certificates come from."""
    standing_in = StandIn()
    yield standing_in
    standing_in.close()


def signed(rehearsed: Rehearsed, body: bytes | None = None) -> Received:
    """A recorded request of the provider's, signed with secrets made up here."""
    known = [it.request for it in samples.of(rehearsed.provider.name)]
    # Where some are XML, it is JSON that is signed.
    recorded = next((it for it in known if it.body.startswith(b"{")), known[0])
    return rehearsed.sign(replace(recorded, body=recorded.body if body is None else body))


def verify(
    folder: Path,
    name: str,
    request: Received,
    secret: str,
    *more: Any,
    settings: dict[str, Any] | None = None,
    at: datetime | None = None,
) -> Ran:
    (folder / "body").write_bytes(request.body)
    args: list[Any] = ["verify", name, folder / "body", "--secret", secret]
    args += ["--at", (at or request.received_at).isoformat()]
    for key, value in request.headers.pairs:
        args += ["--header", f"{key}: {value}"]
    url = request.url
    if request.url_secret:
        url = f"https://relay.example.com/webhooks/x/{request.url_secret}"
    args += ["--url", url]
    for key, value in (settings or {}).items():
        args += ["--setting", f"{key}={value}"]
    return run(*args, *more)


def rehearsal(name: str, standin: StandIn) -> tuple[Rehearsed, dict[str, Any]]:
    """Secrets of one's own, and the settings that the check needs to know of."""
    rehearsed = standin.rehearse(provider.load(name))
    known = rehearsed.provider.defaults()
    wanted = {k: v for k, v in rehearsed.settings.items() if k in known and k != "signing_key"}
    return rehearsed, wanted


# What every provider's signatures have in common


@each_name
def test_a_good_signature_is_0(name: str, standin: StandIn, tmp_path: Path) -> None:
    rehearsed, settings = rehearsal(name, standin)
    (secret,) = rehearsed.rehearsal.secrets
    ran = verify(tmp_path, name, signed(rehearsed), secret, settings=settings)
    assert (ran.code, ran.out, ran.err) == (0, "good\n", "")


@each_name
def test_one_good_secret_of_several_is_enough(name: str, standin: StandIn, tmp_path: Path) -> None:
    rehearsed, settings = rehearsal(name, standin)
    (newest,) = rehearsed.provider.signature.rehearse().secrets
    (secret,) = rehearsed.rehearsal.secrets
    ran = verify(tmp_path, name, signed(rehearsed), newest, "--secret", secret, settings=settings)
    assert (ran.code, ran.out) == (0, "good\n")


@each_name
def test_another_secret_is_1_with_the_reason_and_no_made_up_hint(
    name: str, standin: StandIn, tmp_path: Path
) -> None:
    rehearsed, settings = rehearsal(name, standin)
    (other,) = rehearsed.provider.signature.rehearse().secrets
    ran = verify(tmp_path, name, signed(rehearsed), other, settings=settings)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith("bad: ")
    assert "but:" not in ran.out
    assert other not in ran.out


@each_name
def test_white_space_around_the_secret_is_named(
    name: str, standin: StandIn, tmp_path: Path
) -> None:
    rehearsed, settings = rehearsal(name, standin)
    (secret,) = rehearsed.rehearsal.secrets
    ran = verify(tmp_path, name, signed(rehearsed), f" {secret}\n", settings=settings)
    assert ran.code == 1
    assert ran.out.endswith("but: the secret has white space around it; take it away\n")


@each_name
def test_quotation_marks_around_the_secret_are_named(
    name: str, standin: StandIn, tmp_path: Path
) -> None:
    rehearsed, settings = rehearsal(name, standin)
    (secret,) = rehearsed.rehearsal.secrets
    ran = verify(tmp_path, name, signed(rehearsed), f'"{secret}"', settings=settings)
    assert ran.code == 1
    assert ran.out.endswith("but: the secret stands in quotation marks; take them away\n")


@each_name
def test_the_secret_of_another_source_is_found_in_the_configuration(
    name: str, standin: StandIn, tmp_path: Path
) -> None:
    rehearsed, settings = rehearsal(name, standin)
    (secret,) = rehearsed.rehearsal.secrets
    (other,) = rehearsed.provider.signature.rehearse().secrets
    required = {it.name: "value" for it in rehearsed.provider.settings if it.required}
    if "api_base" in required:
        required["api_base"] = "https://api.example.com"
    (tmp_path / "relay.yaml").write_text(
        json.dumps(
            {
                "destinations": {"main": {"api_key": "df_abc"}},
                "sources": {
                    "the-other": {
                        "provider": name,
                        "destination": "main",
                        "secrets": [other, secret],
                        **required,
                    }
                },
            }
        )
    )
    ran = verify(
        tmp_path,
        name,
        signed(rehearsed),
        rehearsed.provider.signature.rehearse().secrets[0],
        "--config",
        tmp_path / "relay.yaml",
        settings=settings,
    )
    assert ran.code == 1
    assert ran.out.endswith("but: it matches the secret of the source 'the-other'\n")
    assert secret not in ran.out


# Signed if it is there; and what tells the one way from the other.
DISPENSABLE = {("mercado_pago", "x-request-id"), ("recurly", "recurly-signature")}


def header_names() -> Iterator[tuple[str, str]]:
    """Each header that a provider signs with or signs."""
    for name in provider.names():
        recorded = samples.of(name)[0].request
        plain = {"host", "content-type", "user-agent", "origin", "accept", "content-length"}
        for header, _ in recorded.headers.pairs:
            if (name, header) in DISPENSABLE:
                continue
            if header not in plain and provider.load(name).signature.place == "header":
                yield name, header


@pytest.mark.parametrize(("name", "header"), [*header_names()])
def test_a_missing_header_is_named(
    name: str, header: str, standin: StandIn, tmp_path: Path
) -> None:
    rehearsed, settings = rehearsal(name, standin)
    (secret,) = rehearsed.rehearsal.secrets
    request = signed(rehearsed)
    rest = Headers([pair for pair in request.headers.pairs if pair[0] != header])
    without = replace(request, headers=rest)
    ran = verify(tmp_path, name, without, secret, settings=settings)
    if ran.code == 0:  # it is no part of the signature
        trust = Trust([secret], 300, rehearsed.settings, rehearsed.download)
        provider.load(name).signature.verify(without, trust)
        return
    assert ran.out.lower().startswith(f"bad: missing_header: the header {header} is missing")


@each_name
def test_a_stale_time_is_told_with_its_age_and_how_to_look_past_it(
    name: str, standin: StandIn, tmp_path: Path
) -> None:
    rehearsed, settings = rehearsal(name, standin)
    (secret,) = rehearsed.rehearsal.secrets
    request = signed(rehearsed)
    late = request.received_at + timedelta(hours=1)
    ran = verify(tmp_path, name, request, secret, settings=settings, at=late)
    if not rehearsed.provider.signature.signs_time and name != "recurly":  # its XML has no time
        assert ran.code == 0
        return
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "bad: stale_timestamp: the request was signed 3600 s old; 300 s are allowed",
        "but: the signature is good, only its time is not; --at gives the time of receipt",
    ]
    wide = ("--tolerance", 4000)
    assert verify(tmp_path, name, request, secret, *wide, settings=settings, at=late).code == 0


# The body's mistakes, where the whole body is signed

COMPACT = '{"type":"paid","name":"Zoë/Ltd","amount":24.20,"big":9007199254740993,"b":1,"a":[2,3]}'
COVERING = [
    name
    for name in provider.names()
    if provider.load(name).signature.covers_body
    and provider.load(name).signature.place == "header"
    # It signs what the JSON says, however it is written.
    and name != "nowpayments"
]
each_covering = pytest.mark.parametrize("name", COVERING)


def respelt(**how: Any) -> bytes:
    """COMPACT as a library writes it; its numbers stay as they are."""
    value = simplejson.loads(COMPACT, use_decimal=True)
    return simplejson.dumps(value, use_decimal=True, **how).encode()


JSON_AGAIN = "the body was read as JSON and written again before it came here; keep the raw bytes"


@pytest.mark.parametrize(
    "saved",
    [
        respelt(),
        respelt(indent=2),
        respelt(indent=4, ensure_ascii=False),
        COMPACT.replace("/", "\\/").encode(),
    ],
    ids=["python", "pretty", "prettier", "php"],
)
@each_covering
def test_a_body_that_was_written_again_is_recognised(
    name: str, saved: bytes, standin: StandIn, tmp_path: Path
) -> None:
    rehearsed, settings = rehearsal(name, standin)
    (secret,) = rehearsed.rehearsal.secrets
    request = replace(signed(rehearsed, COMPACT.encode()), body=saved)
    ran = verify(tmp_path, name, request, secret, settings=settings)
    assert ran.code == 1
    assert ran.out.endswith(f"but: {JSON_AGAIN}\n")


@each_covering
def test_a_body_that_was_changed_besides_is_not_explained_away(
    name: str, standin: StandIn, tmp_path: Path
) -> None:
    rehearsed, settings = rehearsal(name, standin)
    (secret,) = rehearsed.rehearsal.secrets
    changed = respelt(indent=2).replace(b"24.20", b"24.2")
    request = replace(signed(rehearsed, COMPACT.encode()), body=changed)
    ran = verify(tmp_path, name, request, secret, settings=settings)
    assert ran.code == 1
    assert "but: " not in ran.out


@each_covering
def test_a_body_that_is_pretty_at_the_provider_is_recognised_when_it_is_saved_compact(
    name: str, standin: StandIn, tmp_path: Path
) -> None:
    rehearsed, settings = rehearsal(name, standin)
    (secret,) = rehearsed.rehearsal.secrets
    request = replace(
        signed(rehearsed, respelt(indent=2, ensure_ascii=False)), body=COMPACT.encode()
    )
    ran = verify(tmp_path, name, request, secret, settings=settings)
    assert ran.out.endswith(f"but: {JSON_AGAIN}\n")


@pytest.mark.parametrize(
    ("sent", "saved", "hint"),
    [
        ("{}\n", "{}", "the saved body lacks the line break at its end"),
        ("{}", "{}\n", "the saved body has a line break at its end that was not sent"),
        ("{}", "{}\r\n", "the saved body has a line break at its end that was not sent"),
        ("{\n}", "{\r\n}", "the saved body has other line ends than what was sent"),
    ],
    ids=["missing", "added", "added_crlf", "crlf"],
)
@each_covering
def test_a_line_break_that_came_or_went_is_recognised(
    name: str, sent: str, saved: str, hint: str, standin: StandIn, tmp_path: Path
) -> None:
    rehearsed, settings = rehearsal(name, standin)
    (secret,) = rehearsed.rehearsal.secrets
    request = replace(signed(rehearsed, sent.encode()), body=saved.encode())
    ran = verify(tmp_path, name, request, secret, settings=settings)
    assert ran.code == 1
    assert ran.out.endswith(f"but: {hint}\n")


# Spellings


def hint(name: str, request: Received, *secrets: str) -> str:
    """What the diagnosis says would make the signature good."""
    known = provider.load(name)
    trust = Trust(secrets, 300, known.defaults(), lambda _: b"")
    verdict = diagnose.diagnose(known, request, trust)
    assert not verdict.good
    return verdict.hint


def request_of(name: str) -> tuple[Received, str]:
    rehearsed = Rehearsed(provider.load(name), provider.load(name).signature.rehearse(), "")
    return signed(rehearsed), rehearsed.rehearsal.secrets[0]


def with_header(request: Received, header: str, value: str) -> Received:
    rest = [pair for pair in request.headers.pairs if pair[0] != header]
    return replace(request, headers=Headers([*rest, (header, value)]))


def test_base64_in_place_of_hex_is_named_with_its_header() -> None:
    request, secret = request_of("razorpay")
    claimed = request.headers.get("x-razorpay-signature") or ""
    spelt = base64.b64encode(bytes.fromhex(claimed)).decode()
    assert hint("razorpay", with_header(request, "x-razorpay-signature", spelt), secret) == (
        "the header x-razorpay-signature holds base64 where hex is wanted"
    )


def test_hex_in_place_of_base64_is_named_with_its_header() -> None:
    request, secret = request_of("dodopayments")
    claimed = (request.headers.get("webhook-signature") or "").removeprefix("v1,")
    spelt = f"v1,{base64.b64decode(claimed).hex()}"
    assert hint("dodopayments", with_header(request, "webhook-signature", spelt), secret) == (
        "the header webhook-signature holds hex where base64 is wanted"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (str.upper, "has its letters in the other case"),
        (lambda it: f" {it} ", "has white space around it"),
        (lambda it: f"sha256={it}", "has a prefix that was not sent"),
    ],
    ids=["capitals", "blanks", "prefix"],
)
def test_a_digest_that_is_spelt_otherwise_is_recognised(change: Any, words: str) -> None:
    request, secret = request_of("razorpay")
    claimed = request.headers.get("x-razorpay-signature") or ""
    spelt = with_header(request, "x-razorpay-signature", change(claimed))
    assert hint("razorpay", spelt, secret) == f"the header x-razorpay-signature {words}"


def test_a_version_that_was_cut_off_is_recognised() -> None:
    request, secret = request_of("dodopayments")
    claimed = (request.headers.get("webhook-signature") or "").removeprefix("v1,")
    assert "lacks the prefix v1," in hint(
        "dodopayments", with_header(request, "webhook-signature", claimed), secret
    )


def test_a_secret_in_the_wrong_encoding_is_recognised() -> None:
    request, secret = request_of("dodopayments")
    as_hex = base64.b64decode(secret.removeprefix("whsec_")).hex()
    assert hint("dodopayments", request, as_hex) == "the secret is in hex where base64 is wanted"
    request, secret = request_of("adyen")
    as_base64 = base64.b64encode(bytes.fromhex(secret)).decode()
    assert hint("adyen", request, as_base64) == "the secret is in base64 where hex is wanted"


@pytest.mark.parametrize("end", ["\n", " "])
def test_a_secret_that_was_saved_with_a_blank_at_the_provider_is_recognised(end: str) -> None:
    known = provider.load("razorpay")
    trust = Trust([f"a-secret{end}"], 300, known.defaults(), lambda _: b"")
    request = known.signature.sign(samples.of("razorpay")[0].request, trust)
    assert hint("razorpay", request, "a-secret").startswith(
        "at the provider the secret ends with a"
    )


def test_two_mistakes_at_once_are_not_guessed() -> None:
    request, secret = request_of("razorpay")
    assert hint("razorpay", replace(request, body=request.body + b"\n"), f"{secret} ") == ""


def test_a_hint_never_makes_a_bad_signature_good() -> None:
    request, secret = request_of("razorpay")
    known = provider.load("razorpay")
    trust = Trust([f" {secret}"], 300, known.defaults(), lambda _: b"")
    verdict = diagnose.diagnose(known, request, trust)
    assert (verdict.good, verdict.reason) == (False, "bad_signature")
    assert verdict.hint


def test_a_url_without_its_secret_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"a=1")
    ran = run("verify", "gumroad", tmp_path / "body", "--secret", "0123456789abcdef")
    assert ran.code == 1
    assert ran.out.startswith("bad: missing_url_secret: ")


@pytest.mark.parametrize("body", [b"", b"\xff\x00", b"[" * 100_000, b"9" * 5_000, b"1e999999999"])
@each_name
def test_no_body_breaks_the_diagnosis(name: str, body: bytes, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(body)
    for secret in ("", "whsec_x", "é", "00"):
        ran = run("verify", name, tmp_path / "body", "--secret", secret, "--header", "a: b")
        assert ran.code == 1
        assert ran.out.startswith("bad: ")


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["razorpay", "{body}"],
        ["razorpay", "{folder}/missing", "--secret", "x"],
        ["nobody", "{body}", "--secret", "x"],
        ["razorpay", "{body}", "--secret", "x", "--at", "noon"],
        ["razorpay", "{body}", "--secret", "x", "--header", "nothing"],
        ["razorpay", "{body}", "--secret", "x", "--config", "{folder}/missing"],
        ["razorpay", "{body}", "--secret", "x", "--setting", "nothing=1"],
    ],
    ids=lambda it: " ".join(it) or "nothing",
)
def test_wrong_usage_of_verify_is_2(args: list[str], tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"{}")
    ran = run("verify", *(it.format(folder=tmp_path, body=tmp_path / "body") for it in args))
    assert (ran.code, ran.out) == (2, "")
