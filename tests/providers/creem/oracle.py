"""The judge of signatures: a Python SDK of Creem's API, not made by Creem."""

from creem.webhooks import verify_signature

from relay.samples import Sample


def accepts(sample: Sample) -> bool:
    claimed = sample.request.headers.get("creem-signature") or ""
    return bool(verify_signature(sample.request.body, claimed, sample.secrets[0]))
