"""Parts for providers that prove themselves by an X.509 certificate. Everything here fails closed.

`check` and `check_marked` say whether a certificate leads to one that is trusted, which is costly
and remembered. When it is valid is told and not judged here: the caller holds it against each
request's time. Trusted certificates are PEM text: a provider's own, from an operator's
configuration or from `public_anchors`. `rehearsal` and `marked_rehearsal` make up what a provider
has, to sign here without it.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
)

PrivateKey = RSAPrivateKey | ec.EllipticCurvePrivateKey

_ROOT = "Rehearsal root"
_IS_ISSUER = x509.BasicConstraints(ca=True, path_length=None)
_SIGNS_CERTIFICATES = x509.KeyUsage(*(bit == 5 for bit in range(9)))  # RFC 5280: keyCertSign


@dataclass(frozen=True)
class Certified:
    """The public key of a certificate that leads to a trusted one, and when all of them are valid."""

    key: PublicKeyTypes
    since: datetime
    until: datetime


def check(document: bytes, trusted: str, domain: str) -> Certified:
    """What the first certificate in a PEM document proves; those after it may be its issuers.

    It must be a server's, with a name under `domain`, and lead to one of the `trusted`, which need
    not be roots. Raises ValueError for anything else. The kind of key is the caller's to check.
    """
    try:
        return _checked(document, trusted, domain)
    except Exception as error:  # whatever is wrong with a certificate, it proves nothing
        msg = f"no certificate for a name under {domain} that leads to a trusted one"
        raise ValueError(msg) from error


@lru_cache(maxsize=32)
def _checked(document: bytes, trusted: str, domain: str) -> Certified:
    """See check. Raises anything; costs milliseconds."""
    leaf, *between = x509.load_pem_x509_certificates(document)
    anchors = x509.load_pem_x509_certificates(trusted.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    name = next(it for it in names.get_values_for_type(x509.DNSName) if it.endswith(f".{domain}"))
    # The chain is checked as of the leaf's first day; the caller does the rest each time.
    policy = PolicyBuilder().store(Store(anchors)).time(leaf.not_valid_before_utc)
    chain = policy.build_server_verifier(x509.DNSName(name)).verify(leaf, between)
    return _certified(chain)


def check_marked(documents: tuple[bytes, ...], trusted: str, marks: tuple[str, ...]) -> Certified:
    """What the first of these DER certificates proves; those after it are its issuers, in order.

    For certificates that are no server's: what each of them is for is told by an extension of the
    issuer's own, whose OID stands at the same place in `marks`. The last one must be issued by one
    of the `trusted`. Raises ValueError for anything else. The kind of key is the caller's to check.
    """
    try:
        return _checked_marked(documents, trusted, marks)
    except Exception as error:  # whatever is wrong with a certificate, it proves nothing
        msg = "no certificates with these marks that lead to a trusted one"
        raise ValueError(msg) from error


@lru_cache(maxsize=32)
def _checked_marked(
    documents: tuple[bytes, ...], trusted: str, marks: tuple[str, ...]
) -> Certified:
    """See check_marked. Raises anything; costs milliseconds."""
    leaf, *between = map(x509.load_der_x509_certificate, documents)
    anchors = x509.load_pem_x509_certificates(trusted.encode())
    # As above, but as of the first day of all of them: a root may be issued anew, later than others.
    first_day = max(it.not_valid_before_utc for it in (leaf, *between, *anchors))
    policy = PolicyBuilder().store(Store(anchors)).time(first_day)
    policy = policy.extension_policies(ca_policy=_ISSUERS, ee_policy=_LEAVES)
    chain = policy.build_client_verifier().verify(leaf, between).chain
    for certificate, mark in zip(chain[:-1], marks, strict=True):
        certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(mark))
    return _certified(chain)


def _must_issue(_: Policy, __: x509.Certificate, found: x509.BasicConstraints) -> None:
    if not found.ca:
        msg = "it is no issuer"
        raise ValueError(msg)


def _may_sign(_: Policy, __: x509.Certificate, found: x509.KeyUsage | None) -> None:
    if found and not found.key_cert_sign:
        msg = "its key signs no certificates"
        raise ValueError(msg)


def _must_not_issue(_: Policy, __: x509.Certificate, found: x509.BasicConstraints | None) -> None:
    if found and found.ca:
        msg = "it is an issuer itself"
        raise ValueError(msg)


# What the library asks of a server's certificates besides (names, identifiers of keys) is left out.
_ANY = ExtensionPolicy.permit_all()
_LEAVES = _ANY.may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, _must_not_issue)
_ISSUERS = _ANY.require_present(
    x509.BasicConstraints, Criticality.AGNOSTIC, _must_issue
).may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)


def _certified(chain: list[x509.Certificate]) -> Certified:
    since = max(it.not_valid_before_utc for it in chain)
    return Certified(chain[0].public_key(), since, min(it.not_valid_after_utc for it in chain))


@lru_cache(maxsize=8)
def public_anchors(issuer: str, intermediates: str = "") -> str:
    """The public roots of today in whose subject `issuer` stands, and further ones, as PEM text."""
    # Only these are parsed: cryptography dislikes some of the other roots, and will refuse them.
    context = ssl.create_default_context(cafile=certifi.where())
    roots = zip(context.get_ca_certs(), context.get_ca_certs(binary_form=True), strict=True)
    wanted = [der for facts, der in roots if issuer in str(facts.get("subject"))]
    return "".join(map(ssl.DER_cert_to_PEM_cert, wanted)) + intermediates


# Rehearsals


@lru_cache(maxsize=8)
def rehearsal(name: str) -> tuple[str, str, str]:
    """PEM of a root, a leaf for this DNS name, and the leaf's key; made once in a process."""
    root_key, key = (generate_private_key(65537, 2048) for _ in range(2))
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return (
        made_root(root_key).public_bytes(pem).decode(),
        made_leaf(name, key, root_key).public_bytes(pem).decode(),
        key.private_bytes(pem, *plain).decode(),
    )


