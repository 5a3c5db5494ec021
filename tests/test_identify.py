"""`POST /identify/<key>`: what each call gets, and the payments that get their visitor by it."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from helpers import EMAIL, NOON, VISITOR, DataFast, Way, count, row, signed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import Wire, free_port, pragma, relay, sqlite
from processes import settings as served
from sqlalchemy import select
from werkzeug.test import TestResponse

from relay import config as configuration
from relay import ledger, provider
from relay.app import create_app
from relay.cli.providers import set_up
from relay.config import Config
from relay.errors import ConfigError
from relay.log import JsonLines
from relay.model import About, Event, Ignored, Payment, Received
from relay.store import Store, schema

KEY = "tests-own-site-key"
OTHER_KEY = "another-sites-own-key"
SHOP = "https://shop.example.com"
PATH = f"/identify/{KEY}"
ANOTHER = "b4bc3442-09af-4cfa-81c6-3572d9e4d7ce"
SOON = timedelta(seconds=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def config(configure: Callable[..., Config]) -> Config:
    """Two sites with a key each; the second has a source of its own, `elsewhere`."""
    site = {"identify_key": KEY, "identify_origins": [SHOP]}
    found = configure(destination=site)
    other = replace(
        found.destinations["site"], name="other", identify_key=OTHER_KEY, api_key="df_other"
    )
    elsewhere = replace(found.sources["shop"], name="elsewhere", destination=other)
    return replace(
        found,
        destinations={**found.destinations, "other": other},
        sources={**found.sources, "elsewhere": elsewhere},
    )


@pytest.fixture
def client(config: Config, store: Store) -> FlaskClient:
    return create_app(config, store).test_client()


def call(client: FlaskClient, path: str = PATH, **said: Any) -> TestResponse:
    """What a page would say."""
    return client.post(path, json={"datafast_visitor_id": VISITOR, **said})


def tellings(store: Store) -> list[Any]:
    found = select(schema.tellings).order_by(schema.tellings.c.id)
    return list(store.read(lambda it: it.execute(found).all()))


def assert_refused(answer: TestResponse, status: int, reason: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json["error"] == reason
    assert answer.json["message"]


# What each call gets


def test_what_the_site_says_is_on_disk_when_it_is_answered(
    client: FlaskClient, open_store: Callable[[], Store]
) -> None:
    before = datetime.now(UTC)
    answer = call(client, email="Ada@Example.com", customer_id="cus_1", reference="order-7")
    assert (answer.status_code, answer.data) == (204, b"")
    (told,) = tellings(open_store())
    assert before <= told.occurred_at <= datetime.now(UTC)
    kept = {name: value for name, value in told._mapping.items() if value is not None}
    assert kept == {
        "id": told.id,
        "source": "",
        "site": "site",
        "occurred_at": told.occurred_at,
        "visitor_id": VISITOR,
        "email": "Ada@Example.com",
        "email_key": "ada@example.com",
        "customer_id": "cus_1",
        "reference": "order-7",
    }


def test_nothing_is_overwritten(client: FlaskClient, store: Store) -> None:
    for visitor in (VISITOR, ANOTHER, VISITOR):
        assert call(client, datafast_visitor_id=visitor, email=EMAIL).status_code == 204
    assert [it.visitor_id for it in tellings(store)] == [VISITOR, ANOTHER, VISITOR]


@pytest.mark.parametrize("who", ["email", "customer_id", "reference"])
def test_one_of_the_three_is_enough(client: FlaskClient, store: Store, who: str) -> None:
    assert call(client, **{who: "x" * 255}).status_code == 204
    assert getattr(tellings(store)[0], who) == "x" * 255


def test_a_number_is_its_own_digits(client: FlaskClient, store: Store) -> None:
    assert call(client, customer_id=12345).status_code == 204
    assert tellings(store)[0].customer_id == "12345"


@pytest.mark.parametrize("type", ["application/json", "text/plain", "text/plain;charset=UTF-8"])
def test_json_may_be_called_plain_text_as_a_beacon_does(client: FlaskClient, type: str) -> None:
    body = json.dumps({"datafast_visitor_id": VISITOR, "email": EMAIL})
    assert client.post(PATH, data=body, content_type=type).status_code == 204


@pytest.mark.parametrize("type", ["", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_form_is_refused(client: FlaskClient, store: Store, type: str) -> None:
    body = json.dumps({"datafast_visitor_id": VISITOR, "email": EMAIL})
    assert_refused(client.post(PATH, data=body, content_type=type), 400, "wrong_content_type")
    assert tellings(store) == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"email": EMAIL, "datafast_visitor_id": "me"}, "bad_visitor_id"),
        ({"email": EMAIL, "datafast_visitor_id": f"{VISITOR} "[1:]}, "bad_visitor_id"),
        # a UUID, and not of version 4
        (
            {"email": EMAIL, "datafast_visitor_id": VISITOR.replace("-4cfa", "-1cfa")},
            "bad_visitor_id",
        ),
        ({"email": EMAIL, "datafast_visitor_id": None}, "missing_field"),
        ({"email": EMAIL, "datafast_visitor_id": {}}, "wrong_type"),
        ({}, "nobody"),
        ({"e-mail": EMAIL}, "nobody"),
        ({"email": "", "customer_id": None, "reference": "  "}, "nobody"),
        ({"email": [EMAIL]}, "wrong_type"),
        ({"email": True}, "wrong_type"),
        ({"email": "x" * 256}, "bad_text"),
        ({"customer_id": "x" * 256, "email": EMAIL}, "bad_text"),
        ({"reference": "x" * 256, "email": EMAIL}, "bad_text"),
        ({"email": "ß" * 128}, "bad_text"),  # "ss" when it is compared
        ({"email": "a\nb@example.com"}, "bad_text"),
        ({"reference": "a\x00b"}, "wrong_type"),
        ({"reference": "\ud800"}, "wrong_type"),
    ],
)
def test_what_is_of_no_use_is_refused_with_its_reason(
    client: FlaskClient, store: Store, said: dict[str, Any], reason: str
) -> None:
    assert_refused(call(client, **said), 400, reason)
    assert tellings(store) == []


@pytest.mark.parametrize(
    "body", [b"", b"email=a@b", b"\xff\xfe", b"{", b"[" * 4_000, b"{'a': 1}", b"NaN"]
)
def test_what_is_no_json_is_refused(client: FlaskClient, body: bytes) -> None:
    answer = client.post(PATH, data=body, content_type="text/plain")
    assert_refused(answer, 400, "malformed_json")


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"7"])
def test_what_is_no_object_is_refused(client: FlaskClient, body: bytes) -> None:
    answer = client.post(PATH, data=body, content_type="text/plain")
    assert answer.status_code == 400
    assert answer.json["error"] in {"wrong_type", "missing_field"}


def test_a_body_over_the_limit_is_refused(client: FlaskClient) -> None:
    body = json.dumps({"datafast_visitor_id": VISITOR, "email": EMAIL}).encode().ljust(4_096)
    assert client.post(PATH, data=body, content_type="text/plain").status_code == 204
    answer = client.post(PATH, data=body + b" ", content_type="text/plain")
    assert_refused(answer, 413, "too_large")
    assert answer.headers["Connection"] == "close"


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
NAMES = ("datafast_visitor_id", "email", "customer_id", "reference")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    said=st.dictionaries(st.sampled_from(NAMES), TREES | st.just(VISITOR)) | TREES,
    address=st.ip_addresses(v=4).map(str),
)
def test_whatever_is_said_is_stored_or_refused(
    client: FlaskClient, said: Any, address: str
) -> None:
    answer = client.post(
        PATH,
        data=json.dumps(said),
        content_type="text/plain",
        environ_base={"REMOTE_ADDR": address},
    )
    assert answer.status_code in {204, 400}


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_store_that_cannot_be_written_is_a_503(client: FlaskClient, store: Store) -> None:
    pragma(store, "query_only=1")
    answer = call(client, email=EMAIL)
    assert_refused(answer, 503, "store_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert "sqlite" not in answer.text.lower()
    pragma(store, "query_only=0")
    assert tellings(store) == []
    assert call(client, email=EMAIL).status_code == 204


# Whose key


def test_an_unknown_key_is_refused(client: FlaskClient, store: Store) -> None:
    for key in (KEY[:-1], f"{KEY}x", KEY.upper(), "é" * 20, "%FF%00"):
        assert_refused(call(client, f"/identify/{key}", email=EMAIL), 401, "unknown_key")
    assert tellings(store) == []


def test_the_key_says_which_site_is_meant(client: FlaskClient, store: Store) -> None:
    for key in (KEY, OTHER_KEY):
        assert call(client, f"/identify/{key}", email=EMAIL).status_code == 204
    assert [it.site for it in tellings(store)] == ["site", "other"]


def test_without_any_key_there_is_no_such_endpoint(
    configure: Callable[..., Config], store: Store
) -> None:
    client = create_app(configure(), store).test_client()
    for key in (KEY, "None", "x"):
        assert_refused(call(client, f"/identify/{key}", email=EMAIL), 404, "not_set_up")
        assert client.options(f"/identify/{key}", headers={"Origin": SHOP}).status_code == 404
    assert client.post("/identify/").status_code == 404
    assert tellings(store) == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_wrong_method_is_told_the_right_one(client: FlaskClient, method: str) -> None:
    answer = client.open(PATH, method=method)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST, OPTIONS"


# From which page


def cors(answer: TestResponse) -> dict[str, str]:
    """What a browser would go by."""
    return {
        name.removeprefix("Access-Control-"): value
        for name, value in answer.headers
        if name.startswith("Access-Control-") or name == "Vary"
    }


def test_a_browser_that_asks_before_is_told_what_it_may_send(client: FlaskClient) -> None:
    asks = {
        "Origin": SHOP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answer = client.options(PATH, headers=asks)
    assert (answer.status_code, answer.data) == (204, b"")
    assert cors(answer) == {
        "Allow-Origin": SHOP,
        "Allow-Methods": "POST",
        "Allow-Headers": "Content-Type",
        "Max-Age": "86400",
        "Vary": "Origin",
    }


def test_a_page_of_the_site_can_read_the_answer_good_or_bad(client: FlaskClient) -> None:
    for said, status in (({"email": EMAIL}, 204), ({}, 400)):
        body = {"datafast_visitor_id": VISITOR, **said}
        answer = client.post(PATH, json=body, headers={"Origin": SHOP})
        assert answer.status_code == status
        assert cors(answer) == {"Allow-Origin": SHOP, "Vary": "Origin"}


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        "http://shop.example.com",
        f"{SHOP}:8443",
        f"{SHOP}.evil.example.com",
        f"{SHOP}/",
        SHOP.upper(),
        "null",
        "",
        "*",
    ],
)
def test_a_page_of_another_origin_is_refused(
    client: FlaskClient, store: Store, origin: str
) -> None:
    body = {"datafast_visitor_id": VISITOR, "email": EMAIL}
    answer = client.post(PATH, json=body, headers={"Origin": origin})
    assert_refused(answer, 403, "other_origin")
    assert cors(answer) == {"Vary": "Origin"}
    asked = client.options(PATH, headers={"Origin": origin})
    assert_refused(asked, 403, "other_origin")
    assert cors(asked) == {"Vary": "Origin"}
    assert tellings(store) == []


def test_another_sites_pages_are_strangers(client: FlaskClient) -> None:
    path = f"/identify/{OTHER_KEY}"  # the other site's origins are the same as the first one's
    config: Config = client.application.extensions["relay.config"]
    other = replace(config.destinations["other"], identify_origins=())
    client.application.extensions["relay.config"] = replace(
        config, destinations={**config.destinations, "other": other}
    )
    body = {"datafast_visitor_id": VISITOR, "email": EMAIL}
    assert client.post(path, json=body, headers={"Origin": SHOP}).status_code == 403
    assert client.post(PATH, json=body, headers={"Origin": SHOP}).status_code == 204


def test_a_server_without_an_origin_is_fine_and_gets_no_permission(client: FlaskClient) -> None:
    answer = call(client, email=EMAIL)
    assert answer.status_code == 204
    assert cors(answer) == {"Vary": "Origin"}


# How often


def knock(client: FlaskClient, address: str, named: str | None = None) -> TestResponse:
    """A call that counts, and costs nothing."""
    headers = {"X-Forwarded-For": named} if named else {}
    return client.post(PATH, environ_base={"REMOTE_ADDR": address}, headers=headers)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_who_calls_too_often_is_told_when_to_come_again(client: FlaskClient, store: Store) -> None:
    assert {knock(client, "8.8.4.4").status_code for _ in range(60)} == {400}
    body = {"datafast_visitor_id": VISITOR, "email": EMAIL}
    answer = client.post(
        PATH, json=body, headers={"Origin": SHOP}, environ_base={"REMOTE_ADDR": "8.8.4.4"}
    )
    assert_refused(answer, 429, "too_often")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert tellings(store) == []
    assert knock(client, "8.8.8.8").status_code == 400


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_site_has_a_limit_that_another_site_does_not_feel(client: FlaskClient) -> None:
    for number in range(600):
        assert knock(client, f"8.8.{number // 40}.8").status_code == 400
    assert_refused(knock(client, "8.9.9.9"), 429, "too_often")
    assert call(client, f"/identify/{OTHER_KEY}", email=EMAIL).status_code == 204


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_who_is_refused_uses_up_nothing_of_the_sites(client: FlaskClient) -> None:
    for _ in range(700):
        knock(client, "8.8.8.8")
    assert knock(client, "8.8.4.4").status_code == 400


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("proxy", ["127.0.0.1", "::1", "172.17.0.1", ""])
def test_behind_a_proxy_close_by_callers_are_told_apart_by_its_word(
    client: FlaskClient, proxy: str
) -> None:
    for _ in range(60):
        knock(client, proxy, "1.1.1.1, 8.8.8.8")
    assert knock(client, proxy, "2.2.2.2, 8.8.8.8").status_code == 429
    assert knock(client, proxy, "1.1.1.1, 8.8.4.4").status_code == 400


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_who_comes_from_afar_is_not_believed_whom_it_names(client: FlaskClient) -> None:
    for number in range(60):
        knock(client, "8.8.8.8", f"1.1.1.{number}")
    assert knock(client, "8.8.8.8", "9.9.9.9").status_code == 429


# Which payments get their visitor


def paid(
    id: str = "pay_1", *, at: datetime, email: str | None = None, customer: str | None = None
) -> Received:
    """A payment that knows no visitor."""
    entity = {
        "id": id,
        "amount": 2999,
        "currency": "EUR",
        "status": "captured",
        "captured": True,
        "created_at": int(at.timestamp()),
        "email": email,
        "customer_id": customer,
        "notes": [],
    }
    return signed("payment.captured", {"payment": {"entity": entity}}, f"paid:{id}", at)


def tell(way: Way, visitor: str = VISITOR, site: str = "site", **who: str) -> None:
    """What a call stores, at the way's own time."""
    sources = [it for it in way.config.sources.values() if it.destination.name == site]
    about = About(visitor_id=visitor, **who)  # type: ignore[arg-type]
    ledger.identified(way.store, site, sources, about, way.clock())


