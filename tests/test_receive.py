"""The webhook endpoint: what each input gets, through Flask and on the wire."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, strategies
from hypothesis import settings as hypothesis
from processes import (
    PROVIDER,
    SECRET,
    Running,
    Webhook,
    Wire,
    free_port,
    poll,
    pragma,
    relay,
    sent_headers,
    settings,
    sqlite,
    webhook,
)
from werkzeug.test import TestResponse

from relay import config as configuration
from relay import provider, samples
from relay.app import create_app
from relay.config import Config
from relay.model import Received, Reply, State, Trust
from relay.rehearse import Rehearsed, StandIn, addressed
from relay.store import Filter, Store, migrate

PATH = f"/webhooks/{PROVIDER}"
THREADS = 3


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "relay.yaml"
    changes = {"server": {"max_body": 65_536}}
    file.write_text(yaml.safe_dump(settings(8080, sqlite(tmp_path), **changes)), "utf-8")
    return configuration.load(file)


@pytest.fixture
def store(config: Config) -> Iterator[Store]:
    migrate(config.database)
    store = Store(config.database)
    yield store
    store.close()


@pytest.fixture
def client(config: Config, store: Store) -> FlaskClient:
    return create_app(config, store).test_client()


def post(client: FlaskClient, sent: Webhook, path: str = PATH, **headers: str) -> TestResponse:
    found = sent.headers | {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: value for name, value in found.items() if value}
    return client.post(path, data=sent.body, headers=kept)


def rows(database: str) -> list[tuple[Any, ...]]:
    """Every event, read through a connection of its own."""
    with contextlib.closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        return connection.execute("SELECT source, event_id, seen, state FROM events").fetchall()


def requests_stored(database: str) -> list[bytes]:
    with contextlib.closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        return [row[0] for row in connection.execute("SELECT body FROM requests")]


PENDING, DEAD = list(State).index(State.PENDING), list(State).index(State.DEAD)


def assert_refused(answer: TestResponse, status: int, reason: str) -> None:
    assert answer.status_code == status
    assert answer.content_type == "application/json"
    assert answer.json["error"] == reason
    assert answer.json["message"]


# What each input gets


def test_a_genuine_new_event_is_on_disk_when_it_is_acknowledged(
    client: FlaskClient, config: Config
) -> None:
    sent = webhook()
    assert post(client, sent).status_code == 200
    assert rows(config.database) == [(PROVIDER, sent.event_id, 1, PENDING)]
    assert requests_stored(config.database) == [sent.body]


def test_an_event_seen_before_is_acknowledged_and_counted(
    client: FlaskClient, config: Config
) -> None:
    sent = webhook()
    assert [post(client, sent).status_code for _ in range(3)] == [200, 200, 200]
    assert rows(config.database) == [(PROVIDER, sent.event_id, 3, PENDING)]
    assert len(requests_stored(config.database)) == 1


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"X_Razorpay_Signature": "0" * 64}, "bad_signature"),
        ({"X_Razorpay_Signature": ""}, "missing_header"),
        ({"X_Razorpay_Signature": "   "}, "missing_header"),
        ({"X_Razorpay_Signature": "not a digest"}, "malformed_header"),
        ({"X_Razorpay_Signature": "0" * 20_000}, "malformed_header"),
        ({"X_Razorpay_Signature": "é" * 64}, "bad_signature"),
    ],
)
def test_a_forgery_is_refused_with_its_reason_and_not_stored(
    client: FlaskClient, config: Config, headers: dict[str, str], reason: str
) -> None:
    sent = webhook()
    sent = replace(sent, headers={k: v for k, v in sent.headers.items() if "signature" not in k})
    assert_refused(post(client, sent, **headers), 401, reason)
    assert rows(config.database) == []


def test_a_body_that_was_changed_by_one_byte_is_refused(
    client: FlaskClient, config: Config
) -> None:
    sent = webhook()
    assert_refused(
        post(client, replace(sent, body=sent.body.replace(b"100", b"900", 1))), 401, "bad_signature"
    )
    assert rows(config.database) == []


def test_another_sources_secret_opens_nothing(client: FlaskClient, config: Config) -> None:
    assert_refused(post(client, webhook(secret="another")), 401, "bad_signature")
    assert rows(config.database) == []


def test_an_unknown_source_is_not_found(client: FlaskClient, config: Config) -> None:
    assert_refused(post(client, webhook(), "/webhooks/nobody"), 404, "unknown_source")
    assert_refused(post(client, webhook(), f"/webhooks/{'n' * 5000}"), 404, "unknown_source")
    assert rows(config.database) == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_wrong_method_is_told_the_right_one(
    client: FlaskClient, config: Config, method: str
) -> None:
    sent = webhook()
    answer = client.open(PATH, method=method, data=sent.body, headers=sent.headers)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert rows(config.database) == []


def test_a_body_over_the_limit_is_refused(client: FlaskClient, config: Config) -> None:
    limit = config.server.max_body
    assert post(client, webhook(body=b"[" * limit)).status_code == 200
    assert_refused(post(client, webhook(body=b"[" * (limit + 1))), 413, "too_large")
    assert [len(body) for body in requests_stored(config.database)] == [limit]


@pytest.mark.parametrize(
    "body",
    [b"", b"not JSON", b"\xff\xfe\x00", b"[" * 60_000, b"null", b'{"event": 7', b'{"payload": {}}'],
)
def test_what_is_genuine_and_cannot_be_read_is_kept_as_dead(
    client: FlaskClient, config: Config, store: Store, body: bytes
) -> None:
    assert post(client, webhook(body=body)).status_code == 200
    (dead,) = store.listed(Filter(state=State.DEAD))
    assert dead.type == "unreadable"
    assert dead.reason
    assert store.shown(dead.id)["request"].body == body
    assert requests_stored(config.database) == [body]


@pytest.mark.parametrize("id", ["", "e" * 300, "\udcff", "a\x00b"])
def test_an_event_whose_id_no_table_could_hold_is_kept_as_dead_too(
    client: FlaskClient, store: Store, id: str
) -> None:
    with changed(client, PROVIDER, parse=lambda _: [replace(event, id=id)]):
        event = provider.load(PROVIDER).parse(received(webhook()))[0]
        assert post(client, webhook()).status_code == 200
    (dead,) = store.listed(Filter(state=State.DEAD))
    assert dead.type == "unreadable"


def received(sent: Webhook) -> Received:
    headers = samples.of(PROVIDER)[0].request.headers.replaced(**sent.headers)
    return Received(sent.body, headers, datetime.now(UTC))


@contextlib.contextmanager
def changed(client: FlaskClient, name: str, **changes: Any) -> Iterator[None]:
    """A source whose provider differs in this."""
    extensions = client.application.extensions
    config: Config = extensions["relay.config"]
    source = config.sources[name]
    other = replace(source, provider=replace(source.provider, **changes))
    extensions["relay.config"] = replace(config, sources={**config.sources, name: other})
    yield
    extensions["relay.config"] = config


# When the store cannot be written


def test_a_full_disk_is_a_503_and_nothing_is_stored_until_there_is_room(
    client: FlaskClient, config: Config, store: Store
) -> None:
    pragma(store, f"max_page_count={pragma(store, 'page_count') + 4}")
    sent = webhook(body=webhook().body.ljust(60_000))
    answer = post(client, sent)
    assert_refused(answer, 503, "store_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert rows(config.database) == []
    pragma(store, "max_page_count=100000")
    assert post(client, sent).status_code == 200
    assert rows(config.database) == [(PROVIDER, sent.event_id, 1, PENDING)]


def test_a_database_that_is_read_only_is_a_503(
    client: FlaskClient, config: Config, store: Store
) -> None:
    pragma(store, "query_only=1")
    assert_refused(post(client, webhook()), 503, "store_unavailable")
    assert rows(config.database) == []
    pragma(store, "query_only=0")
    assert post(client, webhook()).status_code == 200


def test_a_database_that_stays_locked_is_a_503_and_well_again_afterwards(
    client: FlaskClient, config: Config, store: Store
) -> None:
    pragma(store, "busy_timeout=50")
    sent = webhook()
    with write_lock(config.database):
        answer = post(client, sent)
        assert_refused(answer, 503, "store_unavailable")
        assert "Retry-After" in answer.headers
    assert post(client, sent).status_code == 200
    assert rows(config.database) == [(PROVIDER, sent.event_id, 1, PENDING)]


@contextlib.contextmanager
def write_lock(database: str) -> Iterator[None]:
    """Nobody else can write."""
    path = database.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_a_file_that_is_no_database_any_more_is_a_503(
    client: FlaskClient, config: Config, store: Store
) -> None:
    store.close()
    Path(config.database.removeprefix("sqlite:///")).write_bytes(b"scrambled " * 10_000)
    assert_refused(post(client, webhook()), 503, "store_unavailable")


def test_a_refusal_tells_the_provider_nothing_about_the_database(
    client: FlaskClient, config: Config, store: Store
) -> None:
    pragma(store, "busy_timeout=50")
    with write_lock(config.database):
        text = post(client, webhook()).text.lower()
    assert "sqlite" not in text
    assert "locked" not in text


# Handshakes and acknowledgements


def asked(request: Received, trust: Trust) -> Reply | None:
    """A handshake: the answer proves that we know the secret."""
    if request.method != "GET" or request.body != b"":
        return None
    return Reply(f"{trust.secrets[0][:5]} {request.url.partition('?')[2]}", "text/html", 202)


def test_a_handshake_gets_the_answer_that_the_provider_wants(
    client: FlaskClient, config: Config
) -> None:
    with changed(client, PROVIDER, challenge=asked):
        answer = client.get(f"{PATH}?hub.challenge=42")
        assert (answer.status_code, answer.text) == (202, f"{SECRET[:5]} hub.challenge=42")
        assert answer.content_type == "text/html"
        assert client.put(PATH).status_code == 405
        assert post(client, webhook()).status_code == 200
    assert client.get(PATH).status_code == 405
    assert len(rows(config.database)) == 1


def test_a_handshake_that_proves_nothing_is_no_way_in(client: FlaskClient, config: Config) -> None:
    def refused(request: Received, trust: Trust) -> Reply | None:
        provider.load(PROVIDER).signature.verify(request, trust)
        return Reply("welcome")

    with changed(client, PROVIDER, challenge=refused):
        assert client.get(PATH).status_code == 405
        assert_refused(post(client, webhook(secret="another")), 401, "bad_signature")
    assert rows(config.database) == []


# Every provider


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    standin = StandIn()
    yield standin
    standin.close()


@pytest.fixture(scope="module")
def rehearsed(standin: StandIn) -> dict[str, Rehearsed]:
    """Every provider, with secrets of its own."""
    return {name: standin.rehearse(provider.load(name)) for name in provider.names()}


@pytest.fixture(scope="module")
def everybody(
    rehearsed: dict[str, Rehearsed], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlaskClient]:
    """A relay with a source for every provider."""
    home = tmp_path_factory.mktemp("everybody")
    sources = {
        name: {
            "provider": name,
            "destination": "site",
            "secrets": list(each.rehearsal.secrets),
            "currency": "EUR",
            **each.settings,
        }
        for name, each in rehearsed.items()
    }
    file = home / "relay.yaml"
    file.write_text(yaml.safe_dump(settings(8080, sqlite(home)) | {"sources": sources}), "utf-8")
    config = configuration.load(file)
    migrate(config.database)
    store = Store(config.database)
    yield create_app(config, store).test_client()
    store.close()


def signed(rehearsed: Rehearsed, sample: samples.Sample) -> tuple[str, Received]:
    """Where to, and what."""
    name = rehearsed.provider.name
    request = rehearsed.sign(addressed(sample, "http://127.0.0.1:8080", name))
    secret = f"/{request.url_secret}" if request.url_secret else ""
    _, mark, query = request.url.partition("?")
    return f"/webhooks/{name}{secret}{mark}{query}", request


@pytest.mark.parametrize("name", provider.names())
def test_every_provider_is_acknowledged_in_its_own_words(
    everybody: FlaskClient, rehearsed: dict[str, Rehearsed], name: str
) -> None:
    store: Store = everybody.application.extensions["relay.store"]
    path, request = signed(rehearsed[name], samples.of(name)[0])
    answer = everybody.post(path, data=request.body, headers=sent_headers(request))
    assert answer.status_code == 200
    assert answer.text == rehearsed[name].provider.acknowledge().body
    assert store.counted(Filter(source=name)) > 0


def test_adyen_hears_accepted(everybody: FlaskClient, rehearsed: dict[str, Rehearsed]) -> None:
    path, request = signed(rehearsed["adyen"], samples.of("adyen")[0])
    answer = everybody.post(path, data=request.body, headers=sent_headers(request))
    assert (answer.status_code, answer.text) == (200, "[accepted]")


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("gocardless", "payments.confirmed.batch"),
        ("adyen", "AUTHORISATION.renewal_and_partial_refund"),
    ],
)
def test_every_event_of_a_request_is_stored(
    everybody: FlaskClient, rehearsed: dict[str, Rehearsed], name: str, sample: str
) -> None:
    store: Store = everybody.application.extensions["relay.store"]
    recorded = next(it for it in samples.of(name) if it.name == sample)
    path, request = signed(rehearsed[name], recorded)
    answer = everybody.post(path, data=request.body, headers=sent_headers(request))
    assert answer.status_code == 200
    told = {it["event_id"] for part in recorded.expected.values() for it in part}
    assert len(told) > 1
    stored = {row.event_id: row for row in store.listed(Filter(source=name))}
    assert told <= set(stored)
    assert len({stored[id].request for id in told}) == 1


@pytest.mark.parametrize("secret", ["", "/wrong", "/wrong/er", "/%00", "/" + "w" * 5_000])
def test_a_wrong_secret_in_the_url_opens_nothing(
    everybody: FlaskClient, rehearsed: dict[str, Rehearsed], secret: str
) -> None:
    name = next(it for it, each in rehearsed.items() if each.provider.signature.place == "url")
    store: Store = everybody.application.extensions["relay.store"]
    before = store.counted(Filter(source=name))
    _, request = signed(rehearsed[name], samples.of(name)[1])
    answer = everybody.post(f"/webhooks/{name}{secret}", data=request.body)
    if secret.count("/") > 1:
        assert answer.status_code == 404
    else:
        reason = "bad_url_secret" if secret else "missing_url_secret"
        assert_refused(answer, 401, reason)
    assert store.counted(Filter(source=name)) == before


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_stale_signature_is_refused_where_the_time_is_signed(
    everybody: FlaskClient, rehearsed: dict[str, Rehearsed], minutes: int
) -> None:
    timed = [name for name, it in rehearsed.items() if it.provider.signature.signs_time]
    assert timed
    for name in timed:
        store: Store = everybody.application.extensions["relay.store"]
        before = store.counted(Filter(source=name))
        then = datetime.now(UTC) + timedelta(minutes=minutes)
        request = rehearsed[name].sign(replace(samples.of(name)[0].request, received_at=then))
        answer = everybody.post(
            f"/webhooks/{name}", data=request.body, headers=sent_headers(request)
        )
        assert_refused(answer, 401, "stale_timestamp")
        assert store.counted(Filter(source=name)) == before


# Nothing is ever a 500

HOSTILE = ["", "é", "\x7f", "ÿ" * 300, "x" * 10_000, "a, b", "a,a", "-1", "9" * 400, '"', "=;=,"]


@pytest.mark.parametrize("name", provider.names())
def test_headers_of_odd_kinds_are_never_a_500(
    everybody: FlaskClient, rehearsed: dict[str, Rehearsed], name: str
) -> None:
    path, request = signed(rehearsed[name], samples.of(name)[0])
    for header in sent_headers(request):
        others = [pair for pair in sent_headers(request).items() if pair[0] != header]
        for value in HOSTILE:
            for doubled in (1, 2):
                odd = [*others, *[(header, value)] * doubled]
                answer = everybody.post(path, data=request.body, headers=odd)
                assert answer.status_code < 500, (header, value[:20], answer.text)


header_names = strategies.sampled_from(
    sorted(
        {
            name
            for each in provider.names()
            for it in samples.of(each)
            for name in sent_headers(it.request)
        }
    )
)
header_values = strategies.text(
    strategies.characters(min_codepoint=32, max_codepoint=255), max_size=200
)


@hypothesis(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=strategies.sampled_from(provider.names()),
    body=strategies.binary(max_size=500),
    headers=strategies.lists(strategies.tuples(header_names, header_values), max_size=6),
    rest=strategies.text(max_size=30),
    query=strategies.binary(max_size=30),
)
def test_no_bytes_whatever_are_a_500(
    everybody: FlaskClient,
    name: str,
    body: bytes,
    headers: list[tuple[str, str]],
    rest: str,
    query: bytes,
) -> None:
    environ = {"QUERY_STRING": query.decode("latin-1")}
    path = f"/webhooks/{name}/{rest}" if rest else f"/webhooks/{name}"
    kept = [pair for pair in headers if pair[0] != "content-length"]
    answer = everybody.post(path, data=body, headers=kept, environ_overrides=environ)
    assert answer.status_code in {200, 308, 401, 404, 405}, answer.text


json_values = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text(strategies.characters(exclude_categories=[]), max_size=300),
    lambda it: (
        strategies.lists(it, max_size=3)
        | strategies.dictionaries(strategies.sampled_from(["id", "event", "type", "events"]), it)
    ),
    max_leaves=8,
)


@hypothesis(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=strategies.sampled_from(provider.names()),
    body=strategies.binary(max_size=300) | json_values.map(lambda it: json.dumps(it).encode()),
)
def test_no_genuine_bytes_whatever_are_a_500(
    everybody: FlaskClient, rehearsed: dict[str, Rehearsed], name: str, body: bytes
) -> None:
    sample = replace(samples.of(name)[0])
    try:
        path, request = signed(
            rehearsed[name], replace(sample, request=replace(sample.request, body=body))
        )
    except Exception:  # noqa: BLE001 - what cannot be signed cannot be sent
        return
    answer = everybody.post(path, data=request.body, headers=sent_headers(request))
    assert answer.status_code in {200, 401}, answer.text


# On the wire


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`relay web`, two processes of it."""
    home = tmp_path_factory.mktemp("web")
    secret = "a-secret-in-the-url"
    sources = {"unsigned": {"provider": "gumroad", "destination": "site", "secrets": [secret]}}
    changes = {
        "server": {"max_body": 65_536, "processes": 2, "threads": THREADS},
        "sources": sources,
    }
    with relay(home, "web", settings(free_port(), sqlite(home), **changes)) as running:
        yield running
        harmless = {"webhook.unreadable", "Socket error processing request."}
        wrong = [line for line in running.lines() if line.get("level") in {"error", "critical"}]
        assert [line for line in wrong if line["event"] not in harmless] == []