@lru_cache(maxsize=8)
def marked_rehearsal(marks: tuple[str, ...]) -> tuple[str, str]:
    """PEM of a root; and of a leaf's key, the leaf and its issuers, with these marks; made once."""
    root_key = issuer_key = ec.generate_private_key(ec.SECP256R1())
    by, chain = _ROOT, b""
    for mark in reversed(marks):
        key, name = ec.generate_private_key(ec.SECP256R1()), f"Rehearsal {mark}"
        use = () if mark == marks[0] else (_IS_ISSUER, _SIGNS_CERTIFICATES)
        made = issue(name, key, issuer_key, *use, marked(mark), by=by)
        issuer_key, by, chain = key, name, made.public_bytes(serialization.Encoding.PEM) + chain
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    signer = issuer_key.private_bytes(pem, *plain) + chain
    return made_root(root_key).public_bytes(pem).decode(), signer.decode()


def made_root(key: PrivateKey) -> x509.Certificate:
    """The certificate of a rehearsal's root, by itself."""
    return issue(_ROOT, key, key, _IS_ISSUER, _SIGNS_CERTIFICATES)


def made_leaf(name: str, key: PrivateKey, issuer: PrivateKey) -> x509.Certificate:
    """A server's certificate for this DNS name, by the rehearsal's root."""
    return issue(name, key, issuer, x509.SubjectAlternativeName([x509.DNSName(name)]))


def marked(mark: str) -> x509.ExtensionType:
    """An extension that says nothing but its OID."""
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(mark), b"\x05\x00")


def issue(
    name: str,
    key: PrivateKey,
    issuer: PrivateKey,
    *extensions: x509.ExtensionType,
    by: str = _ROOT,
) -> x509.Certificate:
    """A certificate by the rehearsal's root. Valid from long ago, since recordings are old."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, by)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2015, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2099, 12, 31, tzinfo=UTC))
    )
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuers = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    for extension in (own, issuers, *extensions):
        critical = isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer, SHA256())
