"""What a certificate proves, and what it does not."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from relay import certificates
from relay.certificates import PrivateKey, issue, made_leaf, made_root

NAME = "signer.example.com"
IS_CA = x509.BasicConstraints(ca=True, path_length=None)
IS_NO_CA = x509.BasicConstraints(ca=False, path_length=None)
ISSUES = x509.KeyUsage(*(bit == 5 for bit in range(9)))
NAMED = x509.SubjectAlternativeName([x509.DNSName(NAME)])
FIRST_DAY, LAST_DAY = datetime(2015, 1, 1, tzinfo=UTC), datetime(2099, 12, 31, tzinfo=UTC)


def new_key() -> PrivateKey:
    return generate_private_key(65537, 2048)


ROOT_KEY = new_key()
KEY = new_key()


def pem(*chain: x509.Certificate) -> bytes:
    return b"".join(it.public_bytes(Encoding.PEM) for it in chain)


ROOT = made_root(ROOT_KEY)
TRUSTED = pem(ROOT).decode()


def check(
    *chain: x509.Certificate, trusted: str = TRUSTED, domain: str = "example.com"
) -> certificates.Certified:
    return certificates.check(pem(*chain), trusted, domain)


def refused(*chain: x509.Certificate, **others: Any) -> bool:
    try:
        check(*chain, **others)
    except ValueError:
        return True
    return False


def dated(since: datetime, until: datetime, *, is_ca: bool = False) -> x509.Certificate:
    """A leaf (or a root) of other days, by the rehearsal's root."""
    plain = ROOT if is_ca else made_leaf(NAME, KEY, ROOT_KEY)
    builder = x509.CertificateBuilder(
        plain.issuer, plain.subject, plain.public_key(), plain.serial_number, since, until
    )
    for each in plain.extensions:
        builder = builder.add_extension(each.value, each.critical)
    algorithm = plain.signature_hash_algorithm
    assert algorithm
    return builder.sign(ROOT_KEY, algorithm)  # type: ignore[arg-type]


# What counts


def test_a_leaf_that_leads_to_the_root_gives_its_key_and_its_days() -> None:
    found = check(made_leaf(NAME, KEY, ROOT_KEY))
    assert found == certificates.Certified(KEY.public_key(), FIRST_DAY, LAST_DAY)


def test_a_rehearsal_is_a_chain_and_its_leafs_key() -> None:
    root, leaf, key = certificates.rehearsal(NAME)
    found = certificates.check(leaf.encode(), root, "example.com")
    assert found.key == load_pem_private_key(key.encode(), None).public_key()
    assert certificates.rehearsal(NAME) == (root, leaf, key), "made once"
    assert certificates.rehearsal("other.example.com")[0] != root


def test_what_is_known_is_not_checked_again_and_what_is_refused_is_not_remembered() -> None:
    document = pem(made_leaf(NAME, new_key(), ROOT_KEY))
    certificates.check(document, TRUSTED, "example.com")
    misses = certificates._checked.cache_info().misses
    certificates.check(document, TRUSTED, "example.com")
    assert certificates._checked.cache_info().misses == misses
    size = certificates._checked.cache_info().currsize
    assert refused()
    assert certificates._checked.cache_info().currsize == size


# When


def test_an_expired_leaf_is_told_by_its_days_which_the_caller_compares() -> None:
    last = datetime(2016, 1, 1, tzinfo=UTC)
    found = check(dated(FIRST_DAY, last))
    assert (found.since, found.until) == (FIRST_DAY, last)


def test_the_days_are_those_on_which_all_of_the_chain_is_valid() -> None:
    first, last = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
    root = pem(dated(FIRST_DAY, last, is_ca=True)).decode()
    found = check(dated(first, LAST_DAY), trusted=root)
    assert (found.since, found.until) == (first, last)


def test_a_leaf_older_than_its_issuer_or_after_its_end_is_refused() -> None:
    first, last = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
    root = pem(dated(first, last, is_ca=True)).decode()
    assert refused(dated(FIRST_DAY, LAST_DAY), trusted=root)
    assert refused(dated(datetime(2022, 1, 1, tzinfo=UTC), LAST_DAY), trusted=root)


