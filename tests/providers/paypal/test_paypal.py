"""PayPal's traps."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paypalrestsdk
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from providers import paypal
from relay import certificates, mapping, provider, samples
from relay.errors import FetchError, PayloadError, RelayError, VerificationError
from relay.model import Ignored, Kind, Payment, Received, Trust
from relay.samples import Sample

HERE = Path(__file__).parent
SDK_CERTIFICATES = Path(paypalrestsdk.__file__).parent / "data"
VISITOR = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"
CERTIFICATES = "https://api.paypal.com/v1/notifications/certs/"
PUBLISHED = "PAYMENT.CAPTURE.COMPLETED.simulator"
OURS = "PAYMENT.CAPTURE.COMPLETED.visitor"

Edit = Callable[[dict[str, Any]], object]


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def verdict(request: Received, trust: Trust) -> str:
    """`genuine`, or why the request is refused."""
    try:
        paypal.SIGNATURE.verify(request, trust)
    except VerificationError as error:
        return error.reason
    return "genuine"


def certified_by(document: bytes, trust: Trust, **settings: Any) -> Trust:
    """The same trust, with another document at every address, and other settings."""
    return replace(trust, download=lambda _: document, settings={**trust.settings, **settings})


def made_root() -> tuple[RSAPrivateKey, bytes]:
    key = generate_private_key(65537, 2048)
    return key, certificates.made_root(key).public_bytes(Encoding.PEM)


def made_leaf(name: str, issuer: RSAPrivateKey) -> bytes:
    key = generate_private_key(65537, 2048)
    return certificates.made_leaf(name, key, issuer).public_bytes(Encoding.PEM)


def becomes(name: str, edit: Edit, **settings: Any) -> Payment | Ignored:
    """What the recorded event becomes after an edit of its body."""
    sample, loaded = recorded(name), provider.load("paypal")
    body = json.loads(sample.request.body)
    edit(body)
    request = replace(sample.request, body=json.dumps(body).encode())
    (event,) = mapping.events(loaded, request, {**loaded.defaults(), **settings})
    return mapping.payment(loaded, event)


def paid(name: str, edit: Edit = lambda _: None, **settings: Any) -> Payment:
    found = becomes(name, edit, **settings)
    assert isinstance(found, Payment)
    return found


# The signature


@pytest.mark.parametrize("sample", samples.of("paypal", HERE.parent), ids=lambda it: it.name)
def test_the_sdk_composes_the_text_that_was_signed(sample: Sample) -> None:
    """Its check of RSA needs an older pyOpenSSL, so that part is done here, by its own rule."""
    headers = sample.request.headers
    text = paypalrestsdk.WebhookEvent._get_expected_sig(
        headers.get("paypal-transmission-id"),
        headers.get("paypal-transmission-time"),
        sample.secrets[0],
        sample.request.body.decode(),
    ).encode()
    assert paypal.signed_text(sample.request, sample.secrets[0]) == text
    document = sample.download(headers.get("paypal-cert-url") or "")
    signature = base64.b64decode(headers.get("paypal-transmission-sig") or "")
    key: Any = x509.load_pem_x509_certificate(document).public_key()
    key.verify(signature, text, PKCS1v15(), SHA256())


@pytest.mark.parametrize(
    "url",
    [
        "http://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
        "https://api-m.paypal.com/v1/notifications/certs/CERT-1",
        "https://API.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com.example.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com:8443/v1/notifications/certs/CERT-1",
        "https://api.paypal.com:443/v1/notifications/certs/CERT-1",
        "https://api.paypal.com@example.com/v1/notifications/certs/CERT-1",
        "https://user@api.paypal.com/v1/notifications/certs/CERT-1",
        "https://example.com/v1/notifications/certs/CERT-1",
        "https://example.com/?https://api.paypal.com/v1/notifications/certs/CERT-1",
        "//api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com/v1/notifications/CERT-1",
        CERTIFICATES,
        CERTIFICATES + "../../upload/CERT-1",
        CERTIFICATES + "..",
        CERTIFICATES + "%2e%2e/CERT-1",
        CERTIFICATES + "a/CERT-1",
        CERTIFICATES + "CERT-1?next=https://example.com",
        CERTIFICATES + "CERT-1#CERT-2",
        CERTIFICATES + "CERT-1\\..\\CERT-2",
        CERTIFICATES + "CERT-1\n",
        CERTIFICATES + "C" * 101,
    ],
)
def test_a_certificate_from_elsewhere_is_not_even_downloaded(url: str) -> None:
    def download(url: str) -> bytes:
        pytest.fail(f"{url} was asked for")

    sample = recorded(OURS)
    headers = sample.request.headers.replaced(paypal_cert_url=url)
    request = replace(sample.request, headers=headers)
    assert verdict(request, replace(sample.trust(), download=download)) == "foreign_certificate"


def test_a_certificate_that_cannot_be_had_refuses_the_request() -> None:
    def download(url: str) -> bytes:
        raise FetchError("fetch_503", f"{url} answered 503")

    sample = recorded(OURS)
    trust = replace(sample.trust(), download=download)
    assert verdict(sample.request, trust) == "certificate_unavailable"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>404</html>",
        b"\xff" * 100,
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        (HERE / "CERT-rehearsal.pem").read_bytes()[:600],
    ],
)
def test_a_document_that_is_no_certificate_refuses_the_request(document: bytes) -> None:
    sample = recorded(OURS)
    assert verdict(sample.request, certified_by(document, sample.trust())) == "bad_certificate"


def test_a_self_made_certificate_needs_its_own_root_in_the_configuration() -> None:
    sample = recorded(OURS)
    trust = replace(sample.trust(), settings={})
    assert verdict(sample.request, trust) == "bad_certificate"


def test_with_a_root_of_ones_own_the_public_ones_count_no_more() -> None:
    published = recorded(PUBLISHED)
    settings = {**published.settings, **recorded(OURS).settings}
    trust = replace(published.trust(), settings=settings)
    assert verdict(published.request, trust) == "bad_certificate"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Trusted, and so it comes to the signature, which is not this certificate's.
        ("messageverificationcerts.sandbox.paypal.com", "bad_signature"),
        ("paypal.com.example.com", "bad_certificate"),
        ("notpaypal.com", "bad_certificate"),
        ("example.com", "bad_certificate"),
    ],
)
def test_a_trusted_certificate_of_somebody_else_proves_nothing(name: str, expected: str) -> None:
    root_key, root = made_root()
    leaf = made_leaf(name, root_key)
    sample = recorded(OURS)
    trust = certified_by(leaf, sample.trust(), trusted_root=root.decode())
    assert verdict(sample.request, trust) == expected


def test_a_key_that_is_not_rsa_proves_nothing() -> None:
    root_key, root = made_root()
    name = "messageverificationcerts.paypal.com"
    leaf = certificates.made_leaf(name, ec.generate_private_key(ec.SECP256R1()), root_key)
    document = leaf.public_bytes(Encoding.PEM)
    sample = recorded(OURS)
    trust = certified_by(document, sample.trust(), trusted_root=root.decode())
    assert verdict(sample.request, trust) == "bad_certificate"


@pytest.mark.parametrize("trusted", [1, ["a list"], "no PEM"])
def test_a_root_that_is_none_trusts_nothing(trusted: Any) -> None:
    sample = recorded(PUBLISHED)
    settings = {**sample.settings, "trusted_root": trusted}
    trust = replace(sample.trust(), settings=settings)
    assert verdict(sample.request, trust) == "bad_certificate"


def test_the_issuer_may_come_with_the_leaf_or_stand_in_the_configuration() -> None:
    sample = recorded(PUBLISHED)
    leaf = sample.download(sample.request.headers.get("paypal-cert-url") or "")
    issuer = (SDK_CERTIFICATES / "DigiCertSHA2ExtendedValidationServerCA.crt.pem").read_text()
    root = (SDK_CERTIFICATES / "DigiCertHighAssuranceEVRootCA.crt.pem").read_text()
    both = leaf + b"\n" + issuer.encode()
    trust = sample.trust()
    assert verdict(sample.request, certified_by(both, trust)) == "genuine"
    assert verdict(sample.request, certified_by(both, trust, trusted_root=root)) == "genuine"
    assert verdict(sample.request, certified_by(leaf, trust, trusted_root=issuer)) == "genuine"
    alone = certified_by(leaf, trust, trusted_root=root)
    assert verdict(sample.request, alone) == "bad_certificate"


def test_the_built_in_intermediates_are_digicerts() -> None:
    old, new = x509.load_pem_x509_certificates(paypal._INTERMEDIATES.encode())
    root = (SDK_CERTIFICATES / "DigiCertHighAssuranceEVRootCA.crt.pem").read_bytes()
    old.verify_directly_issued_by(x509.load_pem_x509_certificate(root))
    public = x509.load_pem_x509_certificates(certificates.public_anchors("DigiCert").encode())
    named = {it.subject.rfc4514_string(): it for it in public}
    new.verify_directly_issued_by(named[new.issuer.rfc4514_string()])


def test_a_certificate_counts_only_while_it_is_valid_even_when_it_is_known() -> None:
    rehearsal = paypal.SIGNATURE.rehearse()
    trust = Trust(
        rehearsal.secrets,
        300,
        rehearsal.settings,
        lambda url: rehearsal.downloads[urlsplit(url).path],
    )
    request = recorded(OURS).request
    too_early = replace(request, received_at=datetime(2014, 12, 31, tzinfo=UTC))
    too_late = replace(request, received_at=datetime(2100, 1, 1, tzinfo=UTC))
    assert verdict(paypal.SIGNATURE.sign(request, trust), trust) == "genuine"
    for moved in (too_early, too_late):
        assert verdict(paypal.SIGNATURE.sign(moved, trust), trust) == "certificate_not_valid"


def test_a_known_certificate_is_not_checked_again() -> None:
    sample = recorded(OURS)
    paypal.SIGNATURE.verify(sample.request, sample.trust())
    checked = certificates._checked.cache_info().misses
    paypal.SIGNATURE.verify(sample.request, sample.trust())
    assert certificates._checked.cache_info().misses == checked


@pytest.mark.parametrize("algorithm", ["SHA1withRSA", "sha256withrsa", "MD5withRSA", "none"])
def test_only_sha256_with_rsa_is_taken(algorithm: str) -> None:
    sample = recorded(OURS)
    headers = sample.request.headers.replaced(paypal_auth_algo=algorithm)
    assert verdict(replace(sample.request, headers=headers), sample.trust()) == "malformed_header"


def test_a_retry_of_three_days_is_taken_and_a_week_old_delivery_is_not() -> None:
    sample = recorded(OURS)
    for days, expected in ((3, "genuine"), (7, "stale_timestamp"), (-7, "stale_timestamp")):
        moved = sample.request.received_at + timedelta(days=days)
        assert verdict(replace(sample.request, received_at=moved), sample.trust()) == expected


def test_what_the_simulator_signs_counts_only_where_it_is_asked_for() -> None:
    sample = recorded(PUBLISHED)
    live = replace(sample.trust(), settings={})
    assert verdict(sample.request, live) == "simulator_not_wanted"
    both = replace(live, secrets=("5EX41000AA0000001", *sample.secrets))
    assert verdict(sample.request, both) == "bad_signature"


def test_signing_without_a_key_says_what_to_do() -> None:
    sample = recorded(OURS)
    with pytest.raises(RelayError, match="signing_key") as caught:
        paypal.SIGNATURE.sign(sample.request, sample.trust())
    assert caught.value.reason == "cannot_sign"


def test_a_secret_that_is_no_webhook_id_is_named() -> None:
    flaw = paypal.SIGNATURE.flaw
    assert [flaw(id) for id in ("5EX41000AA0000001", "WEBHOOK_ID")] == [None, None]
    for wrong in ("", " 5EX41000AA0000001", "WH-1EX41000AA-2EX41000BB", "https://example.com"):
        assert flaw(wrong)


# The meaning


def test_a_v1_refund_means_the_same_with_and_without_its_minus_sign() -> None:
    name = "PAYMENT.SALE.REFUNDED.simulator"
    written = paid(name, lambda body: body["resource"]["amount"].update(total="0.01"))
    assert paid(name) == written
    assert written.amount == Decimal("0.01")


def test_a_refund_names_its_charge_by_the_link_when_nothing_else_does() -> None:
    def bare(body: dict[str, Any]) -> None:
        del body["resource"]["sale_id"]

    assert paid("PAYMENT.SALE.REFUNDED.full", bare).original_id == "5EX41000EE0000002"


def test_a_link_to_an_order_or_to_a_refund_is_no_charge() -> None:
    order = {"rel": "up", "href": "https://api.paypal.com/v2/checkout/orders/2EX41000DD0000001"}

    def relinked(body: dict[str, Any]) -> None:
        body["resource"]["links"] = [body["resource"]["links"][0], order]

    assert paid("PAYMENT.CAPTURE.REFUNDED.partial", relinked).original_id is None


@pytest.mark.parametrize("status", ["PENDING", "FAILED", "CANCELLED", "failed"])
def test_a_refund_that_did_not_happen_is_ignored(status: str) -> None:
    found = becomes(
        "PAYMENT.CAPTURE.REFUNDED.partial", lambda body: body["resource"].update(status=status)
    )
    assert found == Ignored("not_completed")


def test_an_opened_and_a_lost_dispute_are_one_loss() -> None:
    opened, lost = paid("CUSTOMER.DISPUTE.CREATED"), paid("CUSTOMER.DISPUTE.RESOLVED.lost")
    assert replace(opened, occurred_at=lost.occurred_at) == lost


def test_a_dispute_that_is_lost_in_part_takes_that_part() -> None:
    def halved(body: dict[str, Any]) -> None:
        body["resource"]["dispute_outcome"]["amount_refunded"]["value"] = "20.00"

    assert paid("CUSTOMER.DISPUTE.RESOLVED.lost", halved).amount == 20


def ended(code: str | None) -> Payment | Ignored:
    return becomes(
        "CUSTOMER.DISPUTE.RESOLVED.lost",
        lambda body: body["resource"].update(dispute_outcome={"outcome_code": code}),
    )


@pytest.mark.parametrize("code", ["RESOLVED_SELLER_FAVOUR", "CANCELED_BY_BUYER", "DENIED"])
def test_a_dispute_that_is_not_lost_gives_back_what_its_opening_took(code: str) -> None:
    opened, returned = paid("CUSTOMER.DISPUTE.CREATED"), ended(code)
    assert isinstance(returned, Payment)
    assert returned.kind is Kind.REINSTATED
    assert returned.transaction_id == f"{opened.transaction_id}:won"
    assert (returned.amount, returned.original_id) == (opened.amount, opened.original_id)


@pytest.mark.parametrize("code", ["RESOLVED_WITH_PAYOUT", "ACCEPTED", "NONE", None])
def test_a_dispute_that_ends_in_any_other_way_changes_nothing(code: str | None) -> None:
    assert ended(code) == Ignored("dispute_not_decided")


def test_a_subscription_that_was_paid_for_is_no_trial() -> None:
    paid_once = {"amount": {"currency_code": "EUR", "value": "19.90"}, "time": "2026-03-04"}

    def charged(body: dict[str, Any]) -> None:
        body["resource"]["billing_info"]["last_payment"] = paid_once

    def renewed(body: dict[str, Any]) -> None:
        body["resource"]["billing_info"]["cycle_executions"][1]["cycles_completed"] = 1

    def plain(body: dict[str, Any]) -> None:
        del body["resource"]["billing_info"]["cycle_executions"][0]

    for edit in (charged, renewed, plain):
        found = becomes("BILLING.SUBSCRIPTION.ACTIVATED.trial", edit)
        assert isinstance(found, Ignored)
        assert found.reason == "no_trial"


def test_a_subscription_is_as_old_as_its_start_when_it_is_activated_again() -> None:
    found = becomes(
        "BILLING.SUBSCRIPTION.ACTIVATED.paid",
        lambda body: body["resource"].update(status_update_time="2026-08-01T10:00:17Z"),
    )
    assert found.occurred_at == found.subscribed_at == datetime(2026, 3, 4, 9, 58, 40, tzinfo=UTC)
    assert (found.visitor_id, found.email) == (VISITOR, "jordan@example.com")


def test_the_owners_reference_is_what_is_no_visitor() -> None:
    name = "PAYMENT.CAPTURE.COMPLETED.reference"
    assert paid(name).reference == "user-1001"
    beside = paid(name, lambda body: body["resource"].update(custom_id=VISITOR))
    assert (beside.visitor_id, beside.reference) == (VISITOR, "INV-2026-0042")


def test_an_impossible_date_leaves_the_other_one() -> None:
    impossible = "2018-19-12T22:20:32.000Z"

    def of_the_event(body: dict[str, Any]) -> None:
        body["create_time"] = impossible

    def of_the_resource(body: dict[str, Any]) -> None:
        body["resource"]["create_time"] = impossible

    assert paid(OURS, of_the_event).occurred_at == datetime(2026, 3, 1, 8, 30, 7, tzinfo=UTC)
    fallback = paid(OURS, of_the_resource).occurred_at
    assert fallback == datetime(2026, 3, 1, 8, 30, 12, 410_000, tzinfo=UTC)
    with pytest.raises(PayloadError, match=r"\$\.resource\.create_time"):
        becomes(OURS, lambda body: (of_the_event(body), of_the_resource(body)))


@pytest.mark.parametrize("field", ["custom", "custom_id"])
@pytest.mark.parametrize("text", [VISITOR, json.dumps({"datafast_visitor_id": VISITOR})])
def test_the_visitor_is_found_under_both_names_and_in_both_forms(field: str, text: str) -> None:
    found = paid(
        "PAYMENT.SALE.COMPLETED.renewal", lambda body: body["resource"].update({field: text})
    )
    assert found.visitor_id == VISITOR


def test_the_sandbox_is_known_by_the_source_and_by_the_links() -> None:
    sandbox = "https://api.sandbox.paypal.com"
    assert paid("PAYMENT.SALE.COMPLETED.sandbox").test, "by its links"
    assert paid("CUSTOMER.DISPUTE.CREATED", api_base=sandbox).test
    assert not paid("CUSTOMER.DISPUTE.CREATED").test


def test_a_reversal_is_a_dispute_and_names_its_charge_only_in_v2() -> None:
    v2, v1 = paid("PAYMENT.CAPTURE.REVERSED.simulator"), paid("PAYMENT.SALE.REVERSED.simulator")
    assert (v2.kind, v2.original_id) == (Kind.DISPUTE, "4L335234718889942")
    assert (v1.kind, v1.original_id) == (Kind.DISPUTE, None)