UNSIGNED = "/webhooks/unsigned/a-secret-in-the-url"


def database(web: Running) -> str:
    return sqlite(web.log.parent)


def stored(web: Running, sent: Webhook) -> list[tuple[Any, ...]]:
    return [row for row in rows(database(web)) if row[1] == sent.event_id]


def exchange(web: Running, data: bytes, *, end: bool = False) -> int | None:
    """The status of the answer to these bytes, if any."""
    with Wire(web.port) as wire:
        wire.send(data)
        if end:
            wire.half_close()
        answer = wire.answer()
        return answer.status if answer else None


def test_a_real_process_stores_before_it_acknowledges(web: Running) -> None:
    sent = webhook()
    assert exchange(web, sent.wire()) == 200
    assert stored(web, sent) == [(PROVIDER, sent.event_id, 1, PENDING)]


def test_one_connection_carries_many_webhooks(web: Running) -> None:
    with Wire(web.port) as wire:
        for _ in range(5):
            sent = webhook()
            wire.send(sent.wire())
            answer = wire.answer()
            assert answer is not None
            assert answer.status == 200
            assert len(stored(web, sent)) == 1


def test_the_same_event_in_flight_is_not_acknowledged_before_the_first_is_durable(
    web: Running,
) -> None:
    sent = webhook()
    with contextlib.ExitStack() as stack:
        with write_lock(database(web)):
            wires = [stack.enter_context(Wire(web.port)) for _ in range(4)]
            for wire in wires:
                wire.send(sent.wire())
            assert not any(wire.readable(0.2) for wire in wires)
            assert stored(web, sent) == []
        answers = [wire.answer() for wire in wires]
    assert [answer.status for answer in answers if answer] == [200] * 4
    assert stored(web, sent) == [(PROVIDER, sent.event_id, 4, PENDING)]


