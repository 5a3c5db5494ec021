"""Dodo Payments' own SDK as the judge of signatures."""

from datetime import datetime, tzinfo
from unittest.mock import patch

import dodopayments
from standardwebhooks.webhooks import WebhookVerificationError

from relay.samples import Sample


def accepts(sample: Sample) -> bool:
    class AtArrival(datetime):
        """The SDK asks the real clock how old a request is; a recorded one is always too old."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return sample.request.received_at.astimezone(tz)

    client = dodopayments.DodoPayments(bearer_token="unused", webhook_key=sample.secrets[0])
    try:
        with patch("standardwebhooks.webhooks.datetime", AtArrival):
            client.webhooks.unwrap(
                sample.request.body.decode(), headers=dict(sample.request.headers.pairs)
            )
    except WebhookVerificationError:
        return False
    return True
