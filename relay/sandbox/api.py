"""The part of DataFast's API that a relay meets.

Sources: https://datafa.st/docs/api/website/payments/create and …/delete,
…/website/analytics/metadata, …/website/visitors/retrieve, …/account/integrations/retrieve. What is
open there, and how it is read here:

- Of the texts of a 200 only "Payment recorded and attributed successfully" is documented, and
  "First event not found for visitor …" was seen. The others are made up.
- In which order a token, the rate limit, the website and the permission are checked is open; so is
  what a `websiteId` beside a website's own key does (here: nothing).
- Where in the JSON of a 429 `limit`, `remaining` and `reset` stand is open; here beside `error`.
- A deletion that matches nothing is a 404 for a transaction, and else a 200. Both ends of a range
  belong to it. Where both spellings of the range are sent, `start` and `end` count.
- The integrations are shown to account tokens only; one edition lets a website's own key see them.
- Metadata and visitors hold the documented fields that a relay could want, with made-up values.
"""

import math
import re
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, g, jsonify, request
from werkzeug.datastructures import MultiDict

from relay.sandbox.answers import ApiError, envelope
from relay.sandbox.fields import is_uuid_v4, read, read_time
from relay.sandbox.records import Filter, Result
from relay.sandbox.state import NATIVE, Sandbox, sandbox

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")

_BEARER = re.compile(r"bearer +(dft?_[A-Za-z0-9_-]{1,200})", re.IGNORECASE)
_CURRENCY = "USD"


# Who may


@blueprint.before_request
def admit() -> Response | None:
    """Check the token, its rate limit, its website and its permission, in this order."""
    box = sandbox()
    token = _token(box)
    limited = _limited(box, token)
    if limited is not None:
        return limited
    g.token, g.site = token, _site(box, token)
    if not box.account.suspended.isdisjoint((token, g.site)):
        raise ApiError(403, "Tracking is suspended for this website")
    if request.method in {"POST", "DELETE"} and token in box.account.read_only:
        raise ApiError(403, "The token lacks the permission payments:write")
    return None


@blueprint.after_request
def tell_limit(response: Response) -> Response:
    """Every answer to a good token tells how it stands."""
    standing = g.get("standing")
    if standing is not None:
        response.headers["X-RateLimit-Limit"] = str(sandbox().limits.limit)
        response.headers["X-RateLimit-Remaining"] = str(standing.remaining)
    return response


def _token(box: Sandbox) -> str:
    claimed = request.headers.get("Authorization")
    if not claimed:
        raise ApiError(401, "Missing token: send Authorization: Bearer <token>")
    found = _BEARER.fullmatch(claimed.strip())
    if found is None or found[1] in box.account.revoked:
        raise ApiError(401, "Invalid token")
    return found[1]


def _limited(box: Sandbox, token: str) -> Response | None:
    if box.limits.limit < 1:
        return None
    g.standing = box.limits.take(token, box.clock())
    if g.standing.allowed:
        return None
    unit = 1000 if box.options.reset_unit == "milliseconds" else 1
    reset = math.ceil(g.standing.reset.timestamp() * unit)
    message = f"Rate limit exceeded: {box.limits.limit} requests a minute"
    told = {"limit": box.limits.limit, "remaining": 0, "reset": reset}
    response = jsonify(envelope(429, message) | told)
    response.status_code = 429
    response.headers["X-RateLimit-Reset"] = str(reset)
    return response


def _site(box: Sandbox, token: str) -> str:
    """The website's own key says which it is; an account's token must be told."""
    if not token.startswith("dft_"):
        return box.account.sites.get(token, box.options.site)
    in_path: str | None = (request.view_args or {}).get("website_id")
    site = in_path or request.args.get("websiteId")
    if not site:
        raise ApiError(400, "websiteId is required with an account token (dft_…)")
    if site in box.account.unknown_websites:
        raise ApiError(404, "Website not found")
    return site


# Payments