def test_the_same_event_from_many_at_once_is_stored_once(web: Running) -> None:
    sent = webhook()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: exchange(web, sent.wire()), range(36)))
    assert answers == [200] * 36
    assert stored(web, sent) == [(PROVIDER, sent.event_id, 36, PENDING)]


def test_a_body_that_announces_too_much_is_refused_before_it_is_sent(web: Running) -> None:
    sent = webhook()
    with Wire(web.port) as wire:
        wire.send(sent.wire(Content_Length=str(10**12)))
        answer = wire.answer()
        assert answer is not None
        assert (answer.status, answer.json["error"]) == (413, "too_large")
    assert stored(web, sent) == []


def test_an_endless_body_without_a_length_is_refused_and_not_read_to_its_end(web: Running) -> None:
    sent, piece = webhook(), b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    pieces = 0
    with Wire(web.port) as wire:
        head = sent.wire(Content_Length="", Transfer_Encoding="chunked")
        wire.send(head[: -len(sent.body)])
        with contextlib.suppress(ConnectionError):
            while pieces < 1_000 and not wire.readable(0):
                wire.send(piece)
                pieces += 1
        answer = wire.answer()
    assert pieces < 1_000
    assert answer is not None
    assert answer.status == 413
    assert stored(web, sent) == []


