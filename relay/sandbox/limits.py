"""The rate limit of each token: a sliding window, the strictest reading of "60 a minute".

A relay that passes here passes a fixed window or a token bucket of the same size too. Every
request that names a good token counts, whatever comes of it; only those refused for the limit
itself do not, so that the reset which is told is true.
"""

import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

_WINDOW = timedelta(seconds=60)
_MANY_TOKENS = 1_000


@dataclass(frozen=True)
class Standing:
    """How a token stands after a request."""

    allowed: bool
    remaining: int
    reset: datetime


class Limits:
    """The requests of the last minute, by token. Safe for threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._requests: dict[str, deque[datetime]] = {}

    def take(self, token: str, now: datetime) -> Standing:
        """Count a request of `token`, if it has one left."""
        with self._lock:
            self._forget(now)
            times = self._requests.setdefault(token, deque())
            _expire(times, now)
            allowed = len(times) < self.limit
            if allowed:
                times.append(now)
            return Standing(allowed, self.limit - len(times), times[0] + _WINDOW)

    def clear(self) -> None:
        """Begin anew."""
        with self._lock:
            self._requests.clear()

    def _forget(self, now: datetime) -> None:
        """Any made-up token is good here, so what is idle must not stay for ever."""
        if len(self._requests) <= _MANY_TOKENS:
            return
        idle = [token for token, times in self._requests.items() if now - times[-1] >= _WINDOW]
        for token in idle:
            del self._requests[token]


def _expire(times: deque[datetime], now: datetime) -> None:
    while times and now - times[0] >= _WINDOW:
        times.popleft()
