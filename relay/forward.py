"""One POST to DataFast -> one Outcome. It never retries, and never raises for what came back.

The outcome is read from the body, not only from the status: DataFast answers 200 to a payment that
was attributed, recorded, skipped as a duplicate or refunded, and to one whose visitor it has never
seen. Sources: https://datafa.st/docs/api/website/payments and docs/datafast.md.
"""

import json
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import requests
from requests.adapters import HTTPAdapter

from relay import __version__
from relay.config import Destination
from relay.mapping import Body
from relay.model import Outcome, Result

PATH = "/api/v1/payments"

_KEPT = 2_048
_UNAVAILABLE = {408, 409, 425}
_UNAUTHORISED = {401, 403, 404}
# A reset beyond this is Unix time in milliseconds: DataFast documents seconds and sends both.
_MILLISECONDS = 10**11
_FARTHEST_S = 7 * 86_400


class Forwarder:
    """Posts with kept-alive connections, one session a thread."""

    def __init__(self) -> None:
        self._local = threading.local()

    def send(self, destination: Destination, body: Body, now: datetime) -> Outcome:
        """Post one payment. `now` is only used to read what the answer says about time."""
        id = body.fields["transaction_id"]
        return self._ask(
            "POST",
            destination,
            lambda status, text, headers: classify(status, text, headers, id, now),
            body.json,
        )

    def withdraw(self, destination: Destination, transaction_id: str, now: datetime) -> Outcome:
        """Delete what DataFast holds under this id, so that it can be posted anew."""
        return self._ask(
            "DELETE",
            destination,
            lambda status, text, headers: classify_deletion(status, text, headers, now),
            transaction_id=transaction_id,
        )

    def _ask(
        self,
        method: str,
        destination: Destination,
        read: Callable[[int, str, Mapping[str, str]], Outcome],
        body: str = "",
        **params: str,
    ) -> Outcome:
        if destination.website_id:
            params["websiteId"] = destination.website_id
        try:
            response = self.session.request(
                method,
                destination.base_url + PATH,
                data=body.encode(),
                params=params,
                headers={"Authorization": f"Bearer {destination.api_key}"},
                timeout=(destination.connect_timeout, destination.read_timeout),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            return Outcome(Result.UNAVAILABLE, _said(error))
        return read(
            response.status_code, response.content.decode(errors="replace"), response.headers
        )

    @property
    def session(self) -> requests.Session:
        """This thread's session."""
        if not hasattr(self._local, "session"):
            session = requests.Session()
            session.trust_env = False  # a proxy or .netrc of the host must not see payments
            session.headers["User-Agent"] = f"datafast-relay/{__version__}"
            session.headers["Content-Type"] = "application/json"
            session.mount("https://", HTTPAdapter(pool_maxsize=2))
            session.mount("http://", HTTPAdapter(pool_maxsize=2))
            self._local.session = session
        found: requests.Session = self._local.session
        return found


def classify(
    status: int, text: str, headers: Mapping[str, str], transaction_id: str, now: datetime
) -> Outcome:
    """Read an answer. What cannot be understood is UNKNOWN, and is asked again."""
    message, answered_id = _read(text)
    result = _result(status, message, answered_id, transaction_id)
    shown = _storable(message) or f"HTTP {status}, without a message"
    retry_at = (
        retry_time(headers, now) if result in {Result.THROTTLED, Result.UNAVAILABLE} else None
    )
    return Outcome(result, shown, status, _storable(text), retry_at)


def classify_deletion(status: int, text: str, headers: Mapping[str, str], now: datetime) -> Outcome:
    """Read the answer to a deletion. What is not there any more is as good as deleted."""
    if status not in {200, 404}:
        return classify(status, text, headers, "", now)
    message, _ = _read(text)
    shown = _storable(message) or f"HTTP {status}"
    return Outcome(Result.WITHDRAWN, shown, status, _storable(text))


def _result(status: int, message: str, answered_id: str | None, transaction_id: str) -> Result:
    if status == 429:
        return Result.THROTTLED
    if status in _UNAUTHORISED:
        return Result.UNAUTHORISED
    if status in _UNAVAILABLE or status >= 500 or 300 <= status < 400:
        return Result.UNAVAILABLE
    if status >= 400:
        return Result.REJECTED
    if answered_id not in {None, transaction_id}:
        return Result.UNKNOWN
    return _meaning(message.lower())


def _meaning(message: str) -> Result:
    """Only one of the four texts of a 200 is documented, so this reads words, not sentences."""
    if "not found for visitor" in message or "visitor not found" in message:
        return Result.VISITOR_NOT_FOUND
    if "duplicate" in message or "already" in message:
        return Result.DUPLICATE
    if "refund" in message:
        return Result.REFUNDED
    if "attributed" in message and "not attributed" not in message:
        return Result.ATTRIBUTED
    if "recorded" in message or "not attributed" in message:
        return Result.RECORDED
    return Result.UNKNOWN


def _read(text: str) -> tuple[str, str | None]:
    """The message and the transaction id of an answer; empty where there is none."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return "", None
    if not isinstance(body, dict):
        return "", None
    error = body.get("error")
    holder = error if isinstance(error, dict) else body
    message = holder.get("message") or (error if isinstance(error, str) else "")
    answered_id = body.get("transaction_id")
    return str(message), answered_id if isinstance(answered_id, str) else None


def _storable(text: str) -> str:
    """The beginning of a text, without what a database cannot hold."""
    return text[:_KEPT].replace("\x00", "\ufffd").encode(errors="replace").decode()


def retry_time(headers: Mapping[str, str], now: datetime) -> datetime | None:
    """When the destination wants to be asked again: the later of Retry-After and the reset."""
    times = [_retry_after(headers.get("Retry-After"), now), _reset(headers, now)]
    return max((time for time in times if time is not None), default=None)


def _retry_after(value: str | None, now: datetime) -> datetime | None:
    if value is None:
        return None
    digits = value.strip()
    if digits.isdecimal():
        return _after(now, int(digits) if len(digits) < 10 else _FARTHEST_S)
    try:
        return parsedate_to_datetime(value).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _reset(headers: Mapping[str, str], now: datetime) -> datetime | None:
    """X-RateLimit-Reset: Unix seconds, Unix milliseconds, or seconds from now; told by its size."""
    value = (headers.get("X-RateLimit-Reset") or "").strip()
    if not value.isdecimal() or len(value) > 14:
        return None
    number = int(value)
    if number > _MILLISECONDS:
        return datetime.fromtimestamp(number / 1000, UTC)
    if number > 10**9:
        return datetime.fromtimestamp(number, UTC)
    return _after(now, number)


def _after(now: datetime, seconds: int) -> datetime:
    return now + timedelta(seconds=min(seconds, _FARTHEST_S))


def _said(error: requests.RequestException) -> str:
    """What went wrong, in words that hold no address and no key."""
    kinds = {
        requests.ConnectTimeout: "no connection in time",
        requests.ReadTimeout: "no answer in time",
        requests.exceptions.SSLError: "the TLS certificate was refused",
        requests.ConnectionError: "no connection, or closed without an answer",
    }
    return next((text for kind, text in kinds.items() if isinstance(error, kind)), "no answer")