def test_what_follows_a_body_that_was_refused_is_not_taken_for_a_request(web: Running) -> None:
    smuggled = webhook()
    body = smuggled.wire() + b"x" * 200_000
    with Wire(web.port) as wire, contextlib.suppress(ConnectionError):
        wire.send(replace(webhook(), body=body).wire() + webhook().wire())
        answer = wire.answer()
        assert answer is not None
        assert answer.status == 413
        following = wire.answer()
        assert following is None or following.status == 200
    assert stored(web, smuggled) == []


def test_a_body_without_a_length_is_as_good_as_one_with(web: Running) -> None:
    sent = webhook()
    half = len(sent.body) // 2
    pieces = [sent.body[:half], sent.body[half:], b""]
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    head = sent.wire(Content_Length="", Transfer_Encoding="chunked")[: -len(sent.body)]
    assert exchange(web, head + chunked) == 200
    assert len(stored(web, sent)) == 1


@pytest.mark.parametrize("path", [PATH, UNSIGNED])
def test_a_body_that_breaks_off_is_refused_and_not_stored(web: Running, path: str) -> None:
    before = rows(database(web))
    wire = webhook().wire(path)
    assert exchange(web, wire[:-10], end=True) == 400
    assert rows(database(web)) == before


@pytest.mark.parametrize("path", [PATH, UNSIGNED])
@pytest.mark.parametrize(
    "body",
    [
        b"ff\r\nshort",
        b"5\r\nprice\r\n",
        b"5\r\nprice\r\n0\r\n",
        b"5\r\nprice_and_more\r\n0\r\n\r\n",
        b"zz\r\nprice\r\n0\r\n\r\n",
        b"-5\r\nprice\r\n0\r\n\r\n",
        b"5;\x01\r\nprice\r\n0\r\n\r\n",
        b"5\r\nprice\r\n0\r\nbad trailer\r\n\r\n",
    ],
)
def test_pieces_that_are_broken_are_refused_and_not_stored(
    web: Running, path: str, body: bytes
) -> None:
    before = rows(database(web))
    sent = replace(webhook(), body=body)
    assert (
        exchange(web, sent.wire(path, Content_Length="", Transfer_Encoding="chunked"), end=True)
        == 400
    )
    assert rows(database(web)) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Length": "-1"},
        {"Content_Length": "1e3"},
        {"Content_Length": "+5"},
        {"Content_Length": "9" * 30},
        {"Transfer_Encoding": "chunked"},
        {"Transfer_Encoding": "gzip", "Content_Length": ""},
        {"Content_Type": "a\x00b"},
    ],
)
def test_lengths_that_make_no_sense_are_refused_and_nothing_is_stored(
    web: Running, headers: dict[str, str]
) -> None:
    sent = webhook()
    status = exchange(web, sent.wire(**headers), end=True)
    assert status is not None
    assert 400 <= status < 500 or status == 501
    assert stored(web, sent) == []


