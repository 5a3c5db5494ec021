"""Recorded requests: their files, and the story that each provider's tell together."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import provider, samples
from relay.errors import RelayError
from relay.model import Headers, Received
from relay.samples import Sample

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SAMPLES = [sample for name in provider.names() for sample in samples.of(name)]
each_name = pytest.mark.parametrize("name", provider.names())
each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda it: f"{it.provider}/{it.name}")


def written(request: Received) -> bytes:
    """A request as it stands in an `.http` file."""
    target = request.url.removeprefix("https://").partition("/")[2]
    lines = [f"{request.method} /{target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.pairs]
    return "\n".join(lines).encode("latin-1") + b"\n\n" + request.body


# The files


@each_sample
def test_a_recorded_request_survives_a_round_trip(sample: Sample) -> None:
    raw = (samples.root() / sample.provider / f"{sample.name}.http").read_bytes()
    request = samples.parse(raw, sample.request.received_at, sample.request.url_secret)
    assert (
        samples.parse(written(request), request.received_at, request.url_secret).headers
        == request.headers
    )
    assert written(request).partition(b"\n\n")[2] == raw.partition(b"\n\n")[2]
    again = samples.parse(written(request), request.received_at, request.url_secret)
    assert (again.body, again.url, again.method) == (request.body, request.url, request.method)
    head, again_head = (it.partition(b"\n\n")[0].lower() for it in (raw, written(request)))
    assert head == again_head


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True).filter(lambda it: it != "host")
VALUES = st.text(
    st.characters(min_codepoint=33, max_codepoint=255, exclude_categories=["Cc"]), max_size=30
)


@given(
    body=st.binary(max_size=300),
    headers=st.lists(st.tuples(NAMES, VALUES.map(str.strip)), max_size=5),
    secret=st.none() | st.text("abc0", min_size=1),
)
def test_any_request_survives_a_round_trip(
    body: bytes, headers: list[tuple[str, str]], secret: str | None
) -> None:
    url = f"https://relay.example.com/webhooks/shop{'/' + secret if secret else ''}"
    request = Received(body, Headers(headers), NOON, url, url_secret=secret)
    assert_same(samples.parse(written(request), NOON, secret), request)


def assert_same(found: Received, wanted: Received) -> None:
    assert (found.body, found.headers, found.url) == (wanted.body, wanted.headers, wanted.url)
    assert (found.method, found.received_at) == (wanted.method, wanted.received_at)
    assert found.url_secret == wanted.url_secret


def test_the_host_is_part_of_the_url() -> None:
    raw = b"PUT /webhooks/x?a=1 HTTP/1.1\nHost: shop.example.com\n\nbody"
    assert samples.parse(raw, NOON).url == "https://shop.example.com/webhooks/x?a=1"
    assert samples.parse(raw, NOON).method == "PUT"


def test_empty_lines_of_a_body_are_its_own() -> None:
    raw = b"POST / HTTP/1.1\nA: b\n\n\n\nbody\n\n"
    assert samples.parse(raw, NOON).body == b"\n\nbody\n\n"


def test_a_sample_is_read_with_its_facts(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "paid.http").write_bytes(b"POST /webhooks/shop HTTP/1.1\nA: b\n\n{}")
    (folder / "answer.json").write_bytes(b'{"amount": 24.20}')
    (folder / "key.pem").write_bytes(b"PEM")
    facts = {
        "origin": "made up",
        "proof": "formula",
        "received_at": "2026-03-01T13:00:00+01:00",
        "secrets": ["a", "b"],
        "settings": {"test": True},
        "currency": "EUR",
        "downloads": {"https://x.example/key": "key.pem"},
        "fetched": [{"path": "/v1/x", "file": "answer.json"}],
        "expected": {"payments": [], "ignored": []},
    }
    (folder / "paid.json").write_text(json.dumps(facts))
    (found,) = samples.of("shop", tmp_path)
    assert (found.provider, found.name, found.secrets) == ("shop", "paid", ("a", "b"))
    assert found.request.received_at == NOON
    assert found.documents[0].body == b'{"amount": 24.20}'
    trust = found.trust(17)
    assert (trust.secrets, trust.tolerance, trust.settings) == (("a", "b"), 17, {"test": True})
    assert trust.download("https://x.example/key") == b"PEM"
    with pytest.raises(RelayError, match=r"https://y\.example/key"):
        trust.download("https://y.example/key")


def test_a_provider_without_recorded_requests_has_none(tmp_path: Path) -> None:
    assert samples.of("nobody", tmp_path) == []


@each_name
def test_no_answer_of_the_api_is_recorded_and_never_asked_for(name: str) -> None:
    """A file that nothing names is a left-over."""
    folder = samples.root() / name
    used = {f"{it.name}{end}" for it in samples.of(name) for end in (".http", ".json")}
    for sample in samples.of(name):
        facts = json.loads((folder / f"{sample.name}.json").read_text("utf-8"))
        used |= {each["file"] for each in facts.get("fetched", [])}
        used |= set(facts.get("downloads", {}).values())
    recorded = {it.name for it in folder.iterdir() if it.suffix in {".http", ".json", ".pem"}}
    traps = "".join(it.read_text("utf-8") for it in folder.glob("test_*.py"))
    assert {it for it in recorded - used if it not in traps} == set()


@each_sample
def test_nothing_that_is_recorded_belongs_to_a_real_person(sample: Sample) -> None:
    """Addresses are of the domains that are reserved for examples, or the provider's own."""
    for entry in sample.expected.get("payments", []):
        email = entry["datafast"].get("email", "a@example.com")
        domain = email.rpartition("@")[2]
        reserved = domain.endswith(
            ("example.com", "example.org", "example.net", ".example", ".test")
        )
        assert reserved or sample.proof == "published" or sample.provider in domain, email
