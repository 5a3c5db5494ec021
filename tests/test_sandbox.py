"""The sandbox does what DataFast documents, and what its controls say."""

import http.client
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from flask.testing import FlaskClient
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from relay.sandbox import DroppedConnectionError, Options, create_app

PAYMENTS = "/api/v1/payments"
SEEN = "a3ab2331-989f-4cfa-91c6-2461c9e3c6bd"
UNSEEN = "0b6f4f0e-5d39-4f0c-8a53-3f9d5ad9f1c2"
KEY = {"Authorization": "Bearer df_key"}
ACCOUNT = {"Authorization": "Bearer dft_token"}
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(clock: Clock) -> FlaskClient:
    client = create_app(Options(rate_limit=0), clock).test_client()
    client.put("/sandbox/visitors", json={"known": [SEEN]})
    return client


def post(client: FlaskClient, id: str = "t1", **fields: Any) -> TestResponse:
    body = {"amount": 29.99, "currency": "USD", "transaction_id": id} | fields
    return client.post(PAYMENTS, json=body, headers=KEY)


def delete(client: FlaskClient, **filters: str) -> TestResponse:
    return client.delete(PAYMENTS, query_string=filters, headers=KEY)


def records(client: FlaskClient) -> list[dict[str, Any]]:
    return client.get("/sandbox/payments").json


def ids(client: FlaskClient) -> list[str]:
    return [record["transaction_id"] for record in records(client)]


def assert_refused(response: TestResponse, code: int, *words: str) -> None:
    assert response.status_code == code
    assert response.json["status"] == "error"
    assert response.json["error"]["code"] == code
    for word in words:
        assert word in response.json["error"]["message"]


# Creating


def test_a_payment_of_a_known_visitor_is_attributed(client: FlaskClient) -> None:
    answer = post(client, "payment_456", datafast_visitor_id=SEEN)
    assert answer.status_code == 200
    assert answer.json == {
        "message": "Payment recorded and attributed successfully",
        "transaction_id": "payment_456",
    }
    assert records(client)[0]["attributed"] is True


def test_a_payment_of_a_visitor_never_seen_is_recorded_without_attribution(
    client: FlaskClient,
) -> None:
    answer = post(client, datafast_visitor_id=UNSEEN)
    assert answer.status_code == 200
    assert answer.json["message"] == f"First event not found for visitor {UNSEEN}"
    assert answer.json["transaction_id"] == "t1"
    assert records(client)[0]["attributed"] is False


def test_a_visitor_is_known_in_either_case_of_its_letters(client: FlaskClient) -> None:
    assert "attributed" in post(client, datafast_visitor_id=SEEN.upper()).json["message"]


def test_a_payment_without_a_visitor_is_recorded(client: FlaskClient) -> None:
    assert post(client).json == {"message": "Payment recorded", "transaction_id": "t1"}
    assert records(client)[0]["attributed"] is False


def test_every_field_posted_is_kept(client: FlaskClient) -> None:
    fields = {
        "datafast_visitor_id": SEEN,
        "email": "ada@example.com",
        "name": "Ada",
        "customer_id": "cus_1",
        "renewal": True,
        "refunded": False,
        "is_free_trial": False,
        "timestamp": "2026-02-28T23:00:00+02:00",
        "unknown": ["ignored"],
    }
    assert post(client, **fields).status_code == 200
    del fields["unknown"]
    kept = records(client)[0]
    assert {name: kept[name] for name in fields} == fields
    assert (kept["amount"], kept["currency"], kept["kind"]) == ("29.99", "USD", "renewal")
    assert kept["site"] == "sandbox.example"
    assert kept["recorded_at"] == "2026-03-01T12:00:00.000000+00:00"


def test_a_missing_timestamp_is_the_time_of_the_request(client: FlaskClient) -> None:
    post(client)
    assert datetime.fromisoformat(records(client)[0]["timestamp"]) == NOON


def test_the_customers_aliases_are_accepted(client: FlaskClient) -> None:
    post(client, customer_email="ada@example.com", customer_name="Ada")
    assert (records(client)[0]["email"], records(client)[0]["name"]) == ("ada@example.com", "Ada")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "payment"),
        ({"renewal": True}, "renewal"),
        ({"refunded": True}, "refund"),
        ({"is_free_trial": True}, "trial"),
        ({"amount": 0}, "trial"),
        ({"amount": 0.00, "renewal": True}, "trial"),
    ],
)
def test_a_record_has_a_kind(client: FlaskClient, fields: dict[str, Any], kind: str) -> None:
    post(client, **fields)
    assert records(client)[0]["kind"] == kind