def visitors(sandbox: DataFast) -> dict[str, str | None]:
    """Whose payments they are, as DataFast has them."""
    return {it["transaction_id"]: it.get("datafast_visitor_id") for it in sandbox.records()}


@contextmanager
def orders(way: Way, reference: str) -> Iterator[None]:
    """The shop's provider hands back a reference of the site's own."""
    source = way.config.sources["shop"]
    mapper = source.provider.events["payment.captured"]

    def with_reference(event: Event) -> Payment | Ignored:
        return replace(mapper(event), reference=reference)

    events = {**source.provider.events, "payment.captured": with_reference}
    changed = replace(source, provider=replace(source.provider, events=events))
    before, way.config = way.config, replace(way.config, sources={"shop": changed})
    yield
    way.config = before


@pytest.mark.parametrize(
    ("said", "payment"),
    [
        ({"email": "Ada@Example.COM"}, {"email": "aDA@example.com"}),
        ({"customer_id": "cus_1"}, {"customer": "cus_1"}),
        ({"reference": "pay_1"}, {}),  # the payment's own id
        ({"reference": "order-7"}, {}),
    ],
)
def test_a_payment_after_the_call_gets_its_visitor(
    client: FlaskClient, way: Way, sandbox: DataFast, said: dict[str, str], payment: dict[str, str]
) -> None:
    sandbox.know(VISITOR)
    assert call(client, **said).status_code == 204
    way.clock.now = datetime.now(UTC) + SOON
    with orders(way, "order-7"):
        way.send(paid(at=way.clock(), **payment))
    assert visitors(sandbox) == {"pay_1": VISITOR}
    assert row(way.store, "paid:pay_1").reason == "attributed"
    (evidence,) = [
        it for it in row(way.store, "paid:pay_1").evidence if it["why"].startswith("visitor")
    ]
    assert (evidence["what"], evidence["event"]) == ("inherited", None)


