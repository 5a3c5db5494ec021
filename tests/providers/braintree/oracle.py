"""Braintree's own SDK as the judge of signatures."""

from urllib.parse import parse_qs

import braintree
from braintree.exceptions.invalid_signature_error import InvalidSignatureError

from relay.samples import Sample


def accepts(sample: Sample) -> bool:
    public, _, private = sample.secrets[0].partition(":")
    gateway = braintree.BraintreeGateway(
        braintree.Configuration(braintree.Environment.Sandbox, "merchant", public, private)
    )
    form = parse_qs(sample.request.body.decode())
    try:
        gateway.webhook_notification.parse(form["bt_signature"][0], form["bt_payload"][0])
    except InvalidSignatureError:
        return False
    return True
