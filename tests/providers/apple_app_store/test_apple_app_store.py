"""The traps of Apple's App Store."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from providers import apple_app_store as apple
from relay import certificates, mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.samples import Sample

HERE = Path(__file__).parent
LOADED = provider.load("apple_app_store")
VISITOR = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"
OTHER_TYPES = (None, [], {}, "", "x", -1, 10**40, True, 1.5, "\ud800")


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def verdict(request: Received, trust: Trust) -> str:
    """`genuine`, or why the request is refused."""
    try:
        apple.SIGNATURE.verify(request, trust)
    except VerificationError as error:
        return error.reason
    return "genuine"


def carrying(jws: str) -> Received:
    """The published request, with another JWS in it."""
    body = json.dumps({"signedPayload": jws}).encode()
    return replace(recorded("TEST.published").request, body=body)


def unsigned(claims: dict[str, Any]) -> str:
    return f"{apple._part({})}.{apple._part(claims)}."


def told(
    name: str, sold: dict[str, Any] | None = None, /, *, visitor: bool = True, **changes: Any
) -> Payment | Ignored:
    """What a recorded notification becomes, with some of its fields, and its transaction's, changed."""
    (event,) = apple.parse(recorded(name).request)
    transaction = apple.transaction(event).value | (sold or {})
    data = event.data.value["data"] | {"signedTransactionInfo": unsigned(transaction)}
    request = carrying(unsigned(event.data.value | {"data": data} | changes))
    settings = LOADED.defaults() | {"app_account_token_is_visitor": visitor}
    (event,) = mapping.events(LOADED, request, settings)
    return mapping.payment(LOADED, event)


def paid(found: Payment | Ignored) -> Payment:
    assert isinstance(found, Payment), found
    return found


# The signature


def test_the_certificates_that_apple_itself_signs_with_lead_to_the_root_in_the_module() -> None:
    """As published with Apple's official library; the leaf has ended since."""
    chain = x509.load_pem_x509_certificates((HERE / "apple-chain.pem").read_bytes())
    documents = tuple(it.public_bytes(Encoding.DER) for it in chain)
    found = certificates.check_marked(documents, apple._APPLE_ROOT_CA_G3, apple._MARKS)
    assert (found.since.date().isoformat(), found.until.year) == ("2021-08-25", 2023)
    marks = tuple(reversed(apple._MARKS))
    with pytest.raises(ValueError, match="marks"):
        certificates.check_marked(documents, apple._APPLE_ROOT_CA_G3, marks)


@pytest.mark.parametrize(
    ("file", "reason"),
    [("wrongBundleId", "another_app"), ("missingX5CHeaderClaim", "malformed_body")],
)
def test_what_apple_publishes_as_wrong_is_refused(file: str, reason: str) -> None:
    request, trust = (
        carrying((HERE / f"{file}.jws").read_text().strip()),
        recorded("TEST.published").trust(),
    )
    assert verdict(request, trust) == reason
    its_own = verdict(request, replace(trust, secrets=("com.example.wrong",)))
    assert its_own == ("genuine" if reason == "another_app" else reason)


def test_a_chain_of_somebody_elses_does_not_lead_to_apples_root() -> None:
    for name in ("TEST.published", "SUBSCRIBED.first"):
        sample = recorded(name)
        assert verdict(sample.request, replace(sample.trust(), settings={})) == "bad_certificate"


@pytest.mark.parametrize("year", [2022, 2034])
def test_a_certificate_counts_only_while_it_is_valid(year: int) -> None:
    sample = recorded("TEST.published")
    request = replace(sample.request, received_at=datetime(year, 1, 1, tzinfo=UTC))
    assert verdict(request, sample.trust()) == "certificate_not_valid"


def test_neither_another_algorithm_nor_a_signature_of_another_form_passes() -> None:
    sample = recorded("SUBSCRIBED.first")
    header, claims, signature = json.loads(sample.request.body)["signedPayload"].split(".")
    known = json.loads(apple._decoded(header))
    for algorithm in ("none", "HS256", "ES384", "es256", ""):
        forged = f"{apple._part(known | {'alg': algorithm})}.{claims}.{signature}"
        assert verdict(carrying(forged), sample.trust()) == "malformed_body"
    for other in ("", signature + "A", signature + "AAAA", "A" * 86, f"{signature}=="):
        forged = f"{header}.{claims}.{other}"
        assert verdict(carrying(forged), sample.trust()) in {"malformed_body", "bad_signature"}


def test_a_notification_of_version_1_is_refused_with_a_hint() -> None:
    sample = recorded("SUBSCRIBED.first")
    request = replace(sample.request, body=b'{"notification_type": "DID_RENEW", "password": "x"}')
    with pytest.raises(VerificationError, match="version 2"):
        apple.SIGNATURE.verify(request, sample.trust())


def test_a_notification_may_be_longer_than_any_other_text() -> None:
    sample, rehearsal = recorded("SUBSCRIBED.first"), apple.SIGNATURE.rehearse()
    claims = apple.parse(sample.request)[0].data.value | {"more": "x" * 30_000}
    trust = Trust(rehearsal.secrets, 300, rehearsal.settings, lambda _: b"")
    request = apple.SIGNATURE.sign(carrying(unsigned(claims)), trust)
    assert verdict(request, trust) == "genuine"
    assert apple.parse(request)[0].type == "SUBSCRIBED"


# The meaning


def test_a_broken_transaction_is_a_payload_error_and_nothing_else() -> None:
    for name in ("REFUND.partial", "REFUND_REVERSED", "DID_RENEW.renewal", "SUBSCRIBED.trial"):
        (event,) = apple.parse(recorded(name).request)
        for key in apple.transaction(event).value:
            for other in OTHER_TYPES:
                assert reason(name, {key: other}) != "adapter_error", (key, other)


