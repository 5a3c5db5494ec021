"""The contract, over every provider and every recorded request. It names no provider."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from runpy import run_path
from typing import Any
from urllib.parse import urlsplit

import pytest
import simplejson

from relay import mapping, preview, provider, samples
from relay.errors import FetchError, PayloadError, VerificationError
from relay.model import Headers, Received, Trust
from relay.samples import Sample

ROOT = Path(__file__).parent / "providers"
NAMES = provider.names()
SAMPLES = [sample for name in NAMES for sample in samples.of(name, ROOT)]
HOSTILE = ("", " ", "é", "\x00", "x" * 10_000, "1" * 400, "v1,", "=", "t=1,t=2", "true", "[]")
READABLE = re.compile(r"[A-Za-z0-9].{10,}", re.DOTALL)

each_name = pytest.mark.parametrize("name", NAMES)
each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda it: f"{it.provider}/{it.name}")


def verify(sample: Sample, request: Received | None = None, trust: Trust | None = None) -> None:
    """Check a request as the sample's source would."""
    signature = provider.load(sample.provider).signature
    signature.verify(request or sample.request, trust or sample.trust())


def refused(sample: Sample, request: Received, trust: Trust | None = None) -> bool:
    try:
        verify(sample, request, trust)
    except VerificationError:
        return True
    return False


def become(sample: Sample, request: Received | None = None) -> dict[str, Any]:
    """What the sample becomes, in the shape of its `expected`."""
    try:
        return dict(
            preview.preview(
                provider.load(sample.provider),
                request or sample.request,
                settings=dict(sample.settings),
                documents=sample.documents,
                currency=sample.currency,
            )
        )
    except PayloadError as error:
        if error.reason == "adapter_error":
            pytest.fail(error.message)
        return preview.unreadable(error)


# The signature


@each_sample
def test_the_recorded_request_is_genuine(sample: Sample) -> None:
    verify(sample)


@each_sample
def test_an_older_secret_still_counts_while_it_is_rotated(sample: Sample) -> None:
    newest = provider.load(sample.provider).signature.rehearse().secrets
    verify(sample, trust=replace(sample.trust(), secrets=(*newest, *sample.secrets)))


@each_sample
def test_another_secret_is_refused(sample: Sample) -> None:
    others = provider.load(sample.provider).signature.rehearse().secrets
    assert refused(sample, sample.request, replace(sample.trust(), secrets=others))