def test_an_amount_of_nothing_is_inferred_to_be_a_free_trial(client: FlaskClient) -> None:
    post(client, amount=0)
    assert records(client)[0]["is_free_trial"] is True


def test_amounts_are_exact(client: FlaskClient) -> None:
    for id, amount in (("a", "0.1"), ("b", "0.2"), ("c", "900719925474099.3"), ("d", "1e2")):
        body = f'{{"amount": {amount}, "currency": "EUR", "transaction_id": "{id}"}}'
        client.post(PAYMENTS, data=body, content_type="application/json", headers=KEY)
    amounts = [record["amount"] for record in records(client)]
    assert amounts == ["0.1", "0.2", "900719925474099.3", "100"]
    assert sum(map(Decimal, amounts[:2])) == Decimal("0.3")
    assert "900719925474199.6" in client.get("/").text


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount": None}, "amount"),
        ({"amount": "29.99"}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": -0.01, "refunded": True}, "amount"),
        ({"amount": 10**15}, "amount"),
        ({"currency": None}, "currency"),
        ({"currency": "usd"}, "currency"),
        ({"currency": "US"}, "currency"),
        ({"currency": "QQQ"}, "currency"),
        ({"currency": 840}, "currency"),
        ({"transaction_id": ""}, "transaction_id"),
        ({"transaction_id": " "}, "transaction_id"),
        ({"transaction_id": 7}, "transaction_id"),
        ({"datafast_visitor_id": "abc123"}, "datafast_visitor_id"),
        ({"datafast_visitor_id": SEEN + "\n"}, "datafast_visitor_id"),
        ({"datafast_visitor_id": SEEN.replace("-4", "-1")}, "datafast_visitor_id"),
        ({"datafast_visitor_id": ""}, "datafast_visitor_id"),
        ({"email": 1}, "email"),
        ({"customer_email": 1}, "customer_email"),
        ({"name": []}, "name"),
        ({"customer_name": {}}, "customer_name"),
        ({"customer_id": 5}, "customer_id"),
        ({"renewal": "true"}, "renewal"),
        ({"refunded": 1}, "refunded"),
        ({"is_free_trial": None}, "is_free_trial"),
        ({"timestamp": 1767225600}, "timestamp"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, "timestamp"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(
    client: FlaskClient, fields: dict[str, Any], field: str
) -> None:
    assert_refused(post(client, **fields), 400, field)
    assert records(client) == []


@pytest.mark.parametrize("field", ["amount", "currency", "transaction_id"])
def test_a_required_field_may_not_be_missing(client: FlaskClient, field: str) -> None:
    body = {"amount": 1, "currency": "USD", "transaction_id": "t"}
    del body[field]
    assert_refused(client.post(PAYMENTS, json=body, headers=KEY), 400, field)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"\xff\xfe\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"amount": NaN, "currency": "USD", "transaction_id": "t"}',
        b'{"amount": Infinity, "currency": "USD", "transaction_id": "t"}',
        b'{"amount": 1e999999999, "currency": "USD", "transaction_id": "t"}',
        b'{"amount": 1e-999999999, "currency": "USD", "transaction_id": "t"}',
        b'{"amount": 0e999999999, "currency": "USD", "transaction_id": "t"}',
        b'{"amount": 1e99999999999999999999, "currency": "USD", "transaction_id": "t"}',
        b'{"amount": %s, "currency": "USD", "transaction_id": "t"}' % (b"9" * 4_000),
        b'{"amount": %s, "currency": "USD", "transaction_id": "t"}' % (b"9" * 100_000),
        b'{"amount": 0.%s1, "currency": "USD", "transaction_id": "t"}' % (b"0" * 100_000),
        b'{"amount": 1, "currency": "USD", "transaction_id": "\\ud800"}',
        b'{"amount": 1, "currency": "USD", "transaction_id": "t", "name": "\\udfff"}',
        b'{"amount": 1, "currency": "\\ud800", "transaction_id": "t"}',
        '{"amount": 1, "currency": "ÜSD", "transaction_id": "t"}'.encode(),
    ],
)
def test_a_hostile_body_is_a_400(client: FlaskClient, body: Any) -> None:
    answer = client.post(PAYMENTS, data=body, content_type="application/json", headers=KEY)
    assert_refused(answer, 400)
    assert records(client) == []


