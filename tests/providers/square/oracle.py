"""Square's own SDK as the judge of signatures."""

from square.utils.webhooks_helper import verify_signature

from relay.samples import Sample


def accepts(sample: Sample) -> bool:
    return verify_signature(
        request_body=sample.request.body.decode(),
        signature_header=sample.request.headers.get("x-square-hmacsha256-signature") or "",
        signature_key=sample.secrets[0],
        notification_url=sample.request.url,
    )
