"""Razorpay's own SDK as the judge of signatures."""

import razorpay
from razorpay.errors import SignatureVerificationError

from relay.samples import Sample


def accepts(sample: Sample) -> bool:
    utility = razorpay.Client(auth=("key", "secret")).utility
    try:
        return bool(
            utility.verify_webhook_signature(
                sample.request.body.decode(),
                sample.request.headers.get("x-razorpay-signature"),
                sample.secrets[0],
            )
        )
    except SignatureVerificationError:
        return False