def test_odd_texts_are_kept_as_they_are(client: FlaskClient) -> None:
    odd = "a\x00b <script>'\"; DROP TABLE records;-- \N{SNOWMAN}"
    assert post(client, odd, name=odd).json["transaction_id"] == odd
    assert (ids(client), records(client)[0]["name"]) == ([odd], odd)
    assert "<script>" not in client.get("/").text
    assert delete(client, transaction_id=odd).status_code == 200


def test_a_body_that_is_not_announced_as_json_is_refused(client: FlaskClient) -> None:
    body = json.dumps({"amount": 1, "currency": "USD", "transaction_id": "t"})
    for content_type in ("text/plain", "application/x-www-form-urlencoded", None):
        answer = client.post(PAYMENTS, data=body, content_type=content_type, headers=KEY)
        assert_refused(answer, 400, "Content-Type")
    charset = "application/json; charset=utf-8"
    assert client.post(PAYMENTS, data=body, content_type=charset, headers=KEY).status_code == 200


def test_a_body_without_end_is_refused(client: FlaskClient) -> None:
    answer = client.post(
        PAYMENTS, data=b" " * 2_000_000, content_type="application/json", headers=KEY
    )
    assert_refused(answer, 413)


def test_what_does_not_exist_is_answered_in_the_envelope(client: FlaskClient) -> None:
    assert_refused(client.get("/api/v1/nothing", headers=KEY), 404)
    assert_refused(client.get(PAYMENTS, headers=KEY), 405)


# Once


def test_the_same_id_is_recorded_once(client: FlaskClient) -> None:
    post(client, amount=10)
    again = post(client, amount=11)
    assert again.status_code == 200
    assert "uplicate" in again.json["message"]
    assert again.json["transaction_id"] == "t1"
    assert [record["amount"] for record in records(client)] == ["10"]
    assert client.get("/sandbox/requests").json["duplicates"] == 1


def test_fifty_threads_that_post_one_id_make_one_record(client: FlaskClient) -> None:
    app = client.application
    together = threading.Barrier(50)

    def send(_: int) -> str:
        together.wait()
        return post(app.test_client(), datafast_visitor_id=SEEN).json["message"]

    with ThreadPoolExecutor(50) as pool:
        messages = list(pool.map(send, range(50)))
    assert len(records(client)) == 1
    assert sum("attributed" in message for message in messages) == 1
    assert client.get("/sandbox/requests").json == {
        "total": 50,
        "by_status": {"200": 50},
        "dropped": 0,
        "duplicates": 49,
    }


def test_two_sites_do_not_share_their_ids(client: FlaskClient) -> None:
    client.put("/sandbox/tokens", json={"sites": {"df_other": "other.example"}})
    other = {"Authorization": "Bearer df_other"}
    body = {"amount": 1, "currency": "USD", "transaction_id": "t1"}
    post(client)
    assert client.post(PAYMENTS, json=body, headers=other).json["message"] == "Payment recorded"
    assert [record["site"] for record in records(client)] == ["sandbox.example", "other.example"]
    delete(client, transaction_id="t1")
    assert [record["site"] for record in records(client)] == ["other.example"]


def test_a_rolled_key_is_for_the_same_site(client: FlaskClient) -> None:
    post(client)
    body = {"amount": 1, "currency": "USD", "transaction_id": "t1"}
    rolled = client.post(PAYMENTS, json=body, headers={"Authorization": "Bearer df_rolled"})
    assert "uplicate" in rolled.json["message"]


# Refunds


def kinds(client: FlaskClient) -> list[tuple[str, str, str]]:
    return [(each["transaction_id"], each["kind"], each["amount"]) for each in records(client)]


@pytest.fixture
def strict(clock: Clock) -> FlaskClient:
    """A sandbox in which a refund must have an id of its own."""
    return create_app(Options(rate_limit=0, refunds="refund_id"), clock).test_client()


def test_a_refund_under_the_originals_id_refunds_it(client: FlaskClient) -> None:
    post(client, amount=10, datafast_visitor_id=SEEN)
    answer = post(client, amount=4, refunded=True)
    assert "refunded" in answer.json["message"]
    assert answer.json["transaction_id"] == "t1"
    assert kinds(client) == [("t1", "payment", "10"), ("t1", "refund", "4")]
    assert records(client)[1]["attributed"] is True