# Whose


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("signer.example.com", "example.org"),
        ("signer.example.com.example.org", "example.com"),
        ("notexample.com", "example.com"),
        ("example.com", "example.com"),
        ("*.example.com", "example.com"),
        ("signer.example.com", ""),
        ("signer.example.com", ".example.com"),
    ],
)
def test_a_name_that_does_not_lie_under_the_domain_is_refused(name: str, domain: str) -> None:
    assert refused(made_leaf(name, KEY, ROOT_KEY), domain=domain)


def test_a_name_that_stands_only_in_the_subject_is_none() -> None:
    assert refused(issue(NAME, KEY, ROOT_KEY))


def test_another_root_of_the_same_name_is_refused_also_if_it_comes_along() -> None:
    other_key = new_key()
    leaf = made_leaf(NAME, KEY, other_key)
    assert refused(leaf)
    assert refused(leaf, made_root(other_key))
    assert refused(leaf, ROOT)


def test_whoever_holds_a_trusted_certificate_issues_none() -> None:
    holder_key = new_key()
    leaf = made_leaf(NAME, KEY, holder_key)
    for use in ((), (ISSUES,), (IS_NO_CA, ISSUES)):
        holder = issue("Rehearsal root", holder_key, ROOT_KEY, NAMED, *use)
        assert refused(leaf, holder), use
    # So that it is this and nothing else that is refused above:
    assert not refused(leaf, issue("Rehearsal root", holder_key, ROOT_KEY, IS_CA, ISSUES))


def test_a_leaf_that_calls_itself_an_issuer_is_refused() -> None:
    for issuer in (ROOT_KEY, KEY):
        leaf = issue(NAME, KEY, issuer, NAMED, IS_CA, ISSUES)
        assert refused(leaf)
        assert refused(leaf, leaf)


def test_a_leaf_that_signs_itself_is_refused() -> None:
    for extra in ((), (IS_CA, ISSUES)):
        leaf = issue("Rehearsal root", KEY, KEY, NAMED, *extra)
        assert refused(leaf)
        assert refused(leaf, leaf)
        assert refused(leaf, ROOT)


def test_a_trusted_certificate_that_is_no_issuers_vouches_for_itself_alone() -> None:
    alone = issue("Rehearsal root", KEY, KEY, NAMED)
    trusted = pem(alone).decode()
    assert check(alone, trusted=trusted).key == KEY.public_key()
    assert refused(made_leaf(NAME, ROOT_KEY, KEY), trusted=trusted)


def test_a_certificate_for_something_else_than_a_server_is_refused() -> None:
    mail = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    assert refused(issue(NAME, KEY, ROOT_KEY, NAMED, mail))


def test_a_signature_that_was_tampered_with_is_refused() -> None:
    der = bytearray(made_leaf(NAME, KEY, ROOT_KEY).public_bytes(Encoding.DER))
    der[-1] ^= 1
    assert refused(x509.load_der_x509_certificate(bytes(der)))


def test_the_key_may_be_of_another_kind_which_the_caller_must_ask() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert check(made_leaf(NAME, key, ROOT_KEY)).key == key.public_key()
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = pem(made_root(root_key)).decode()
    assert check(made_leaf(NAME, KEY, root_key), trusted=root).key == KEY.public_key()


# Whatever


def broken() -> Iterator[bytes]:
    good = pem(made_leaf(NAME, KEY, ROOT_KEY))
    yield from (b"", b"\n", b"<html>404</html>", b"\xff" * 100, b"\x00", good[:600])
    yield good.replace(b"CERTIFICATE", b"PRIVATE KEY")
    yield good + b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    yield b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n" + good


@pytest.mark.parametrize("document", list(broken()))
def test_what_is_no_certificate_is_refused_as_document_and_as_root(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"example\.com"):
        certificates.check(document, TRUSTED, "example.com")
    assert refused(made_leaf(NAME, KEY, ROOT_KEY), trusted=document.decode("latin-1"))


@pytest.mark.parametrize("trusted", [None, 1, [TRUSTED], {"pem": TRUSTED}, TRUSTED.encode()])
def test_a_root_that_is_no_text_is_refused(trusted: Any) -> None:
    assert refused(made_leaf(NAME, KEY, ROOT_KEY), trusted=trusted)


# Marked certificates


MARKS = ("1.2.3.1", "1.2.3.2")
IS_LEAF, IS_ISSUER = (certificates.marked(mark) for mark in MARKS)