def reason(name: str, sold: dict[str, Any]) -> str | None:
    """Why it cannot be mapped, or None."""
    try:
        told(name, sold)
    except PayloadError as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("price", "currency", "percent", "amount"),
    [
        (9990, "EUR", 50_000, "5.00"),  # 4.995
        (9990, "EUR", 67_932, "6.79"),
        (1_500_000, "JPY", 33_333, "500"),
        (9990, "KWD", 50_000, "4.995"),
        (9990, "EUR", 100_000, "9.99"),
        (9990, "EUR", None, "9.99"),
    ],
)
def test_a_refund_is_its_part_of_the_price_in_the_decimals_of_its_currency(
    price: int, currency: str, percent: int | None, amount: str
) -> None:
    kind = None if percent is None else "REFUND_PRORATED"
    part = {"revocationPercentage": percent, "revocationType": kind}
    found = paid(told("REFUND.partial", {"price": price, "currency": currency, **part}))
    assert (str(found.amount), found.cumulative) == (amount, True)


def test_a_partial_refund_that_does_not_say_how_much_is_not_guessed() -> None:
    with pytest.raises(PayloadError, match="revocationPercentage"):
        told("REFUND.partial", {"revocationPercentage": None})


def test_a_charge_a_refund_and_its_reversal_are_three_movements_of_one_transaction() -> None:
    names = ("ONE_TIME_CHARGE.own-user", "REFUND.full", "REFUND_REVERSED")
    charge, refund, back = (paid(told(name)) for name in names)
    assert refund.original_id == back.original_id == charge.transaction_id
    assert len({charge.transaction_id, refund.transaction_id, back.transaction_id}) == 3
    assert charge.occurred_at < refund.occurred_at < back.occurred_at
    assert charge.amount == refund.amount == back.amount == Decimal("8.97")


def test_only_a_subscription_that_begins_free_is_a_trial() -> None:
    free = {"price": 0, "offerDiscountType": "FREE_TRIAL"}
    assert paid(told("SUBSCRIBED.trial")).kind is Kind.TRIAL
    assert paid(told("OFFER_REDEEMED.charge", free, subtype="INITIAL_BUY")).kind is Kind.TRIAL
    for name in ("OFFER_REDEEMED.charge", "DID_RENEW.renewal", "DID_CHANGE_RENEWAL_PREF.upgrade"):
        found = told(name, free)
        assert isinstance(found, Ignored)
        assert found.reason == "zero_amount"
    zero = told("SUBSCRIBED.first", {"price": 0})
    assert isinstance(zero, Ignored)


@pytest.mark.parametrize(
    "name", ["SUBSCRIBED.first", "DID_RENEW.renewal", "REFUND.partial", "REFUND_REVERSED"]
)
def test_what_somebody_else_in_the_family_paid_is_never_told_again(name: str) -> None:
    assert told(name, {"inAppOwnershipType": "FAMILY_SHARED"}) == Ignored("family_share")


def test_a_single_purchase_belongs_to_no_subscription_though_it_has_an_original() -> None:
    for type in ("Consumable", "Non-Consumable", "Non-Renewing Subscription"):
        found = paid(told("ONE_TIME_CHARGE.own-user", {"type": type}))
        assert (found.subscription_id, found.subscribed_at) == (None, None)
        assert found.recurrence is Recurrence.ONE_TIME


def test_a_subscription_begins_only_where_the_customer_subscribes() -> None:
    for name, subtype in (("SUBSCRIBED.first", None), ("OFFER_REDEEMED.charge", "RESUBSCRIBE")):
        assert paid(told(name, subtype=subtype)).recurrence is Recurrence.FIRST
    for name in ("OFFER_REDEEMED.charge", "DID_CHANGE_RENEWAL_PREF.upgrade", "DID_RENEW.renewal"):
        assert paid(told(name)).recurrence is Recurrence.RENEWAL
    renewed = {"transactionReason": "RENEWAL"}
    assert paid(told("SUBSCRIBED.first", renewed)).recurrence is Recurrence.RENEWAL


def test_a_renewal_that_is_told_ahead_of_its_period_did_not_happen_in_the_future() -> None:
    found = paid(told("DID_RENEW.after-trial"))
    assert found.occurred_at == datetime(2026, 3, 7, 21, 30, tzinfo=UTC)
    late = paid(told("DID_RENEW.after-trial", signedDate=1775037601000))
    assert late.occurred_at == datetime(2026, 3, 8, 10, tzinfo=UTC)


@pytest.mark.parametrize("token", [VISITOR, "00000000-0000-1000-8000-000000000000", None])
def test_the_apps_token_is_a_visitor_only_if_the_source_says_so_and_it_can_be_one(
    token: str | None,
) -> None:
    found = paid(told("SUBSCRIBED.first", {"appAccountToken": token}, visitor=False))
    assert (found.visitor_id, found.reference) == (None, token)
    found = paid(told("SUBSCRIBED.first", {"appAccountToken": token}))
    is_visitor = token == VISITOR
    assert (found.visitor_id, found.reference) == ((token, None) if is_visitor else (None, token))


def test_all_that_is_not_production_is_a_test() -> None:
    (event,) = apple.parse(recorded("SUBSCRIBED.first").request)
    for environment in ("Sandbox", "Xcode", "LocalTesting", None):
        data = event.data.value["data"] | {"environment": environment}
        request = carrying(unsigned(event.data.value | {"data": data}))
        (changed,) = mapping.events(LOADED, request, LOADED.defaults())
        assert paid(mapping.payment(LOADED, changed)).test