@pytest.mark.parametrize(
    ("said", "payment"),
    [
        ({"email": "Ada@Example.COM"}, {"email": "aDA@example.com"}),
        ({"customer_id": "cus_1"}, {"customer": "cus_1"}),
        ({"reference": "pay_1"}, {}),
        ({"reference": "order-7"}, {}),
    ],
)
def test_a_payment_that_was_sent_before_the_call_is_repaired(
    client: FlaskClient, way: Way, sandbox: DataFast, said: dict[str, str], payment: dict[str, str]
) -> None:
    sandbox.know(VISITOR)
    way.clock.now = datetime.now(UTC).replace(microsecond=0)
    with orders(way, "order-7"):
        way.send(paid(at=way.clock(), **payment), paid("pay_2", at=way.clock(), email="bob@x.y"))
        (before,) = [it for it in sandbox.records() if it["transaction_id"] == "pay_1"]
        assert call(client, **said).status_code == 204
        way.clock.pass_(seconds=5)
        repairs = way.store.repairs()
        # A reference that both payments have is both's.
        ids = {"pay_1", "pay_2"} if said == {"reference": "order-7"} else {"pay_1"}
        assert {(it.transaction_id, it.repair) for it in repairs} == {(id, "visitor") for id in ids}
        way.store.repair([it.event for it in repairs], way.clock())
        way.deliver_all()
    assert visitors(sandbox) == {"pay_1": VISITOR, "pay_2": VISITOR if "pay_2" in ids else None}
    (after,) = [it for it in sandbox.records() if it["transaction_id"] == "pay_1"]
    assert after["timestamp"] == before["timestamp"]
    assert way.store.repairs() == []


