"""The traps of Google Play."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import google.auth.jwt
import google.oauth2.id_token
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from providers import google_play
from relay import certificates, fetch, mapping, provider, samples
from relay.errors import FetchError, PayloadError, RelayError, VerificationError
from relay.model import Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.samples import Sample

HERE = Path(__file__).parent
LOADED = provider.load("google_play")
VISITOR = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"
ACCOUNT = "push@example-project.iam.gserviceaccount.com"
AUDIENCE = "https://relay.example.com/play"
KEY, OTHER_KEY = generate_private_key(65537, 2048), generate_private_key(65537, 2048)
CERTIFICATE = certificates.made_root(KEY).public_bytes(Encoding.PEM)

FIRST, RENEWAL = (
    "subscriptionNotification.PURCHASED.first",
    "subscriptionNotification.RENEWED.renewal",
)
TRIAL, UPGRADE = (
    "subscriptionNotification.PURCHASED.trial",
    "subscriptionNotification.PURCHASED.upgrade",
)
FULL, PARTIAL = "voidedPurchaseNotification.full", "voidedPurchaseNotification.partial"

Edit = Callable[[dict[str, Any]], object]


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


# Google's token


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def token(key: Any = KEY, head: Mapping[str, Any] | None = None, **claims: Any) -> str:
    """A token as Pub/Sub sends it, received now; a claim that is None is left out."""
    at = int(datetime.now(UTC).timestamp())
    said = {
        "aud": AUDIENCE,
        "azp": "113774264463038321964",
        "email": ACCOUNT,
        "sub": "113774264463038321964",
        "email_verified": True,
        "exp": at + 3_600,
        "iat": at,
        "iss": "https://accounts.google.com",
    } | claims
    said = {name: value for name, value in said.items() if value is not None}
    facts = {"alg": "RS256", "kid": "key-1", "typ": "JWT"} | dict(head or {})
    text = ".".join(encoded(json.dumps(part).encode()) for part in (facts, said))
    return f"{text}.{encoded(key.sign(text.encode(), PKCS1v15(), SHA256()))}"


def keys(url: str) -> bytes:
    assert url == "https://www.googleapis.com/oauth2/v3/certs"
    numbers = KEY.public_key().public_numbers()
    n, e = (encoded(it.to_bytes(-(-it.bit_length() // 8))) for it in (numbers.n, numbers.e))
    kept = {"kid": "key-1", "kty": "RSA", "alg": "RS256", "use": "sig", "n": n, "e": e}
    return json.dumps({"keys": [{**kept, "kid": "key-0"}, kept]}).encode()


def verdict(authorization: str | None, download: Any = keys, **settings: Any) -> str:
    """`genuine`, or why the request is refused, in a source that asks for Google's token."""
    sample = recorded(FIRST)
    request = replace(sample.request, received_at=datetime.now(UTC))
    if authorization is not None:
        headers = request.headers.replaced(authorization=authorization)
        request = replace(request, headers=headers)
    settings = {"push_account": ACCOUNT, "audience": AUDIENCE} | settings
    try:
        LOADED.signature.verify(request, Trust(sample.secrets, 300, settings, download))
    except VerificationError as error:
        return error.reason
    return "genuine"


def googles_library_accepts(text: str) -> bool:
    """Google's own check, which reads the same keys as certificates."""
    answer = SimpleNamespace(
        status=200,
        headers={"content-type": "application/json"},
        data=json.dumps({"key-1": CERTIFICATE.decode()}).encode(),
    )
    try:
        claims = google.oauth2.id_token.verify_oauth2_token(
            text, lambda *_, **__: answer, audience=AUDIENCE
        )
    except (ValueError, google.auth.exceptions.GoogleAuthError):
        return False
    return bool(claims["email"] == ACCOUNT and claims["email_verified"] is True)


NOW = int(datetime.now(UTC).timestamp())


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, "genuine"),
        ({"iss": "accounts.google.com"}, "genuine"),
        ({"iss": "https://example.com"}, "wrong_issuer"),
        ({"aud": "https://example.com"}, "wrong_audience"),
        ({"email": "push@other-project.iam.gserviceaccount.com"}, "wrong_account"),
        ({"email_verified": False}, "wrong_account"),
        ({"iat": NOW - 9_000, "exp": NOW - 5_400}, "stale_timestamp"),
        ({"iat": NOW + 3_600, "exp": NOW + 7_200}, "stale_timestamp"),
        ({"exp": None}, "malformed_timestamp"),
    ],
)
def test_each_claim_must_be_right_and_googles_library_agrees(
    claims: dict[str, Any], expected: str
) -> None:
    text = token(**claims)
    assert verdict(f"Bearer {text}") == expected
    assert googles_library_accepts(text) == (expected == "genuine")


