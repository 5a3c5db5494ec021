"""What the owner decided, as frozen dataclasses."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relay.provider import Provider


@dataclass(frozen=True)
class Server:
    """How the web processes listen. Sizes in bytes, times in seconds."""

    bind: str
    public_url: str
    processes: int
    threads: int
    max_body: int
    drain_seconds: int


@dataclass(frozen=True)
class Work:
    """How the worker processes deliver. Times in seconds."""

    processes: int
    threads: int
    lease_seconds: int


@dataclass(frozen=True)
class Destination:
    """One DataFast site: its address, its key, and how politely it is spoken to.

    `rate_limit` is in requests a minute, 0 for none; the time-outs are in seconds. `website_id`
    goes with account tokens (`dft_…`) only.
    """

    name: str
    api_key: str
    base_url: str = "https://datafa.st"
    website_id: str | None = None
    rate_limit: int = 60
    refunds: str = "auto"
    connect_timeout: float = 5
    read_timeout: float = 20
    match_email: bool = True
    repair: str = "manual"
    identify_key: str | None = None
    identify_origins: tuple[str, ...] = ()

    @property
    def gate(self) -> str:
        """What its limit and its pauses are known by: the token, without telling it."""
        return hashlib.sha256(f"{self.base_url} {self.api_key}".encode()).hexdigest()[:24]

    def __repr__(self) -> str:
        return f"Destination({self.name!r})"


@dataclass(frozen=True, repr=False)
class Source:
    """A configured endpoint: one account at one provider, bound to one destination."""

    name: str
    provider: Provider
    destination: Destination
    secrets: tuple[str, ...]
    tolerance: float
    test_events: str
    disputes: str
    hold_seconds: int
    currency: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """Everything the owner decided."""

    server: Server
    worker: Work
    database: str
    log_level: str
    destinations: Mapping[str, Destination]
    sources: Mapping[str, Source]