def test_the_latest_call_before_the_payment_wins(way: Way, sandbox: DataFast) -> None:
    sandbox.know(VISITOR, ANOTHER)
    tell(way, VISITOR, email=EMAIL)
    way.clock.pass_(days=1)
    tell(way, ANOTHER, email=EMAIL)
    way.clock.pass_(minutes=1)
    way.send(paid(at=way.clock(), email=EMAIL))
    assert visitors(sandbox) == {"pay_1": ANOTHER}


def test_a_call_of_a_later_day_does_not_change_whose_payment_it_was(
    way: Way, sandbox: DataFast
) -> None:
    sandbox.know(VISITOR, ANOTHER)
    tell(way, VISITOR, email=EMAIL, customer_id="cus_1")
    paid_at = way.clock.pass_(minutes=1)
    way.clock.pass_(days=1)
    tell(way, ANOTHER, email=EMAIL, customer_id="cus_1")
    way.send(paid(at=paid_at, email=EMAIL, customer="cus_1"))
    assert visitors(sandbox) == {"pay_1": VISITOR}


@pytest.mark.parametrize(
    ("later", "counts"), [(HOUR, True), (HOUR + SOON, False), (timedelta(days=30), False)]
)
@pytest.mark.parametrize("is_sent_before", [True, False])
def test_a_call_after_the_payment_counts_if_it_is_the_same_checkout(
    way: Way, sandbox: DataFast, later: timedelta, *, counts: bool, is_sent_before: bool
) -> None:
    sandbox.know(VISITOR)
    payment = paid(at=NOON, email=EMAIL)
    if is_sent_before:
        way.send(payment)
    way.clock.now = NOON + later
    tell(way, email=EMAIL)
    if not is_sent_before:
        way.send(payment)
    repairs = way.store.repairs()
    assert bool(repairs) == (counts and is_sent_before)
    way.store.repair([it.event for it in repairs], way.clock())
    way.deliver_all()
    assert visitors(sandbox) == {"pay_1": VISITOR if counts else None}