def test_a_token_by_another_key_or_altered_proves_nothing() -> None:
    assert verdict(f"Bearer {token(OTHER_KEY)}") == "bad_signature"
    assert verdict(f"Bearer {token(head={'kid': 'key-9'})}") == "bad_signature"
    head, _, signature = token().split(".")
    foreign = token(email="mallory@example.com").split(".")[1]
    assert verdict(f"Bearer {head}.{foreign}.{signature}") == "bad_signature"


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS512", None])
def test_only_rs256_is_taken(algorithm: str | None) -> None:
    assert verdict(f"Bearer {token(head={'alg': algorithm})}") == "malformed_header"


@pytest.mark.parametrize("text", ["Bearer", "Bearer a.b", "Bearer ..", "Basic x", "Bearer é.é.é"])
def test_what_is_no_token_is_refused(text: str) -> None:
    assert verdict(text) == "malformed_header"
    assert verdict(None) == "missing_header"
    assert verdict(f"Bearer {token()}=") == "malformed_header"
    assert verdict(f"bearer {token()}") == "malformed_header"


@pytest.mark.parametrize("document", [b"", b"[]", b'{"keys": [{"kid": "key-1"}]}', b"\xff"])
def test_without_googles_keys_no_token_counts(document: bytes) -> None:
    def unavailable(url: str) -> bytes:
        raise FetchError("fetch_503", f"{url} answered 503")

    assert verdict(f"Bearer {token()}", unavailable) == "keys_unavailable"
    assert verdict(f"Bearer {token()}", lambda _: document) == "keys_unavailable"


def test_without_an_audience_of_its_own_the_token_is_for_the_sources_url() -> None:
    url = recorded(FIRST).request.url
    assert verdict(f"Bearer {token(aud=url)}", audience=None) == "genuine"
    assert verdict(f"Bearer {token()}", audience=None) == "wrong_audience"


def test_the_token_does_not_stand_in_for_the_secret_in_the_url() -> None:
    sample = recorded(FIRST)
    request = replace(sample.request, url_secret="0" * 32)
    headers = request.headers.replaced(authorization=f"Bearer {token()}")
    trust = Trust(sample.secrets, 300, {"push_account": ACCOUNT, "audience": AUDIENCE}, keys)
    with pytest.raises(VerificationError) as caught:
        LOADED.signature.verify(replace(request, headers=headers), trust)
    assert caught.value.reason == "bad_url_secret"
    with pytest.raises(RelayError, match="push_account"):
        LOADED.signature.sign(request, trust)


# Google's API


def service_account() -> str:
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return json.dumps({"client_email": ACCOUNT, "private_key_id": "key-1", "private_key": pem})


def test_the_api_is_asked_with_a_token_that_the_account_signs_itself() -> None:
    now = datetime.now(UTC)
    claims = google.auth.jwt.decode(
        google_play.bearer(service_account(), now),
        certs={"key-1": CERTIFICATE},
        audience="https://androidpublisher.googleapis.com/",
    )
    assert claims["iss"] == claims["sub"] == ACCOUNT
    assert timedelta(0) < timedelta(seconds=claims["exp"] - claims["iat"]) <= timedelta(hours=1)
    assert google_play.bearer("an-access-token", now) == "an-access-token"


@pytest.mark.parametrize("key", ["{", "{}", '{"private_key": "no PEM", "client_email": "x"}'])
def test_a_key_that_is_none_is_named_and_not_tried_again(key: str) -> None:
    with pytest.raises(FetchError, match="service_account_key") as caught:
        google_play.bearer(key, datetime.now(UTC))
    assert caught.value.permanent


# The meaning


def told(name: str, edit: Edit = lambda _: None, **settings: Any) -> Payment | Ignored:
    """What a recorded event becomes after an edit of the API's answers; one removed is unknown."""
    sample = recorded(name)
    documents = {
        "order" if "/orders/" in str(it.path) else "purchase": it for it in sample.documents
    }
    found = {kind: json.loads(it.body) for kind, it in documents.items()}
    edit(found)
    answers = [replace(documents[it], body=json.dumps(found[it]).encode()) for it in found]
    (hint,) = mapping.events(LOADED, sample.request, LOADED.defaults() | settings)
    (event,) = mapping.complete(LOADED, hint, fetch.RecordedApi(answers))
    assert event.id == hint.id
    return mapping.payment(LOADED, event)


