"""A small HTTP load client: one process, non-blocking sockets, requests built beforehand.

It must cost little, since it shares the machine with what it measures.
"""

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_LATEST_S = 30


@dataclass
class Load:
    """What a run measured: seconds each answer took, and which statuses came.

    `answered_at` is Unix time, by the request's place in the order of sending.
    """

    seconds: float = 0.0
    took: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    answered_at: dict[int, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.took) / self.seconds if self.seconds else 0.0

    def percentile(self, percent: float) -> float:
        """In milliseconds."""
        ranked = sorted(self.took)
        return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))] * 1000


def http(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of one POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def closed(port: int, requests: Iterator[bytes], seconds: float, connections: int) -> Load:
    """As fast as it goes: each connection sends its next request when its last was answered."""
    return _run(port, requests, seconds, connections, rate=None)


def steady(port: int, requests: Iterator[bytes], seconds: float, rate: float) -> Load:
    """At a rate a second, whatever the answers do; latency counts from when it was due."""
    return _run(port, requests, seconds, connections=64, rate=rate)


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = 0
        self.begun = 0.0
        self.buffer = b""

    def send(self, number: int, request: bytes, begun: float) -> None:
        self.number = number
        self.begun = begun
        self.buffer = b""
        self.socket.sendall(request)

    def status(self) -> int | None:
        """The status once the answer is whole."""
        piece = self.socket.recv(65_536)
        if not piece:
            raise ConnectionError("closed without an answer")
        self.buffer += piece
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return None
        length = 0
        for line in head.lower().split(b"\r\n")[1:]:
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        return int(head[9:12]) if len(body) >= length else None


def _run(
    port: int, requests: Iterator[bytes], seconds: float, connections: int, rate: float | None
) -> Load:
    load = Load()
    selector = selectors.DefaultSelector()
    idle: list[_Connection] = []
    opened = sent = 0
    start = time.perf_counter()
    due = _due(start, rate)
    next_due = due()
    busy = 0
    upcoming = next(requests, None)
    while ((now := time.perf_counter()) < start + seconds and upcoming is not None) or busy:
        while (idle or opened < connections) and next_due <= now < start + seconds:
            if upcoming is None:
                break
            # Opened when it is needed: an idle new one would hold up one of the server's threads.
            if not idle:
                idle.append(_open(port, selector))
                opened += 1
            idle.pop().send(sent, upcoming, next_due if rate else now)
            upcoming = next(requests, None)
            sent += 1
            busy += 1
            next_due = due()
        if now > start + seconds + _LATEST_S:
            msg = f"{busy} requests are still not answered"
            raise TimeoutError(msg)
        wait = 0.05 if rate is None else max(0.0, min(next_due - now, 0.05))
        for key, _ in selector.select(wait):
            if key.data in idle:  # the server closed a connection that it kept for long enough
                selector.unregister(key.data.socket)
                idle.remove(key.data)
                idle.append(_open(port, selector))
                continue
            status = key.data.status()
            if status is None:
                continue
            answered = time.perf_counter()
            load.took.append(answered - key.data.begun)
            load.answered_at[key.data.number] = time.time()
            load.statuses[status] = load.statuses.get(status, 0) + 1
            idle.append(key.data)
            busy -= 1
    load.seconds = time.perf_counter() - start
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return load


def _open(port: int, selector: selectors.BaseSelector) -> _Connection:
    connection = _Connection(port)
    selector.register(connection.socket, selectors.EVENT_READ, connection)
    return connection


def _due(start: float, rate: float | None) -> Callable[[], float]:
    """When the next request is to be sent."""
    if rate is None:
        return lambda: 0.0
    sent = 0

    def due() -> float:
        nonlocal sent
        sent += 1
        return start + (sent - 1) / rate

    return due
