"""Apple's own library as the judge of signatures, certificates and apps."""

from appstoreserverlibrary.models.Environment import Environment
from appstoreserverlibrary.signed_data_verifier import SignedDataVerifier, VerificationException
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from relay.errors import PayloadError
from relay.payload import Payload
from relay.samples import Sample

APP_APPLE_ID = 1234567890


def accepts(sample: Sample) -> bool:
    root = x509.load_pem_x509_certificate(sample.settings["trusted_root"].encode())
    environment = Environment.SANDBOX if "sandbox" in sample.name else Environment.PRODUCTION
    verifier = SignedDataVerifier(
        [root.public_bytes(Encoding.DER)],
        enable_online_checks=False,
        environment=environment,
        bundle_id=sample.secrets[0],
        app_apple_id=APP_APPLE_ID,
    )
    try:
        signed = Payload.json(sample.request.body).at("signedPayload").value
        told = verifier.verify_and_decode_notification(signed)
        if told.data and told.data.signedTransactionInfo:
            verifier.verify_and_decode_signed_transaction(told.data.signedTransactionInfo)
    except (PayloadError, VerificationException):
        return False
    return True