def test_a_refund_is_not_marked_twice(client: FlaskClient) -> None:
    post(client, amount=10)
    post(client, amount=10, refunded=True)
    assert "uplicate" in post(client, amount=10, refunded=True).json["message"]
    assert "uplicate" in post(client, amount=10).json["message"]
    assert len(records(client)) == 2


def test_a_refund_under_a_new_id_is_a_record_of_its_own(
    client: FlaskClient, strict: FlaskClient
) -> None:
    for each in (client, strict):
        post(each, amount=10)
        assert post(each, "r1", amount=4, refunded=True).json["message"] == "Refund recorded"
        assert "uplicate" in post(each, "r1", amount=4, refunded=True).json["message"]
        assert kinds(each) == [("t1", "payment", "10"), ("r1", "refund", "4")]


def test_where_refunds_have_their_own_ids_the_originals_swallows_one(strict: FlaskClient) -> None:
    post(strict, amount=10)
    answer = post(strict, amount=10, refunded=True)
    assert answer.status_code == 200
    assert "uplicate" in answer.json["message"]
    assert kinds(strict) == [("t1", "payment", "10")]


def test_a_payment_after_a_refund_of_the_same_id_is_a_duplicate(client: FlaskClient) -> None:
    post(client, refunded=True)
    assert "uplicate" in post(client).json["message"]


def test_the_page_sums_by_currency_and_kind(client: FlaskClient) -> None:
    post(client, "a", amount=0.1)
    post(client, "b", amount=0.2)
    post(client, "c", amount=5, renewal=True)
    post(client, "a", amount=0.1, refunded=True)
    post(client, "d", amount=700, currency="JPY")
    text = "".join(client.get("/").text.split())
    row = '<tr><td>{}</td><tdclass="number">{}</td><tdclass="number">{}</td><tdclass="number">{}'
    assert row.format("USD", "0.3", "5", "0.1") in text
    assert row.format("JPY", "700", "0", "0") in text


# Who may


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "df_key",
        "Basic df_key",
        "Bearer key",
        "Bearer df_",
        "Bearer df_a b",
        "Bearer sk_live_1",
        "Bearer df_é",
        "Bearer df_" + "a" * 5_000,
    ],
)
def test_a_missing_or_malformed_token_is_a_401(client: FlaskClient, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value}
    body = {"amount": 1, "currency": "USD", "transaction_id": "t"}
    assert_refused(client.post(PAYMENTS, json=body, headers=headers), 401)
    assert records(client) == []


def test_a_revoked_token_is_a_401(client: FlaskClient) -> None:
    client.put("/sandbox/tokens", json={"revoked": ["df_key"]})
    assert_refused(post(client), 401)
    client.put("/sandbox/tokens", json={})
    assert post(client).status_code == 200


def test_a_token_that_may_not_write_is_a_403(client: FlaskClient) -> None:
    client.put("/sandbox/tokens", json={"read_only": ["df_key"]})
    assert_refused(post(client), 403, "payments:write")
    assert_refused(delete(client, transaction_id="t1"), 403)
    assert client.get("/api/v1/analytics/metadata", headers=KEY).status_code == 200


@pytest.mark.parametrize("suspended", ["df_key", "sandbox.example"])
def test_a_suspended_website_is_a_403(client: FlaskClient, suspended: str) -> None:
    client.put("/sandbox/tokens", json={"suspended": [suspended]})
    assert_refused(post(client), 403, "suspended")
    assert records(client) == []


def test_an_account_token_must_name_its_website(client: FlaskClient) -> None:
    body = {"amount": 1, "currency": "USD", "transaction_id": "t"}
    assert_refused(client.post(PAYMENTS, json=body, headers=ACCOUNT), 400, "websiteId")
    url = f"{PAYMENTS}?websiteId=665f0b3c"
    assert client.post(url, json=body, headers=ACCOUNT).status_code == 200
    assert records(client)[0]["site"] == "665f0b3c"
    client.put("/sandbox/websites", json={"unknown": ["665f0b3c"]})
    assert_refused(client.post(url, json=body, headers=ACCOUNT), 404, "Website")


# Deleting