def test_a_reference_is_good_for_ever(way: Way, sandbox: DataFast) -> None:
    sandbox.know(VISITOR)
    way.send(paid(at=NOON))
    way.clock.pass_(days=30)
    tell(way, reference="pay_1")
    assert [it.transaction_id for it in way.store.repairs()] == ["pay_1"]


def test_a_payment_that_has_its_visitor_is_not_repaired(way: Way, sandbox: DataFast) -> None:
    sandbox.know(VISITOR, ANOTHER)
    tell(way, VISITOR, email=EMAIL)
    way.send(paid(at=way.clock(), email=EMAIL))
    way.clock.pass_(minutes=1)
    tell(way, ANOTHER, email=EMAIL)
    assert way.store.repairs() == []


@pytest.mark.parametrize("who", ["email", "customer_id", "reference"])
def test_what_another_site_says_does_not_leak(
    client: FlaskClient, way: Way, sandbox: DataFast, who: str
) -> None:
    said = {"email": EMAIL, "customer_id": "cus_1", "reference": "pay_1"}
    assert call(client, f"/identify/{OTHER_KEY}", **{who: said[who]}).status_code == 204
    way.clock.now = datetime.now(UTC) + SOON
    way.send(paid(at=way.clock(), email=EMAIL, customer="cus_1"))
    assert call(client, f"/identify/{OTHER_KEY}", **{who: said[who]}).status_code == 204
    assert way.store.repairs() == []
    assert visitors(sandbox) == {"pay_1": None}


