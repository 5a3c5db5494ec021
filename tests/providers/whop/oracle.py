"""Whop's own SDK as the judge of signatures."""

from datetime import datetime, tzinfo
from unittest.mock import patch

from whop_sdk.lib.verify_webhook import WebhookVerificationError, unwrap

from relay.samples import Sample


def accepts(sample: Sample) -> bool:
    class AtArrival(datetime):
        """The SDK asks the real clock how old a request is; a recorded one is always too old."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return sample.request.received_at.astimezone(tz)

    headers = dict(sample.request.headers.pairs)
    try:
        with patch("standardwebhooks.webhooks.datetime", AtArrival):
            unwrap(sample.request.body, headers=headers, key=sample.secrets[0])
    except WebhookVerificationError:
        return False
    return True
