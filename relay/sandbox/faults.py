"""Failures on demand: an answer of one's choice, a slow answer, or none at all.

None at all: the view only leaves a note in the WSGI environment. `Dropping`, around the whole
application, then shuts the client's socket down (gunicorn and Werkzeug's server put it there), so
that the client sees the connection closed without a byte. Where there is no socket, as with Flask's
test client, it raises DroppedConnectionError to whoever called the application.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from flask import Response, jsonify, make_response, request

from relay.sandbox.answers import envelope

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_NOTE = "relay.sandbox.drop"
_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


class DroppedConnectionError(ConnectionError):
    """The sandbox was told to close the connection without an answer."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong: `status` (with `body`), or `drop`, before or after recording; and how late."""

    status: int | None = None
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    latency_ms: int = 0
    drop: bool = False
    when: Literal["before", "after"] = "before"

    @property
    def replaces(self) -> bool:
        """Whether it stands in for the true answer, and does not only delay it."""
        return self.drop or self.status is not None

    def delay(self) -> None:
        """Wait as long as the answer shall be late."""
        if self.latency_ms:
            time.sleep(self.latency_ms / 1000)

    def answer(self) -> Response:
        """What is answered instead of the truth."""
        if self.drop:
            request.environ[_NOTE] = True
            return make_response("")
        status = self.status or 200
        if self.body is not None:
            response = make_response(self.body)
        else:
            response = jsonify(envelope(status, "A fault that was set in the sandbox"))
        response.status_code = status
        response.headers.update(self.headers)
        return response


class Faults:
    """The fault that is set, and how often it is still to happen. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._left: int | None = None

    def set(self, fault: Fault | None, count: int | None = None) -> None:
        """Set a fault for the next `count` requests, or until it is taken back (None)."""
        with self._lock:
            self._fault, self._left = fault, count

    def take(self) -> Fault | None:
        """The fault that this request meets."""
        with self._lock:
            if self._fault is None or self._left is None:
                return self._fault
            if self._left == 0:
                return None
            self._left -= 1
            return self._fault


class Dropping:
    """WSGI middleware that closes the connection where a fault has asked for it."""

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer, or drop the connection."""
        answer = self._app(environ, start_response)
        if _NOTE not in environ:
            return answer
        connection = next((environ[name] for name in _SOCKETS if name in environ), None)
        if connection is None:
            msg = "the sandbox was told to drop this connection, and there is no socket to close"
            raise DroppedConnectionError(msg)
        with contextlib.suppress(OSError):  # the client was faster
            connection.shutdown(socket.SHUT_RDWR)
        return []


def dropped() -> bool:
    """Whether this request gets no answer."""
    return _NOTE in request.environ
