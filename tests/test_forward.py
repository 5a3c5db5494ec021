"""One POST becomes one outcome, whatever comes back."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import simplejson
from helpers import KEY, NOON, VISITOR, DataFast
from hypothesis import given
from hypothesis import strategies as st

from relay import mapping
from relay.config import Destination
from relay.forward import Forwarder, classify, retry_time
from relay.mapping import Body
from relay.model import Kind, Outcome, Payment, Result
from relay.sandbox import Options


def answer(message: Any, id: Any = "pay_1", **rest: Any) -> str:
    return simplejson.dumps({"message": message, "transaction_id": id, **rest})


def read(status: int, text: str = "", **headers: str) -> Outcome:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify(status, text, named, "pay_1", NOON)


# What an answer means


@pytest.mark.parametrize(
    ("message", "result"),
    [
        ("Payment recorded and attributed successfully", Result.ATTRIBUTED),
        ("Payment recorded", Result.RECORDED),
        ("Payment recorded, not attributed", Result.RECORDED),
        (f"First event not found for visitor {VISITOR}", Result.VISITOR_NOT_FOUND),
        ("Visitor not found", Result.VISITOR_NOT_FOUND),
        ("Duplicate transaction: this transaction_id is recorded already", Result.DUPLICATE),
        ("This payment was already recorded", Result.DUPLICATE),
        ("Payment refunded", Result.REFUNDED),
        ("Refund recorded and attributed successfully", Result.REFUNDED),
        ("PAYMENT RECORDED", Result.RECORDED),
        ("All is well", Result.UNKNOWN),
        ("", Result.UNKNOWN),
        (None, Result.UNKNOWN),
        (["recorded?"], Result.RECORDED),
    ],
)
def test_a_200_means_what_its_message_says(message: Any, result: Result) -> None:
    assert read(200, answer(message)).result is result


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "null", "[]", "1", "<html>recorded</html>", "[" * 100_000, '{"a":', "{}"],
)
def test_a_200_that_cannot_be_read_is_not_taken_for_a_yes(text: str) -> None:
    assert read(200, text).result is Result.UNKNOWN


def test_an_answer_about_another_transaction_is_not_taken_for_a_yes() -> None:
    assert read(200, answer("Payment recorded", "pay_2")).result is Result.UNKNOWN
    assert read(200, simplejson.dumps({"message": "Payment recorded"})).result is Result.RECORDED


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (301, Result.UNAVAILABLE),
        (302, Result.UNAVAILABLE),
        (400, Result.REJECTED),
        (401, Result.UNAUTHORISED),
        (403, Result.UNAUTHORISED),
        (404, Result.UNAUTHORISED),
        (405, Result.REJECTED),
        (408, Result.UNAVAILABLE),
        (409, Result.UNAVAILABLE),
        (413, Result.REJECTED),
        (422, Result.REJECTED),
        (425, Result.UNAVAILABLE),
        (429, Result.THROTTLED),
        (500, Result.UNAVAILABLE),
        (502, Result.UNAVAILABLE),
        (503, Result.UNAVAILABLE),
        (504, Result.UNAVAILABLE),
        (599, Result.UNAVAILABLE),
    ],
)
def test_any_other_status_means_what_it_says_whatever_the_body(status: int, result: Result) -> None:
    for text in ("", answer("Payment recorded"), '{"error": {"message": "recorded"}}'):
        assert read(status, text).result is result


def test_the_message_is_found_where_datafast_puts_it() -> None:
    error = '{"status": "error", "error": {"code": 400, "message": "currency is wrong"}}'
    assert read(400, error).message == "currency is wrong"
    assert read(400, '{"error": "currency is wrong"}').message == "currency is wrong"
    assert read(400, "<html>").message == "HTTP 400, without a message"


def test_only_the_beginning_of_an_answer_is_kept() -> None:
    outcome = read(500, "x" * 100_000)
    assert outcome.answer == "x" * 2_048
    assert len(read(400, answer("y" * 100_000)).message) == 2_048


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
NUMBERS = st.integers(min_value=-(10**20), max_value=10**20).map(str)
DATES = [
    "9" * 5_000,
    "253402300800000",
    "Mon, 01 Jan",
    "Mon, 01 Jan 0001 00:00:00 +2300",
    "Mon, 01 Jan 0001 00:00:00 -0000",
    "Fri, 31 Dec 9999 23:59:59 -2300",
    "Fri, 31 Dec 9999 23:59:59 -0000",
    "Sun, 01 Mar 2026 12:05:00 +9999",
    "Sun, 01 Mar 2026 12:05:00 -99999999999",
    "Sun, 01 Mar 99999999 12:05:00 GMT",
    "Sun, 99 Mar 2026 99:05:00 GMT",
]
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        name: st.text() | NUMBERS | st.sampled_from(DATES)
        for name in ("Retry-After", "X-RateLimit-Reset", "X-RateLimit-Remaining")
    },
)


@given(
    status=st.integers(min_value=100, max_value=999),
    text=st.text()
    | JSON.map(json.dumps)
    | st.fixed_dictionaries({"message": JSON, "error": JSON, "transaction_id": JSON}).map(
        json.dumps
    ),
    headers=HEADERS,
)
def test_no_answer_breaks_anything_and_each_can_be_stored(
    status: int, text: str, headers: dict[str, str]
) -> None:
    outcome = classify(status, text, headers, "pay_1", NOON)
    for kept in (outcome.message, outcome.answer):
        assert "\x00" not in kept
        kept.encode()
    if outcome.retry_at is not None:
        assert outcome.retry_at.tzinfo is UTC


# When to ask again


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": " 120 "}, 120),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "9" * 5_000}, 7 * 86_400),
        ({"Retry-After": "Sun, 01 Mar 2026 12:05:00 GMT"}, 300),
        ({"Retry-After": "Sun, 01 Mar 2026 14:05:00 +0200"}, 300),
        ({"X-RateLimit-Reset": str(int(NOON.timestamp()) + 30)}, 30),
        ({"X-RateLimit-Reset": str((int(NOON.timestamp()) + 30) * 1000)}, 30),
        ({"X-RateLimit-Reset": "30"}, 30),
        ({"X-RateLimit-Reset": "-30"}, None),
        ({"X-RateLimit-Reset": "later"}, None),
        ({"X-RateLimit-Reset": "9" * 15}, None),
        ({"X-RateLimit-Reset": "9" * 40}, None),
        ({"Retry-After": "10", "X-RateLimit-Reset": "30"}, 30),
        ({"Retry-After": "40", "X-RateLimit-Reset": "30"}, 40),
        ({"Retry-After": "nonsense", "X-RateLimit-Reset": "30"}, 30),
    ],
)
def test_the_time_to_ask_again_is_read_in_every_spelling(
    headers: dict[str, str], seconds: int | None
) -> None:
    wanted = None if seconds is None else NOON + timedelta(seconds=seconds)
    assert retry_time(headers, NOON) == wanted


@pytest.mark.parametrize("status", [429, 503])
def test_it_counts_for_limits_and_outages(status: int) -> None:
    assert read(status, Retry_After="120").retry_at == NOON + timedelta(minutes=2)


@pytest.mark.parametrize("status", [200, 400, 401])
def test_it_counts_for_nothing_else(status: int) -> None:
    assert read(status, Retry_After="120").retry_at is None


# The post itself


def destination(url: str, **rest: Any) -> Destination:
    return Destination("site", KEY, url, **rest)


def body(**rest: Any) -> Body:
    values = {
        "kind": Kind.CHARGE,
        "transaction_id": "pay_1",
        "amount": Decimal("29.90"),
        "currency": "EUR",
        "occurred_at": NOON,
    }
    return mapping.body(Payment(**values | rest))


@pytest.fixture
def forwarder() -> Iterator[Forwarder]:
    found = Forwarder()
    yield found
    found.session.close()


def test_a_payment_arrives_digit_by_digit(forwarder: Forwarder, sandbox: DataFast) -> None:
    amount = Decimal("123456789012.340")
    outcome = forwarder.send(destination(sandbox.url), body(amount=amount, name="Zoë"), NOON)
    assert (outcome.result, outcome.status) == (Result.RECORDED, 200)
    (record,) = sandbox.records()
    assert record["amount"] == "123456789012.340"
    assert record["name"] == "Zoë"
    assert record["timestamp"] == "2026-03-01T12:00:00.000Z"


def test_an_account_token_says_which_website(
    forwarder: Forwarder, start_sandbox: Callable[..., DataFast]
) -> None:
    sandbox = start_sandbox(Options(rate_limit=0))
    account = Destination("site", "dft_token", sandbox.url, website_id="my.site")
    assert forwarder.send(account, body(), NOON).result is Result.RECORDED
    assert [it["site"] for it in sandbox.records()] == ["my.site"]
    sandbox.put("websites", unknown=["my.site"])
    assert forwarder.send(account, body(), NOON).result is Result.UNAUTHORISED


def test_one_connection_serves_many_payments(forwarder: Forwarder) -> None:
    ports = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            ports.append(self.client_address)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            told = answer("Payment recorded").encode()
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        for _ in range(3):
            assert forwarder.send(destination(url), body(), NOON).result is Result.RECORDED
        forwarder.session.close()  # or the server would wait for more
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert len(set(ports)) == 1


def test_nobody_there_is_an_outcome_too(forwarder: Forwarder) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        outcome = forwarder.send(destination(url), body(), NOON)
    assert (outcome.result, outcome.status) == (Result.UNAVAILABLE, None)
    assert KEY not in outcome.message
    assert "127.0.0.1" not in outcome.message


def test_a_connection_closed_without_an_answer_is_an_outcome_too(
    forwarder: Forwarder, sandbox: DataFast
) -> None:
    sandbox.fail(drop=True)
    outcome = forwarder.send(destination(sandbox.url), body(), NOON)
    assert outcome == Outcome(Result.UNAVAILABLE, "no connection, or closed without an answer")


def test_an_answer_that_does_not_come_in_time_is_an_outcome_too(forwarder: Forwarder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        outcome = forwarder.send(destination(url, read_timeout=0.1), body(), NOON)
    assert outcome == Outcome(Result.UNAVAILABLE, "no answer in time")


def test_a_redirect_is_not_followed_and_the_key_goes_nowhere_else(
    forwarder: Forwarder, sandbox: DataFast
) -> None:
    sandbox.fail(status=302, headers={"Location": "/sandbox/payments"})
    assert forwarder.send(destination(sandbox.url), body(), NOON).result is Result.UNAVAILABLE


def test_a_binary_answer_of_any_charset_is_an_outcome_too(
    forwarder: Forwarder, sandbox: DataFast
) -> None:
    for charset in ("nonsense", "utf-16", "idna", "zlib_codec"):
        type = f"application/json; charset={charset}"
        sandbox.fail(status=200, body="\x00\ufffd{", headers={"Content-Type": type})
        outcome = forwarder.send(destination(sandbox.url), body(), NOON)
        assert outcome.result is Result.UNKNOWN
        assert "\x00" not in outcome.answer


def test_times_are_read_against_the_given_now(forwarder: Forwarder, sandbox: DataFast) -> None:
    sandbox.fail(status=503, headers={"Retry-After": "60"})
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert forwarder.send(destination(sandbox.url), body(), now).retry_at == now + timedelta(
        seconds=60
    )