@pytest.fixture
def full(client: FlaskClient) -> FlaskClient:
    """Six records: of two visitors and none, on three days, one of them a trial."""
    post(client, "s1", datafast_visitor_id=SEEN, timestamp="2026-01-01T00:00:00Z")
    post(client, "s2", datafast_visitor_id=SEEN, timestamp="2026-01-02T01:00:00+01:00")
    post(client, "s3", datafast_visitor_id=SEEN, timestamp="2026-01-03T00:00:00Z", amount=0)
    post(client, "u2", datafast_visitor_id=UNSEEN, timestamp="2026-01-02T00:00:00.000001Z")
    post(client, "n2", timestamp="2026-01-02T00:00:00Z")
    post(client, "n3", timestamp="2026-01-03T00:00:00Z")
    return client


def test_a_transaction_is_deleted_whatever_else_is_asked(full: FlaskClient) -> None:
    for name, id in (("transaction_id", "s1"), ("tx_id", "s2")):
        answer = delete(
            full, **{name: id}, datafast_visitor_id="not a visitor", start="neither a time"
        )
        assert answer.status_code == 200
        assert answer.json["status"] == "success"
        assert answer.json["data"][0]["transaction_id"] == id
    assert ids(full) == ["s3", "u2", "n2", "n3"]
    assert_refused(delete(full, transaction_id="s1"), 404)


def test_all_records_of_a_visitor_are_deleted_trials_too(full: FlaskClient) -> None:
    answer = delete(full, datafast_visitor_id=SEEN.upper())
    assert answer.json["data"][0]["datafast_visitor_id"] == SEEN.upper()
    assert "timeRange" not in answer.json["data"][0]
    assert ids(full) == ["u2", "n2", "n3"]


@pytest.mark.parametrize(("first", "last"), [("start", "end"), ("startAt", "endAt")])
def test_a_visitors_records_are_deleted_in_a_range(
    full: FlaskClient, first: str, last: str
) -> None:
    range = {first: "2026-01-02T00:00:00Z", last: "2026-01-02T23:59:59Z"}
    answer = delete(full, datafast_visitor_id=SEEN, **range)
    assert answer.status_code == 200
    assert answer.json["data"][0]["timeRange"]["start"] == "2026-01-02T00:00:00+00:00"
    assert ids(full) == ["s1", "s3", "u2", "n2", "n3"]


def test_a_range_alone_deletes_both_its_ends_and_all_between(full: FlaskClient) -> None:
    both = {"startAt": "2026-01-02T00:00:00Z", "endAt": "2026-01-03T00:00:00Z"}
    both |= {"start": both["startAt"], "end": both["endAt"]}
    assert delete(full, **both).status_code == 200
    assert ids(full) == ["s1"]


@pytest.mark.parametrize(
    ("filters", "word"),
    [
        ({}, "transaction_id"),
        ({"transaction_id": ""}, "transaction_id"),
        ({"datafast_visitor_id": "abc123"}, "datafast_visitor_id"),
        ({"start": "2026-01-01"}, "end"),
        ({"endAt": "2026-01-01"}, "start"),
        ({"datafast_visitor_id": SEEN, "start": "2026-01-01"}, "end"),
        ({"start": "soon", "end": "2026-01-01"}, "start"),
        ({"start": "2026-01-02", "end": "2026-01-01"}, "start"),
    ],
)
def test_a_deletion_that_is_not_clear_deletes_nothing(
    full: FlaskClient, filters: dict[str, str], word: str
) -> None:
    assert_refused(delete(full, **filters), 400, word)
    assert len(records(full)) == 6


def test_deleting_a_payment_deletes_its_refund_and_frees_its_id(client: FlaskClient) -> None:
    post(client, amount=10)
    post(client, amount=10, refunded=True)
    delete(client, transaction_id="t1")
    assert records(client) == []
    assert post(client, amount=10).json["message"] == "Payment recorded"


def test_a_range_takes_a_payments_refund_with_it_and_not_the_other_way(client: FlaskClient) -> None:
    post(client, timestamp="2026-01-01T00:00:00Z")
    post(client, timestamp="2026-01-09T00:00:00Z", refunded=True)
    delete(client, start="2026-01-08", end="2026-01-10")
    assert len(records(client)) == 2
    delete(client, start="2025-12-31", end="2026-01-02")
    assert records(client) == []


def test_a_payment_is_repaired_by_deleting_and_creating_it_again(client: FlaskClient) -> None:
    post(client, datafast_visitor_id=UNSEEN)
    delete(client, transaction_id="t1")
    assert "attributed" in post(client, datafast_visitor_id=SEEN).json["message"]


# The other endpoints


