"""Svix's own library, which Superwall tells its customers to use, as the judge of signatures."""

from datetime import datetime, tzinfo
from unittest.mock import patch

from svix.webhooks import Webhook, WebhookVerificationError

from relay.samples import Sample


def accepts(sample: Sample) -> bool:
    class AtArrival(datetime):
        """The library asks the real clock how old a request is; a recorded one is always too old."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return sample.request.received_at.astimezone(tz)

    try:
        with patch("standardwebhooks.webhooks.datetime", AtArrival):
            Webhook(sample.secrets[0]).verify(
                sample.request.body, dict(sample.request.headers.pairs)
            )
    except WebhookVerificationError:
        return False
    return True
