"""Coinbase Commerce's own SDK as the judge of signatures."""

from coinbase_commerce.error import SignatureVerificationError
from coinbase_commerce.webhook import Webhook

from relay.samples import Sample


def accepts(sample: Sample) -> bool:
    claimed = sample.request.headers.get("x-cc-webhook-signature")
    try:
        Webhook.construct_event(sample.request.body.decode(), claimed, sample.secrets[0])
    except SignatureVerificationError:
        return False
    return True
