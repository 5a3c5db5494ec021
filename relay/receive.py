"""The webhook endpoint: the only place that knows HTTP coming in.

200   on disk, or seen before           404   no such source
400   broken off on its way             405   wrong method
401   not proved to be the provider's   413   too large
                                        503   cannot be stored now: try again
"""

import logging
import time
from datetime import UTC, datetime
from urllib.parse import quote

from flask import Blueprint, Response, current_app, jsonify, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from relay import flow
from relay.config import Config, Source
from relay.errors import RelayError, StoreUnavailableError, VerificationError
from relay.model import Headers, Received, Reply
from relay.store import Store

log = logging.getLogger("relay.receive")
webhooks = Blueprint("webhooks", __name__)

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
RETRY_AFTER_S = 10


@webhooks.route("/webhooks/<name>", methods=METHODS, provide_automatic_options=False)
@webhooks.route("/webhooks/<name>/<url_secret>", methods=METHODS, provide_automatic_options=False)
def receive(name: str, url_secret: str | None = None) -> Response:
    """One call of a provider."""
    started = time.perf_counter()
    config: Config = current_app.extensions["relay.config"]
    source = config.sources.get(name)
    if source is None:
        log.warning("webhook.refused", extra={"source": name[:63], "reason": "unknown_source"})
        return refuse(404, "unknown_source", f"no source is called {name[:63]!r}")
    try:
        body = whole_body(config.server.max_body)
    except RequestEntityTooLarge:
        log.warning("webhook.refused", extra={"source": name, "reason": "too_large"})
        return refuse(413, "too_large", f"more than {config.server.max_body} bytes", close=True)
    except (ClientDisconnected, ParseException):
        log.warning("webhook.refused", extra={"source": name, "reason": "broken_body"})
        return refuse(400, "broken_body", "the body is not as long as announced", close=True)
    received = Received(
        body=body,
        headers=Headers(request.headers),
        received_at=datetime.now(UTC),
        url=config.server.public_url.rstrip("/") + target(with_secret=url_secret is not None),
        method=request.method,
        url_secret=url_secret,
    )
    handshake = challenge(source, received)
    if handshake is not None:
        return answer(handshake)
    if request.method != "POST":
        return refuse(405, "wrong_method", "send webhooks with POST", Allow="POST")
    return accept(source, received, started)


def whole_body(most: int) -> bytes:
    """The body, all of it. A part could be taken for the whole where nothing is signed.

    Raises RequestEntityTooLarge, ClientDisconnected, and gunicorn's ParseException.
    """
    body = request.get_data(cache=False)
    if len(body) > most:  # werkzeug cuts off a body without a length, and keeps quiet
        raise RequestEntityTooLarge
    if len(body) < (request.content_length or 0):
        raise ClientDisconnected
    return body


def target(*, with_secret: bool) -> str:
    """The path and query, any bytes are possible in either; without the secret, since it is stored."""
    path = request.path.rpartition("/")[0] if with_secret else request.path
    query = request.query_string.decode("latin-1")
    return quote(path) + (f"?{query}" if query else "")


def accept(source: Source, received: Received, started: float) -> Response:
    """Verify and store, and say so."""
    store: Store = current_app.extensions["relay.store"]
    line: dict[str, object] = {"source": source.name, "bytes": len(received.body)}
    try:
        accepted = flow.accept(source, received, store)
    except VerificationError as error:
        log.warning("webhook.refused", extra={**line, "reason": error.reason})
        return refuse(401, error.reason, error.message)
    except StoreUnavailableError as error:
        log.error("webhook.not_stored", extra={**line, "reason": error.message})  # noqa: TRY400
        return refuse(503, error.reason, "try again later", Retry_After=str(RETRY_AFTER_S))
    line |= {
        "events": accepted.events,
        "new": accepted.new,
        "duration_ms": round((time.perf_counter() - started) * 1000, 2),
    }
    if accepted.dead:
        log.error("webhook.unreadable", extra={**line, "reason": accepted.dead})
    else:
        log.info("webhook.stored", extra=line)
    return answer(source.provider.acknowledge())


def challenge(source: Source, received: Received) -> Reply | None:
    """A provider's handshake, if this is one. It proves nothing, so it is never acted on."""
    if source.provider.challenge is None:
        return None
    try:
        return source.provider.challenge(received, flow.trust(source))
    except RelayError:
        return None


def answer(reply: Reply) -> Response:
    """What the provider wants to hear."""
    return Response(reply.body, status=reply.status, content_type=reply.content_type)


def refuse(
    status: int, reason: str, message: str, *, close: bool = False, **headers: str
) -> Response:
    """A refusal, with its slug and what to do."""
    response = jsonify(error=reason, message=message)
    response.status_code = status
    for name, value in headers.items():
        response.headers[name.replace("_", "-")] = value
    if close:
        response.headers["Connection"] = "close"  # the rest of the body stays unread
    return response