def test_metadata_says_which_site_the_token_is_for(client: FlaskClient) -> None:
    answer = client.get("/api/v1/analytics/metadata", headers=KEY).json
    assert answer["status"] == "success"
    assert answer["data"][0]["domain"] == "sandbox.example"
    assert {"timezone", "name", "logo", "currency"} <= set(answer["data"][0])


def test_metadata_can_be_asked_for_some_fields(client: FlaskClient) -> None:
    url = "/api/v1/analytics/metadata?fields="
    some = client.get(url + "domain,currency", headers=KEY).json["data"]
    assert some == [{"domain": "sandbox.example", "currency": "USD"}]
    assert_refused(client.get(url + "colour", headers=KEY), 400, "fields")


def test_integrations_are_those_that_the_control_turned_on(client: FlaskClient) -> None:
    url = "/api/v1/admin/websites/665f0b3c/integrations"
    client.put("/sandbox/integrations", json={"paddle": True, "stripe": False})
    data = client.get(url, headers=ACCOUNT).json["data"][0]
    on = [name for name, value in data.items() if name != "currency" and value["connected"]]
    assert on == ["paddle"]
    assert len(data) == 7
    assert_refused(client.get(url, headers=KEY), 403, "dft_")
    client.put("/sandbox/websites", json={"unknown": ["665f0b3c"]})
    assert_refused(client.get(url, headers=ACCOUNT), 404)


def test_a_visitor_is_found_when_it_was_seen(client: FlaskClient) -> None:
    url = "/api/v1/visitors/"
    assert client.get(url + SEEN, headers=KEY).json["data"]["visitorId"] == SEEN
    assert_refused(client.get(url + UNSEEN, headers=KEY), 404)
    assert_refused(client.get(url + "abc123", headers=KEY), 400)
    assert_refused(client.get(url + SEEN, headers=ACCOUNT), 400, "websiteId")


# The rate limit


@pytest.mark.parametrize(("unit", "factor"), [("seconds", 1), ("milliseconds", 1000)])
def test_the_rate_limit_tells_when_it_resets(
    clock: Clock, unit: Literal["seconds", "milliseconds"], factor: int
) -> None:
    client = create_app(Options(rate_limit=2, reset_unit=unit), clock).test_client()
    clock.pass_(0.25)
    first = post(client, "a")
    assert first.headers["X-RateLimit-Limit"] == "2"
    assert first.headers["X-RateLimit-Remaining"] == "1"
    assert "X-RateLimit-Reset" not in first.headers
    clock.pass_(30)
    assert post(client, "b").headers["X-RateLimit-Remaining"] == "0"
    refused = post(client, "c")
    assert_refused(refused, 429)
    reset = {1: int(NOON.timestamp()) + 61, 1000: int(NOON.timestamp()) * 1000 + 60_250}[factor]
    assert refused.headers["X-RateLimit-Limit"] == "2"
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert refused.headers["X-RateLimit-Reset"] == str(reset)
    assert [refused.json[name] for name in ("limit", "remaining", "reset")] == [2, 0, reset]
    assert ids(client) == ["a", "b"]


def test_the_window_slides(clock: Clock) -> None:
    client = create_app(Options(rate_limit=2), clock).test_client()
    codes = []
    for seconds in (0, 40, 19.999, 0.001, 0.001, 39.999):
        clock.pass_(seconds)
        codes.append(post(client, str(len(codes))).status_code)
    assert codes == [200, 200, 429, 200, 429, 200]


def test_refused_requests_count_and_other_tokens_have_their_own_window(clock: Clock) -> None:
    client = create_app(Options(rate_limit=1), clock).test_client()
    assert post(client, amount=-1).headers["X-RateLimit-Remaining"] == "0"
    assert post(client).status_code == 429
    other = {"Authorization": "Bearer df_other"}
    assert client.get("/api/v1/analytics/metadata", headers=other).status_code == 200


def test_the_default_is_sixty_a_minute(clock: Clock) -> None:
    client = create_app(Options(), clock).test_client()
    codes = [post(client, str(number)).status_code for number in range(61)]
    assert codes == [200] * 60 + [429]
    assert client.get("/sandbox/requests").json["by_status"] == {"200": 60, "429": 1}


def test_no_limit_is_no_headers(client: FlaskClient) -> None:
    assert "X-RateLimit-Limit" not in post(client).headers


def test_idle_tokens_are_forgotten(clock: Clock) -> None:
    app = create_app(Options(rate_limit=1), clock)
    limits = app.extensions["relay.sandbox"].limits
    for number in range(1_001):
        limits.take(f"df_{number}", clock())
    clock.pass_(60)
    limits.take("df_new", clock())
    assert len(limits._requests) == 1