def test_more_than_was_announced_is_not_part_of_the_body(web: Running) -> None:
    sent = webhook()
    with Wire(web.port) as wire:
        wire.send(sent.wire() + b"and this\r\n\r\n")
        first = wire.answer()
        assert first is not None
        assert first.status == 200
        second = wire.answer()
        assert second is None or second.status == 400
    assert sent.body in requests_stored(database(web))


def test_a_doubled_signature_is_refused(web: Running) -> None:
    sent = webhook()
    name = "x-razorpay-signature"
    line = f"{name}: {sent.headers[name]}\r\n".encode()
    assert exchange(web, sent.wire().replace(line, line * 2)) == 401
    assert stored(web, sent) == []


@pytest.mark.parametrize(
    "line",
    [
        b"X-Odd: \xff\xfe\xe9\r\n",
        b"X-Huge: " + b"h" * 7_000 + b"\r\n",
        b"X-Empty:\r\n",
        b"X-Twice: 1\r\nX-Twice: 2\r\n",
        b"X_Underscored: 1\r\n",
        b"Content-Type: \xe9; charset=\xff\r\n",
        b"Host: \xe9\r\n",
        b"Cookie: \xff=\xff; a\r\n",
    ],
)
def test_odd_headers_beside_a_good_signature_do_no_harm(web: Running, line: bytes) -> None:
    sent = webhook()
    odd = sent.wire(Host="", content_type="").replace(b"\r\n", b"\r\n" + line, 1)
    status = exchange(web, odd)
    assert status in {200, 400}
    assert len(stored(web, sent)) == (status == 200)