@blueprint.post("/payments")
def create() -> dict[str, Any]:
    """Record a payment, refund, renewal or free trial, once."""
    box, now = sandbox(), sandbox().clock()
    posted = read(request.get_data(cache=False), request.mimetype, now)
    visitor = posted.datafast_visitor_id
    result = box.records.add(
        g.site,
        posted,
        now,
        visitor_known=visitor is not None and visitor.lower() in box.account.known_visitors,
        marks=box.options.refunds == "original_id",
    )
    if result is Result.DUPLICATE:
        box.counts.add("duplicates")
    noun = "Refund" if posted.refunded else "Payment"
    messages = {
        Result.ATTRIBUTED: f"{noun} recorded and attributed successfully",
        Result.RECORDED: f"{noun} recorded",
        Result.VISITOR_NOT_FOUND: f"First event not found for visitor {visitor}",
        Result.REFUNDED: "Payment refunded",
        Result.DUPLICATE: "Duplicate transaction: this transaction_id is recorded already",
    }
    return {"message": messages[result], "transaction_id": posted.transaction_id}


@blueprint.delete("/payments")
def delete() -> dict[str, Any]:
    """Delete by transaction; or by visitor, in a range or in all; or by range."""
    box = sandbox()
    given = request.args
    transaction_id = given.get("transaction_id") or given.get("tx_id")
    if transaction_id:
        if not box.records.delete(g.site, Filter(transaction_id)):
            raise ApiError(404, "Transaction not found")
        message = "Payment deleted successfully"
        return _deleted({"transaction_id": transaction_id, "message": message})
    visitor = given.get("datafast_visitor_id") or None
    if visitor is not None and not is_uuid_v4(visitor):
        raise ApiError(400, "datafast_visitor_id must be a UUID v4")
    start, end = _range(given)
    if visitor is None and start is None:
        raise ApiError(400, "Give transaction_id, datafast_visitor_id, or start and end")
    box.records.delete(g.site, Filter(None, visitor, start, end))
    return _deleted(_told(visitor, start, end))


def _range(given: MultiDict[str, str]) -> tuple[datetime | None, datetime | None]:
    start = given.get("start") or given.get("startAt")
    end = given.get("end") or given.get("endAt")
    if not start and not end:
        return None, None
    if not start or not end:
        raise ApiError(400, "A time range needs both start and end")
    first, last = read_time(start, "start"), read_time(end, "end")
    if first > last:
        raise ApiError(400, "start must not be later than end")
    return first, last


def _told(visitor: str | None, start: datetime | None, end: datetime | None) -> dict[str, Any]:
    message = "All payments for visitor deleted successfully" if visitor else "Payments deleted"
    told: dict[str, Any] = {"datafast_visitor_id": visitor} if visitor else {}
    if start is None or end is None:
        return told | {"message": message}
    time_range = {"start": start.isoformat(), "end": end.isoformat()}
    return told | {"message": f"{message} within time range", "timeRange": time_range}


def _deleted(told: dict[str, Any]) -> dict[str, Any]:
    return {"status": "success", "data": [told]}


# What else a relay asks


@blueprint.get("/analytics/metadata")
def metadata() -> dict[str, Any]:
    """Which website the token is for. The values are made up; `fields` picks some of them."""
    site = {
        "domain": g.site,
        "timezone": "UTC",
        "name": f"{g.site} (sandbox)",
        "logo": None,
        "kpiColorScheme": "orange",
        "kpi": None,
        "currency": _CURRENCY,
    }
    wanted = [name.strip() for name in request.args.get("fields", "").split(",") if name.strip()]
    if not set(wanted) <= set(site):
        raise ApiError(400, f"fields must be some of {', '.join(site)}")
    return {"status": "success", "data": [{name: site[name] for name in wanted or site}]}


@blueprint.get("/admin/websites/<website_id>/integrations")
def integrations(website_id: str) -> dict[str, Any]:  # noqa: ARG001 - `admit` has looked at it
    """Which payment providers DataFast reads by itself."""
    if not g.token.startswith("dft_"):
        raise ApiError(403, "An account token (dft_…) with settings:read is needed")
    on = sandbox().account.integrations
    states: dict[str, Any] = {name: {"connected": name in on} for name in NATIVE}
    return {"status": "success", "data": [states | {"currency": _CURRENCY}]}


@blueprint.get("/visitors/<visitor_id>")
def visitor(visitor_id: str) -> dict[str, Any]:
    """Whether a visitor was ever seen on a page. Of the documented fields it holds only a few."""
    if not is_uuid_v4(visitor_id):
        raise ApiError(400, "visitorId must be a UUID v4")
    if visitor_id.lower() not in sandbox().account.known_visitors:
        raise ApiError(404, "No pageviews found for this visitor")
    activity = {"visitCount": 1, "pageViewCount": 1}
    data = {"visitorId": visitor_id, "identity": {}, "activity": activity, "prediction": None}
    return {"status": "success", "data": data}
