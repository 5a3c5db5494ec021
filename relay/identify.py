"""`POST /identify/<key>`: the owner's own site says at the checkout which visitor it is that pays.

For providers that hand nothing of the site's back (Ko-fi, Buy Me a Coffee, Patreon). The key stands
in a page, so it proves nothing: it only says which site is meant.

204   on disk                           404   no site has an `identify_key`
400   not what was asked for            405   wrong method
401   no site's key                     413   more than 4 KiB
403   a page of another origin          429   too often: try again later
                                        503   cannot be stored now: try again
"""

import hmac
import logging
import math
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import ip_address

from flask import Blueprint, Response, current_app, request
from flask.blueprints import BlueprintSetupState
from gunicorn.http.errors import ParseException
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from relay import ledger, visitor
from relay.config import Config, Destination
from relay.errors import PayloadError, StoreUnavailableError
from relay.model import About
from relay.payload import Payload
from relay.receive import METHODS, RETRY_AFTER_S, refuse, whole_body
from relay.store import Store

log = logging.getLogger("relay.identify")
identify = Blueprint("identify", __name__)

# In each web process.
PER_ADDRESS = RateLimitItemPerMinute(60)
PER_SITE = RateLimitItemPerMinute(600)
# Addresses are counted in so many heaps: neither are they kept, nor can they fill the memory.
HEAPS = 65_536

MOST_BYTES = 4_096
LONGEST = 255
# `navigator.sendBeacon` and a `fetch` without a preflight say that theirs is plain text.
MEDIA_TYPES = {"application/json", "text/plain"}
PREFLIGHT_S = 86_400
WHO = ("email", "customer_id", "reference")


@identify.record
def count_from_here(state: BlueprintSetupState) -> None:
    """Each application counts for itself."""
    state.app.extensions["relay.limiter"] = MovingWindowRateLimiter(MemoryStorage())


@identify.route("/identify/<key>", methods=METHODS, provide_automatic_options=False)
def receive(key: str) -> Response:
    """One call of a site: whose key, from which page; then what it says."""
    config: Config = current_app.extensions["relay.config"]
    if not any(it.identify_key for it in config.destinations.values()):
        return refused(None, 404, "not_set_up", "no destination has an identify_key")
    site = owner(key, config.destinations.values())
    if site is None:
        return refused(None, 401, "unknown_key", "this is no destination's identify_key")
    origin = request.headers.get("Origin")
    if origin is not None and origin not in site.identify_origins:
        answer = refused(site, 403, "other_origin", "it is not among the site's identify_origins")
    elif origin is not None and request.method == "OPTIONS":
        answer = preflight()
    elif request.method != "POST":
        answer = refused(site, 405, "wrong_method", "send it with POST", Allow="POST, OPTIONS")
    else:
        answer = take(config, site)
    if origin in site.identify_origins:
        answer.headers["Access-Control-Allow-Origin"] = origin
    answer.headers["Vary"] = "Origin"
    return answer


def owner(key: str, sites: Iterable[Destination]) -> Destination | None:
    """The site with this key; it takes the same time whichever it is, if any."""
    found = None
    for site in sites:
        if hmac.compare_digest((site.identify_key or "").encode(), key.encode()):
            found = site
    return found


def preflight() -> Response:
    """A browser asks before it sends JSON."""
    answer = Response(status=204)
    answer.headers["Access-Control-Allow-Methods"] = "POST"
    answer.headers["Access-Control-Allow-Headers"] = "Content-Type"
    answer.headers["Access-Control-Max-Age"] = str(PREFLIGHT_S)
    return answer


def take(config: Config, site: Destination) -> Response:
    """Count, read and store, and say so."""
    pause = too_often(site)
    if pause:
        msg = "too many calls; try again later"
        return refused(site, 429, "too_often", msg, Retry_After=str(pause))
    request.max_content_length = MOST_BYTES + 1  # one more shows that it is over
    try:
        about = read(whole_body(MOST_BYTES))
    except RequestEntityTooLarge:
        return refused(site, 413, "too_large", f"more than {MOST_BYTES} bytes", close=True)
    except (ClientDisconnected, ParseException):
        msg = "the body is not as long as announced"
        return refused(site, 400, "broken_body", msg, close=True)
    except PayloadError as error:
        return refused(site, 400, error.reason, error.message)
    store: Store = current_app.extensions["relay.store"]
    sources = [it for it in config.sources.values() if it.destination.name == site.name]
    try:
        ledger.identified(store, site.name, sources, about, datetime.now(UTC))
    except StoreUnavailableError as error:
        again = str(RETRY_AFTER_S)
        return refused(site, 503, error.reason, "try again later", Retry_After=again)
    log.info("identify.stored", extra={"site": site.name})
    return Response(status=204)


def read(body: bytes) -> About:
    """What the site says. Raises PayloadError."""
    if request.mimetype not in MEDIA_TYPES:
        raise PayloadError("wrong_content_type", "$", "send application/json or text/plain")
    said = Payload.json(body).object()
    id = said.text("datafast_visitor_id")
    if not visitor.is_valid(id):
        msg = "it is no UUID v4, as the cookie datafast_visitor_id holds"
        raise PayloadError("bad_visitor_id", "$.datafast_visitor_id", msg)
    who = {name: said.text_or_none(name) for name in WHO}
    for name, value in who.items():
        # What is compared case-folded can be longer then.
        if value and (len(value.casefold()) > LONGEST or not value.isprintable()):
            msg = f"write up to {LONGEST} printable characters"
            raise PayloadError("bad_text", f"$.{name}", msg)
    if not any(who.values()):
        raise PayloadError("nobody", "$", f"at least one of {', '.join(WHO)} is needed")
    email, customer_id, reference = who.values()
    return About(visitor_id=id, email=email, customer_id=customer_id, reference=reference)


def too_often(site: Destination) -> int:
    """After how many seconds to come again; 0 if this call is within the limits."""
    limiter: MovingWindowRateLimiter = current_app.extensions["relay.limiter"]
    heap = str(hash(caller()) % HEAPS)
    # Who is refused does not use up what the site's other visitors have.
    counts: list[tuple[RateLimitItem, str]] = [(PER_ADDRESS, heap), (PER_SITE, site.name)]
    for limit, whose in counts:
        if not limiter.hit(limit, whose):
            opens_at = limiter.get_window_stats(limit, whose).reset_time
            return max(1, math.ceil(opens_at - time.time()))
    return 0


def caller() -> str:
    """The remote address: where that is a proxy's, close by, the one that it names."""
    peer = request.remote_addr or ""
    try:
        close_by = not ip_address(peer).is_global
    except ValueError:  # a socket on this machine has none
        close_by = True
    named = request.access_route  # X-Forwarded-For; the last is the proxy's own word
    return named[-1] if close_by and named else peer


def refused(
    site: Destination | None,
    status: int,
    reason: str,
    message: str,
    *,
    close: bool = False,
    **headers: str,
) -> Response:
    """A refusal, for the caller and for the log."""
    log.warning("identify.refused", extra={"site": site and site.name, "reason": reason})
    return refuse(status, reason, message, close=close, **headers)