def paid(name: str, edit: Edit = lambda _: None, **settings: Any) -> Payment:
    found = told(name, edit, **settings)
    assert isinstance(found, Payment), found
    return found


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        ({"units": "9", "nanos": 990_000_000}, "9.99"),
        ({"units": "1500"}, "1500"),
        ({"nanos": 500_000_000}, "0.5"),
        ({"units": "10", "nanos": 1}, "10.000000001"),
    ],
)
def test_units_and_billionths_are_added_exactly(total: dict[str, Any], expected: str) -> None:
    found = paid(FIRST, lambda it: it["order"].update(total={"currencyCode": "EUR", **total}))
    assert found.amount == Decimal(expected)


def test_a_purchase_and_its_renewal_are_two_orders_of_one_subscription() -> None:
    first, renewal = paid(FIRST), paid(RENEWAL)
    assert first.subscription_id == renewal.subscription_id
    assert renewal.transaction_id == f"{first.transaction_id}..0"
    assert (first.recurrence, renewal.recurrence) == (Recurrence.FIRST, Recurrence.RENEWAL)


def test_an_order_of_nothing_is_a_trial_only_if_it_says_so() -> None:
    def base(found: dict[str, Any]) -> None:
        found["order"]["lineItems"][0]["subscriptionDetails"] = {"offerPhase": "BASE"}

    def priced(found: dict[str, Any]) -> None:
        found["order"]["total"]["units"] = "1"

    assert paid(TRIAL).kind is Kind.TRIAL
    free = told(TRIAL, base)
    assert isinstance(free, Ignored)
    assert free.reason == "zero_amount"
    assert paid(TRIAL, priced).kind is Kind.CHARGE


@pytest.mark.parametrize("state", ["PENDING", "CANCELED"])
def test_an_order_that_was_not_processed_is_no_charge(state: str) -> None:
    assert told(FIRST, lambda it: it["order"].update(state=state)) == Ignored("not_paid")
    assert paid(FIRST, lambda it: it["order"].update(state="REFUNDED")).amount


def test_a_change_that_begins_later_does_not_tell_the_old_order_again() -> None:
    def later(found: dict[str, Any]) -> None:
        found["order"]["purchaseToken"] = found["purchase"]["linkedPurchaseToken"]

    assert paid(UPGRADE).recurrence is Recurrence.RENEWAL
    assert told(UPGRADE, later) == Ignored("no_money_moved")


def test_refunds_tell_the_sum_so_far_of_the_order_they_name() -> None:
    full, partial = paid(FULL), paid(PARTIAL)
    assert (full.amount, full.original_id) == (paid(RENEWAL).amount, paid(RENEWAL).transaction_id)
    assert (partial.amount, partial.original_id) == (750, "GPA.3300-0000-0000-00023")
    assert full.cumulative
    assert partial.cumulative


def test_a_voided_purchase_in_part_is_seen_by_the_state_of_its_order() -> None:
    def prorated(found: dict[str, Any]) -> None:
        total = {"currencyCode": "EUR", "units": "4"}
        history = {"partialRefundEvents": [{"refundDetails": {"total": total}}]}
        found["order"].update(state="PARTIALLY_REFUNDED", orderHistory=history)

    assert paid(FULL, prorated).amount == 4


def test_a_full_refund_whose_order_cannot_be_read_is_all_that_is_left() -> None:
    found = paid(FULL, lambda it: it.clear())
    assert (found.amount, found.currency, found.cumulative) == (None, None, False)
    with pytest.raises(PayloadError, match=r"\$\.order"):
        told(PARTIAL, lambda it: it.clear())


@pytest.mark.parametrize("bare", [False, True])
def test_a_bare_uuid_is_a_visitor_only_if_the_source_says_so(*, bare: bool) -> None:
    def plain(found: dict[str, Any]) -> None:
        found["purchase"]["externalAccountIdentifiers"] = {"obfuscatedExternalAccountId": VISITOR}

    found = paid(FIRST, plain, account_id_is_visitor=bare)
    assert (found.visitor_id, found.reference) == ((VISITOR, None) if bare else (None, VISITOR))


def test_a_subscription_bought_in_the_store_again_keeps_the_ids_of_the_one_before() -> None:
    def again(found: dict[str, Any]) -> None:
        ids = found["purchase"].pop("externalAccountIdentifiers")
        found["purchase"]["outOfAppPurchaseContext"] = {"expiredExternalAccountIdentifiers": ids}

    assert paid(FIRST, again).visitor_id == VISITOR


@pytest.mark.parametrize("data", ["é", "%%%", "bm90IGpzb24=", "W10="])
def test_a_message_that_cannot_be_read_says_where(data: str) -> None:
    body = json.dumps({"message": {"messageId": "1", "data": data}}).encode()
    request = Received(body, recorded(FIRST).request.headers, datetime.now(UTC))
    with pytest.raises(PayloadError, match=r"\$\.message\.data"):
        mapping.events(LOADED, request, {})