def marked(
    *leaf: x509.ExtensionType,
    issuer: tuple[x509.ExtensionType, ...] = (IS_CA, ISSUES, IS_ISSUER),
    root_key: PrivateKey = ROOT_KEY,
) -> tuple[bytes, ...]:
    """A leaf with these extensions, and its issuer, by the rehearsal's root."""
    between = issue("Between", KEY, root_key, *issuer)
    chain = issue("Leaf", KEY, KEY, *leaf, by="Between"), between
    return tuple(it.public_bytes(Encoding.DER) for it in chain)


def refused_marked(
    documents: tuple[bytes, ...], trusted: Any = TRUSTED, marks: tuple[str, ...] = MARKS
) -> bool:
    try:
        certificates.check_marked(documents, trusted, marks)
    except ValueError:
        return True
    return False


def test_a_marked_leaf_that_leads_to_the_root_gives_its_key_and_its_days() -> None:
    found = certificates.check_marked(marked(IS_LEAF), TRUSTED, MARKS)
    assert found == certificates.Certified(KEY.public_key(), FIRST_DAY, LAST_DAY)


def test_a_marked_rehearsal_is_a_key_and_its_chain() -> None:
    root, signer = certificates.marked_rehearsal(MARKS)
    chain = x509.load_pem_x509_certificates(signer.encode())
    documents = tuple(it.public_bytes(Encoding.DER) for it in chain)
    found = certificates.check_marked(documents, root, MARKS)
    assert found.key == load_pem_private_key(signer.encode(), None).public_key()
    assert certificates.marked_rehearsal(MARKS) == (root, signer), "made once"
    assert refused_marked(documents), "by another root"


def test_each_certificate_must_carry_the_mark_of_its_place() -> None:
    assert refused_marked(marked())
    assert refused_marked(marked(IS_ISSUER))
    for issuer in ((IS_CA, ISSUES), (IS_CA, ISSUES, IS_LEAF)):
        assert refused_marked(marked(IS_LEAF, issuer=issuer))
    assert refused_marked(marked(IS_LEAF), marks=MARKS[:1])
    assert refused_marked(marked(IS_LEAF), marks=(*MARKS, "1.2.3.3"))
    both = issue("Leaf", KEY, ROOT_KEY, IS_LEAF, IS_ISSUER).public_bytes(Encoding.DER)
    assert refused_marked((both,))
    assert not refused_marked((both,), marks=MARKS[:1])


def test_whoever_holds_a_marked_leaf_issues_none() -> None:
    for use in ((), (ISSUES,), (IS_NO_CA, ISSUES), (IS_CA, x509.KeyUsage(*[True] + [False] * 8))):
        assert refused_marked(marked(IS_LEAF, issuer=(*use, IS_ISSUER))), use
    assert refused_marked(marked(IS_LEAF, IS_CA, ISSUES))


def test_a_marked_chain_of_another_root_or_with_gaps_is_refused() -> None:
    leaf, between = marked(IS_LEAF)
    other_key = new_key()
    other = made_root(other_key).public_bytes(Encoding.DER)
    assert refused_marked((*marked(IS_LEAF, root_key=other_key), other))
    for documents in ((), (leaf,), (between,), (between, leaf), (leaf, b""), (leaf, between[:-9])):
        assert refused_marked(documents)
    assert refused_marked((leaf, between[:-1] + bytes([between[-1] ^ 1])))
    for trusted in (None, 1, "", "x", [TRUSTED], TRUSTED.encode()):
        assert refused_marked((leaf, between), trusted)


# The public roots


def test_public_anchors_are_those_of_one_issuer_and_what_is_handed_in() -> None:
    found = x509.load_pem_x509_certificates(certificates.public_anchors("DigiCert").encode())
    assert found
    assert all("DigiCert" in it.subject.rfc4514_string() for it in found)
    more = certificates.public_anchors("DigiCert", TRUSTED)
    assert x509.load_pem_x509_certificates(more.encode()) == [*found, ROOT]
    assert not refused(made_leaf(NAME, KEY, ROOT_KEY), trusted=more)


def test_an_issuer_that_nobody_knows_has_no_anchors_and_proves_nothing() -> None:
    none = certificates.public_anchors("Nobody at all")
    assert none == ""
    assert refused(made_leaf(NAME, KEY, ROOT_KEY), trusted=none)


def test_public_roots_do_not_vouch_for_a_rehearsal() -> None:
    assert refused(made_leaf(NAME, KEY, ROOT_KEY), trusted=certificates.public_anchors("DigiCert"))