# Faults


def test_a_fault_is_answered_as_often_as_it_was_asked_for(client: FlaskClient) -> None:
    client.put("/sandbox/faults", json={"status": 503, "count": 2})
    assert_refused(post(client), 503)
    assert_refused(client.get("/api/v1/analytics/metadata"), 503)
    assert records(client) == []
    assert post(client).status_code == 200
    assert client.get("/sandbox/requests").json["by_status"] == {"200": 1, "503": 2}


def test_a_fault_without_a_count_stays_until_it_is_deleted(client: FlaskClient) -> None:
    client.put("/sandbox/faults", json={"status": 500})
    assert {post(client).status_code for _ in range(5)} == {500}
    assert client.get("/").status_code == 200
    client.delete("/sandbox/faults")
    assert post(client).status_code == 200


def test_a_fault_can_answer_anything(client: FlaskClient) -> None:
    client.put(
        "/sandbox/faults",
        json={"status": 429, "body": "nonsense", "headers": {"Retry-After": "7"}},
    )
    answer = post(client)
    assert (answer.status_code, answer.text, answer.headers["Retry-After"]) == (
        429,
        "nonsense",
        "7",
    )


def test_a_fault_can_come_after_recording(client: FlaskClient) -> None:
    client.put("/sandbox/faults", json={"status": 500, "when": "after", "count": 1})
    assert post(client).status_code == 500
    assert "uplicate" in post(client).json["message"]


def test_an_answer_can_be_late(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []
    monkeypatch.setattr("relay.sandbox.faults.time.sleep", slept.append)
    client.put("/sandbox/faults", json={"latency_ms": 2000, "count": 1})
    assert post(client, "a").status_code == 200
    assert post(client, "b").status_code == 200
    assert slept == [2.0]


@pytest.mark.parametrize(("when", "kept"), [("before", []), ("after", ["t1"])])
def test_a_dropped_connection_is_an_exception_in_a_test_client(
    client: FlaskClient, when: str, kept: list[str]
) -> None:
    client.put("/sandbox/faults", json={"drop": True, "when": when, "count": 1})
    with pytest.raises(DroppedConnectionError):
        post(client)
    assert ids(client) == kept
    assert post(client).status_code == 200
    assert client.get("/sandbox/requests").json["dropped"] == 1


@pytest.mark.parametrize(("when", "kept"), [("before", []), ("after", ["t1"])])
def test_a_dropped_connection_is_closed_without_a_byte(
    client: FlaskClient, when: str, kept: list[str]
) -> None:
    client.put("/sandbox/faults", json={"drop": True, "when": when})
    server = make_server("127.0.0.1", 0, client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        body = json.dumps({"amount": 1, "currency": "USD", "transaction_id": "t1"})
        connection.request("POST", PAYMENTS, body, KEY | {"Content-Type": "application/json"})
        with pytest.raises(http.client.RemoteDisconnected):
            connection.getresponse()
        connection.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert ids(client) == kept


# Controls


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("faults", {}, "status"),
        ("faults", {"code": 500}, "status"),
        ("faults", {"status": 99}, "status"),
        ("faults", {"status": "503"}, "status"),
        ("faults", {"status": True}, "status"),
        ("faults", {"status": None}, "status"),
        ("faults", {"status": 503, "count": 0}, "count"),
        ("faults", {"status": 503, "count": 1.5}, "count"),
        ("faults", {"status": 503, "when": "later"}, "before"),
        ("faults", {"status": 503, "body": {}}, "body"),
        ("faults", {"status": 503, "body": "\ud800"}, "body"),
        ("faults", {"status": 503, "headers": {"X": "a\r\nb"}}, "headers"),
        ("faults", {"latency_ms": -1}, "latency_ms"),
        ("faults", {"latency_ms": 1, "when": "after"}, "status"),
        ("faults", {"body": "alone"}, "status"),
        ("faults", {"drop": False}, "drop"),
        ("faults", {"drop": True, "status": 500}, "drop"),
        ("visitors", {"known": [SEEN, "abc"]}, "UUID"),
        ("visitors", {"known": SEEN}, "list"),
        ("visitors", {"seen": [SEEN]}, "known"),
        ("tokens", {"revoked": [1]}, "revoked"),
        ("tokens", {"expired": []}, "revoked"),
        ("tokens", {"sites": ["df_a"]}, "sites"),
        ("websites", {"known": []}, "unknown"),
        ("integrations", {"paypal": True}, "paddle"),
        ("integrations", {"paddle": "yes"}, "paddle"),
        ("weather", {"sun": True}, "/sandbox/faults"),
    ],
)
def test_a_control_that_is_not_understood_says_what_to_write(
    client: FlaskClient, path: str, body: Any, word: str
) -> None:
    assert_refused(client.put(f"/sandbox/{path}", json=body), 400, word)
    assert post(client).status_code == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 100_000, b"\xff", b'{"status": NaN}'])