def test_every_source_of_the_site_is_looked_at(way: Way, sandbox: DataFast) -> None:
    sandbox.know(VISITOR)
    site = way.config.destinations["site"]
    second = replace(way.config.sources["shop"], name="second", destination=site)
    way.config = replace(way.config, sources={**way.config.sources, "second": second})
    for name in ("shop", "second"):
        way.source_name = name
        way.send(paid(f"pay_{name}", at=way.clock(), email=EMAIL))
    tell(way, email=EMAIL)
    assert {(it.source, it.transaction_id) for it in way.store.repairs()} == {
        ("shop", "pay_shop"),
        ("second", "pay_second"),
    }


def test_a_call_says_whose_visit_it_was_and_nothing_of_the_customer(
    way: Way, sandbox: DataFast
) -> None:
    sandbox.know(VISITOR)
    tell(way, customer_id="cus_1", email="mallory@example.com")
    tell(way, reference="pay_1", customer_id="cus_mallory")
    way.send(
        paid(at=way.clock(), customer="cus_1"), paid("pay_2", at=way.clock(), customer="cus_1")
    )
    assert visitors(sandbox) == {"pay_1": VISITOR, "pay_2": VISITOR}
    assert [(it.get("email"), it.get("customer_id")) for it in sandbox.records()] == [
        (None, "cus_1"),
        (None, "cus_1"),
    ]