@pytest.mark.parametrize("line", [b"X-Huge: " + b"h" * 100_000, b"X-Many: 1\r\n" * 500 + b"X: 1"])
def test_too_many_headers_are_refused(web: Running, line: bytes) -> None:
    sent = webhook()
    status = exchange(web, sent.wire().replace(b"\r\n", b"\r\n" + line + b"\r\n", 1))
    assert status is None or 400 <= status < 500
    assert stored(web, sent) == []


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"TRACE", b"BREW", b"CONNECT"])
def test_a_probe_is_told_the_right_method(web: Running, method: bytes) -> None:
    request = method + b" " + PATH.encode() + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    with Wire(web.port) as wire:
        wire.send(request)
        if method == b"HEAD":
            assert wire.socket.recv(12) == b"HTTP/1.1 405"
            return
        answer = wire.answer()
    assert answer is not None
    assert answer.status == 405
    assert "POST" in answer.headers["allow"]


def test_clients_that_fall_silent_do_not_keep_others_out(web: Running) -> None:
    with contextlib.ExitStack() as stack:
        for half in (webhook().wire()[:-10], b"POST /webhooks/"):
            for _ in range(THREADS):  # enough to keep both processes busy
                stack.enter_context(Wire(web.port)).send(half)
        sent = webhook()
        assert exchange(web, sent.wire()) == 200
        assert len(stored(web, sent)) == 1


def test_a_client_that_goes_away_before_the_answer_loses_nothing(web: Running) -> None:
    sent = webhook()
    with Wire(web.port) as wire:
        wire.send(sent.wire())
    poll("the webhook is stored", lambda: stored(web, sent))
