"""Capture.

For a provider that has no adapter yet: keeps whatever comes, byte for byte, and forwards nothing.
`relay events show` gives the requests back, and `docs/add-a-provider.md` makes an adapter of them.

Quirks:
- Nothing is checked but the secret in the URL, so nothing that is kept here is proved.
- A request is known by its bytes: the same body a second time is counted, not kept again.
"""

import hashlib

from relay.model import Event, Received
from relay.payload import Payload
from relay.provider import Mapper, Setup
from relay.verify import UrlSecret

TITLE = "Capture"
DOCS = "https://datafa.st/docs/api/website/payments"

SETUP = Setup(
    where="At the provider that has no adapter yet: wherever it wants the URL of a webhook.",
    events=(),
    secret="One of your own making: `openssl rand -hex 24` prints a good one.",
    visitor="Not read: nothing is forwarded.",
    checkout="",
    notes="Tick all events of the provider, and press its test button. When the adapter exists, "
    "change `provider:` of the source and replay what was captured.",
)

SIGNATURE = UrlSecret()

CAPTURED = "captured"


def parse(request: Received) -> list[Event]:
    """One event a request, whatever it is."""
    return [Event(hashlib.sha256(request.body).hexdigest(), CAPTURED, Payload(None))]


EVENTS: dict[str, Mapper] = {}

IGNORED = {CAPTURED: "only_captured"}