def test_where_addresses_are_not_to_be_matched_they_are_not(way: Way, sandbox: DataFast) -> None:
    site = replace(way.config.destinations["site"], match_email=False)
    shop = replace(way.config.sources["shop"], destination=site)
    way.config = replace(way.config, sources={"shop": shop})
    tell(way, email=EMAIL)
    way.send(paid(at=way.clock(), email=EMAIL))
    tell(way, email=EMAIL)
    assert way.store.repairs() == []
    assert visitors(sandbox) == {"pay_1": None}


# What is logged


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_the_log_knows_the_site_and_the_reason_and_nothing_else(
    client: FlaskClient, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = {"email": EMAIL, "customer_id": "cus_hush", "reference": "order-hush"}
    call(client, **said)
    call(client, **said, datafast_visitor_id="not-one")
    call(client, f"/identify/{KEY}x", **said)
    client.post(PATH, json=said, headers={"Origin": "https://evil.example.com"})
    pragma(store, "query_only=1")
    call(client, **said)
    lines = [json.loads(JsonLines().format(it)) for it in caplog.records]
    told = [{k: v for k, v in it.items() if k not in {"time", "level"}} for it in lines]
    assert told == [
        {"event": "identify.stored", "site": "site"},
        {"event": "identify.refused", "site": "site", "reason": "bad_visitor_id"},
        {"event": "identify.refused", "site": None, "reason": "unknown_key"},
        {"event": "identify.refused", "site": "site", "reason": "other_origin"},
        {"event": "identify.refused", "site": "site", "reason": "store_unavailable"},
    ]


# The settings


LEAST = """\
destinations:
  main:
    api_key: df_abc123
    identify_key: 0123456789abcdef
    identify_origins: [https://shop.example.com]
  second:
    api_key: df_abc456
    identify_key: fedcba9876543210
sources:
  shop: {provider: razorpay, destination: main, secrets: [a-long-webhook-secret]}
"""


def load(folder: Path, text: str) -> Config:
    (folder / "relay.yaml").write_text(text, "utf-8")
    return configuration.load(folder / "relay.yaml", {})


def test_both_settings_are_a_destinations_own(tmp_path: Path) -> None:
    found = load(tmp_path, LEAST).destinations
    assert found["main"].identify_key == "0123456789abcdef"
    assert found["main"].identify_origins == ("https://shop.example.com",)
    assert found["second"].identify_origins == ()
    assert "0123456789abcdef" not in repr(found)


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://[::1]:8080", "https://xn--bcher-kva.example:8443"]
)
def test_every_origin_that_a_browser_sends_can_be_written(tmp_path: Path, origin: str) -> None:
    found = load(tmp_path, LEAST.replace("[https://shop.example.com]", f"['{origin}']"))
    assert found.destinations["main"].identify_origins == (origin,)


