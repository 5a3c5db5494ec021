"""GoCardless's own SDK as the judge of signatures."""

from gocardless_pro import webhooks
from gocardless_pro.errors import InvalidSignatureError

from relay.samples import Sample


def accepts(sample: Sample) -> bool:
    claimed = sample.request.headers.get("webhook-signature")
    try:
        events = webhooks.parse(sample.request.body.decode(), sample.secrets[0], claimed)
    except InvalidSignatureError:
        return False
    return len(events) > 0