@each_sample
def test_no_flipped_bit_of_what_is_signed_passes(sample: Sample) -> None:
    signature = provider.load(sample.provider).signature
    if not signature.covers_body:
        pytest.skip(
            f"{sample.provider} does not sign the whole body; its own tests say what it does"
        )
    body = sample.request.body
    for at in {0, len(body) // 2, len(body) - 1}:
        forged = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        assert refused(sample, replace(sample.request, body=forged)), f"byte {at}"


@each_sample
def test_a_stale_or_future_request_is_refused(sample: Sample) -> None:
    if not provider.load(sample.provider).signature.signs_time:
        pytest.skip(f"{sample.provider} signs no time")
    for minutes in (-6, 6):
        moved = sample.request.received_at + timedelta(minutes=minutes)
        assert refused(sample, replace(sample.request, received_at=moved))


@each_sample
def test_hostile_headers_are_refused_and_break_nothing(sample: Sample) -> None:
    """Whatever a header holds, the answer is yes or a VerificationError; some header must matter."""
    mattering = 0
    for name, value in sample.request.headers.pairs:
        rest = [pair for pair in sample.request.headers.pairs if pair[0] != name]
        mattering += refused(sample, replace(sample.request, headers=Headers(rest)))
        for hostile in (*HOSTILE, value + value, value[:-1], value + " ", value.swapcase() + "x"):
            refused(sample, replace(sample.request, headers=Headers([*rest, (name, hostile)])))
        refused(
            sample, replace(sample.request, headers=Headers([*rest, (name, "x"), (name, value)]))
        )
    signature = provider.load(sample.provider).signature
    if signature.place == "url":
        wrong = [None, "", "é", "x" * 10_000, sample.secrets[0][:-1], sample.secrets[0] + "0"]
        assert all(refused(sample, replace(sample.request, url_secret=it)) for it in wrong)
    elif signature.place == "header":
        assert mattering


@each_sample
def test_hostile_bodies_never_break_the_check(sample: Sample) -> None:
    for body in (b"", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}", b"=", b"a=1&a[b]=2"):
        refused(sample, replace(sample.request, body=body))


@each_name
def test_what_is_signed_here_is_accepted_here(name: str) -> None:
    """For `relay send` and the demo. What others sign is proved by the recorded requests."""
    signature = provider.load(name).signature
    rehearsal = signature.rehearse()
    assert [signature.flaw(secret) for secret in rehearsal.secrets] == [None]
    for sample in samples.of(name, ROOT):
        settings = {**provider.load(name).defaults(), **sample.settings, **rehearsal.settings}
        trust = Trust(
            rehearsal.secrets, 300, settings, lambda url: rehearsal.downloads[urlsplit(url).path]
        )
        signature.verify(signature.sign(sample.request, trust), trust)


@each_sample
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDKs' own
def test_the_providers_own_sdk_agrees(sample: Sample) -> None:
    """`oracle.py` beside the recorded requests asks the SDK; where there is none, others prove it."""
    path = ROOT / sample.provider / "oracle.py"
    if sample.proof != "sdk":
        pytest.skip(f"proved otherwise: {sample.proof}")
    accepts = run_path(str(path))["accepts"]
    assert accepts(sample)
    if not provider.load(sample.provider).signature.covers_body:
        return
    forged = replace(sample.request, body=sample.request.body.replace(b"1", b"2", 1))
    assert not accepts(replace(sample, request=forged))


# The meaning


@each_sample
def test_it_becomes_what_it_must(sample: Sample, request: pytest.FixtureRequest) -> None:
    found = become(sample)
    if request.config.getoption("--update-golden"):
        update(sample, found)
    assert found == sample.expected or request.config.getoption("--update-golden")


def update(sample: Sample, found: dict[str, Any]) -> None:
    """Rewrite `expected`, and nothing else."""
    file = ROOT / sample.provider / f"{sample.name}.json"
    facts = simplejson.loads(file.read_text("utf-8"), use_decimal=True)
    facts["expected"] = found
    text = simplejson.dumps(facts, use_decimal=True, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", "utf-8")


@each_sample
def test_ids_do_not_depend_on_when_it_is_received(sample: Sample) -> None:
    later = replace(sample.request, received_at=sample.request.received_at + timedelta(days=1))
    loaded = provider.load(sample.provider)
    settings = loaded.defaults() | dict(sample.settings)
    first = mapping.events(loaded, sample.request, settings)
    second = mapping.events(loaded, later, settings)
    assert [event.id for event in first] == [event.id for event in second]
    assert len({event.id for event in first}) == len(first)


@each_sample
def test_broken_variants_are_payload_errors_and_nothing_else(sample: Sample) -> None:
    for body in variants(sample.request):
        try:
            become(sample, replace(sample.request, body=body))
        except FetchError:
            continue


def variants(request: Received) -> Iterator[bytes]:
    """The body with each of its keys removed or of another type, and bodies that are none."""
    yield from (b"", b"[]", b"null", b"0", b"\xff", b"[" * 100_000, b"{}", b'{"a":', b"a[b]=1&a=2")
    if not request.body.lstrip().startswith((b"{", b"[")):
        pairs = request.body.split(b"&")
        yield from (b"&".join(pairs[:i] + pairs[i + 1 :]) for i in range(len(pairs)))
        yield from (
            b"&".join([*pairs[:i], pairs[i] + b"\xff", *pairs[i + 1 :]]) for i in range(len(pairs))
        )
        return
    whole = simplejson.loads(request.body)
    for holder, key in places(whole):
        kept = holder[key]
        for other in (
            None,
            [],
            {},
            "",
            "x",
            -1,
            10**40,
            True,
            1.5,
            "\ud800",
            "2018-19-12T00:00:00Z",
        ):
            holder[key] = other
            yield simplejson.dumps(whole).encode()
        holder[key] = kept
        if isinstance(holder, dict):
            del holder[key]
            yield simplejson.dumps(whole).encode()
            holder[key] = kept


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


# Completeness, both ways


@each_name
def test_the_module_says_what_people_need(name: str) -> None:
    loaded = provider.load(name)
    assert loaded.about.startswith(f"{loaded.title}"), "the docstring begins with TITLE"
    assert loaded.docs.startswith("https://")
    for text in (
        loaded.setup.where,
        loaded.setup.secret,
        loaded.setup.visitor,
        loaded.signature.summary,
    ):
        assert READABLE.match(text)
    assert set(loaded.setup.events) <= set(loaded.events) | set(loaded.ignored)
    assert not set(loaded.events) & set(loaded.ignored)
    if loaded.fetch:
        assert "api_base" in loaded.defaults()


@each_name
def test_every_mapped_type_has_a_recorded_request(name: str) -> None:
    recorded = {
        entry["event_type"] for sample in samples.of(name, ROOT) for entry in outcomes(sample)
    }
    assert set(provider.load(name).events) <= recorded


@each_name
def test_some_recorded_request_is_ignored(name: str) -> None:
    assert any(sample.expected.get("ignored") for sample in samples.of(name, ROOT))


@each_name
def test_some_signature_is_proved_by_somebody_else(name: str) -> None:
    """By a published vector or the provider's SDK; or else the module says that there is neither."""
    if provider.load(name).signature.place == "url":
        pytest.skip(f"{name} signs nothing")
    proofs = {sample.proof for sample in samples.of(name, ROOT)}
    assert proofs & {"published", "sdk"} or "no published vector" in provider.load(name).about


def outcomes(sample: Sample) -> list[dict[str, Any]]:
    return [*sample.expected.get("payments", []), *sample.expected.get("ignored", [])]


def test_every_folder_has_its_module_and_every_request_its_facts() -> None:
    folders = {folder.name for folder in ROOT.iterdir() if folder.is_dir()}
    assert folders == set(NAMES)
    for request in ROOT.glob("*/*.http"):
        assert request.with_suffix(".json").exists(), request
    for sample in SAMPLES:
        assert sample.proof in {"published", "sdk", "formula", "none"}
        assert READABLE.match(sample.origin)