ORIGIN = (
    "line 5, destinations.main.identify_origins[0]: write an origin as browsers send it, such as "
    "https://shop.example.com: small letters, no path"
)
LENGTH = "line 4, destinations.main.identify_key: write 16 to 128 letters, digits, - and _"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "fedcba9876543210",
            "0123456789abcdef",
            (
                "line 8, destinations.second.identify_key: the destination 'main' has this key already; "
                "each needs its own"
            ),
        ),
        ("0123456789abcdef", "short", LENGTH),
        ("0123456789abcdef", "'0123456789/abcdef'", LENGTH),
        (
            "0123456789abcdef",
            "xxxxxxxxxxxxxxxxxxxx",
            "line 4, destinations.main.identify_key: this is a placeholder; put the real one here",
        ),
        (
            "    identify_key: 0123456789abcdef\n",
            "",
            (
                "line 4, destinations.main.identify_origins: without identify_key nobody can call; "
                "write one, or take this out"
            ),
        ),
        ("https://shop.example.com", "shop.example.com", ORIGIN),
        ("https://shop.example.com", "https://shop.example.com/", ORIGIN),
        ("https://shop.example.com", "https://shop.example.com/checkout", ORIGIN),
        ("https://shop.example.com", "https://Shop.example.com", ORIGIN),
        ("https://shop.example.com", "https://shop.example.com:443", ORIGIN),
        ("https://shop.example.com", "'*'", ORIGIN),
        ("https://shop.example.com", "'null'", ORIGIN),
        (
            "[https://shop.example.com]",
            "https://shop.example.com",
            (
                "line 5, destinations.main.identify_origins: this must be a list: one entry a line, "
                "each after a dash"
            ),
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_to_write(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert old in LEAST
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, LEAST.replace(old, new))
    assert [str(it) for it in caught.value.problems] == [told]
    assert "0123456789abcdef" not in caught.value.message


# In a real process


def test_a_web_process_answers_a_page_and_a_server(tmp_path: Path) -> None:
    port = free_port()
    found = served(port, sqlite(tmp_path))
    found["destinations"]["site"] |= {"identify_key": KEY, "identify_origins": [SHOP]}
    body = json.dumps({"datafast_visitor_id": VISITOR, "email": EMAIL})
    with relay(tmp_path, "web", found) as web, requests.Session() as session:
        url = web.url + PATH
        asked = session.options(url, headers={"Origin": SHOP}, timeout=10)
        assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (204, SHOP)
        for headers in ({"Origin": SHOP, "Content-Type": "text/plain;charset=UTF-8"}, {}):
            json_ = {"Content-Type": "application/json"}
            answer = session.post(url, data=body, headers=json_ | headers, timeout=10)
            assert answer.status_code == 204
        with Wire(port) as wire:  # it is not even waited for
            head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n\r\n"
            wire.send(head.encode())
            refusal = wire.answer()
            assert refusal is not None
            assert refusal.status == 413
        parts = iter([b" " * 3_000, b" " * 3_000])
        assert session.post(url, data=parts, timeout=10).status_code == 413
        assert web.stop() == 0
        assert [it["site"] for it in web.said("identify.stored")] == ["site", "site"]
        assert not re.search(f"{EMAIL}|{VISITOR}|{KEY}", web.log.read_text("utf-8"))
    store = Store(sqlite(tmp_path))
    assert count(store, "tellings") == 2
    store.close()


# What people are told


@pytest.mark.parametrize("name", provider.names())
def test_a_provider_says_how_the_visitors_id_travels_or_that_the_page_can_tell_it(
    name: str,
) -> None:
    known = provider.load(name)
    told = set_up(known)
    assert known.setup.visitor in told
    carries = "visitor" in known.setup.checkout
    assert carries != ("/identify/<key>" in told)
    assert not (carries and name in {"buymeacoffee", "kofi", "patreon"})


def test_the_snippet_of_the_readme_says_what_the_endpoint_takes() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    (snippet,) = re.findall(r"```html\n(.*?)```", readme, re.DOTALL)
    for word in ("datafast_visitor_id", "/identify/", "keepalive: true", 'method: "POST"'):
        assert word in snippet
    assert "headers" not in snippet  # JSON that is called plain text needs no preflight
