"""What the sandbox can be told at its start."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Options:
    """How the sandbox behaves where DataFast's documentation is silent, and where it keeps things.

    `refunds`: which transaction id a refund must carry to be one. `rate_limit` is in requests a
    minute and token, 0 for none; `reset_unit` is that of X-RateLimit-Reset. `database` is an
    SQLite file; None keeps everything in memory. `site` is the domain that every `df_` key
    belongs to unless the controls say otherwise.
    """

    refunds: Literal["original_id", "refund_id"] = "original_id"
    rate_limit: int = 60
    database: str | None = None
    reset_unit: Literal["seconds", "milliseconds"] = "milliseconds"
    site: str = "sandbox.example"
