"""Adyen's own library as the judge of signatures; it looks at one item at a time."""

import json

from Adyen.util import is_valid_hmac_notification, is_valid_hmac_payload

from relay.samples import Sample


def accepts(sample: Sample) -> bool:
    key = sample.secrets[0]
    claimed = sample.request.headers.get("hmacsignature")
    if claimed is not None:
        return bool(is_valid_hmac_payload(claimed, key, sample.request.body))
    items = json.loads(sample.request.body)["notificationItems"]
    return all(is_valid_hmac_notification({"notificationItems": [item]}, key) for item in items)