@pytest.mark.parametrize("path", ["faults", "visitors", "tokens", "websites", "integrations"])
def test_a_hostile_control_is_a_400(client: FlaskClient, path: str, body: Any) -> None:
    assert_refused(client.put(f"/sandbox/{path}", data=body), 400)


def test_an_unknown_control_names_those_there_are(client: FlaskClient) -> None:
    for answer in (
        client.get("/sandbox"),
        client.post("/sandbox/payments"),
        client.get("/sandbox/"),
    ):
        assert_refused(answer, 400, "PUT /sandbox/faults", "DELETE /sandbox")


def test_records_are_listed_oldest_first_to_the_microsecond(
    client: FlaskClient, clock: Clock
) -> None:
    post(client, "a", timestamp="2030-01-01T00:00:00Z")
    clock.pass_(0.000001)
    post(client, "b", timestamp="2020-01-01T00:00:00Z")
    assert [(each["transaction_id"], each["recorded_at"][-15:]) for each in records(client)] == [
        ("a", "00.000000+00:00"),
        ("b", "00.000001+00:00"),
    ]


def test_the_sandbox_goes_back_to_its_beginning(clock: Clock) -> None:
    client = create_app(Options(rate_limit=1), clock).test_client()
    client.put("/sandbox/visitors", json={"known": [SEEN]})
    client.put("/sandbox/tokens", json={"sites": {"df_key": "other.example"}})
    post(client)
    client.put("/sandbox/faults", json={"status": 500})
    assert client.delete("/sandbox").status_code == 200
    assert records(client) == []
    assert client.get("/sandbox/requests").json["total"] == 0
    assert "not found" in post(client, datafast_visitor_id=SEEN).json["message"]
    assert records(client)[0]["site"] == "sandbox.example"


def test_a_restart_keeps_the_records_and_the_account(tmp_path: Path, clock: Clock) -> None:
    options = Options(database=str(tmp_path / "sandbox.sqlite"))
    first = create_app(options, clock)
    client = first.test_client()
    client.put("/sandbox/visitors", json={"known": [SEEN]})
    client.put("/sandbox/tokens", json={"revoked": ["df_old"], "sites": {"df_b": "b.example"}})
    client.put("/sandbox/faults", json={"status": 500, "when": "after"})
    post(client, amount=0.1, datafast_visitor_id=SEEN)
    before = records(client)
    first.extensions["relay.sandbox"].records.close()

    second = create_app(options, clock)
    client = second.test_client()
    assert records(client) == before
    assert "uplicate" in post(client).json["message"]
    assert "attributed" in post(client, "t2", datafast_visitor_id=SEEN).json["message"]
    old = {"Authorization": "Bearer df_old"}
    assert client.get("/api/v1/analytics/metadata", headers=old).status_code == 401
    client.delete("/sandbox")
    second.extensions["relay.sandbox"].records.close()

    third = create_app(options, clock)
    assert records(third.test_client()) == []
    third.extensions["relay.sandbox"].records.close()


# What people see


def test_the_page_says_that_it_is_not_datafast(client: FlaskClient) -> None:
    post(client, "t1", datafast_visitor_id=SEEN)
    answer = client.get("/")
    assert answer.mimetype == "text/html"
    assert "This is NOT DataFast" in answer.text
    assert "1 record," in answer.text
    assert "/sandbox/faults" in answer.text
    assert "src=" not in answer.text
    assert "href=" not in answer.text


def test_the_start_is_logged_without_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="relay.sandbox"):
        client = create_app().test_client()
        post(client, email="ada@example.com")
    assert [record.levelname for record in caplog.records if record.name == "relay.sandbox"] == [
        "INFO"
    ]
    assert "NOT DataFast" in caplog.text
    assert "df_key" not in caplog.text
    assert "ada@" not in caplog.text
