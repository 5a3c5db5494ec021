"""Everything one sandbox knows, apart from how it is asked.

`Account` is the imagined DataFast account: which tokens and websites are good, who was seen on a
page. It is replaced as a whole, so that readers need no lock, and it outlives a restart when there
is a file; faults, rate windows and counts are of the moment and do not.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from flask import current_app

from relay.sandbox.faults import Faults
from relay.sandbox.limits import Limits
from relay.sandbox.options import Clock, Options
from relay.sandbox.records import Records

NATIVE = ("stripe", "lemonsqueezy", "polar", "paddle", "shopify", "woocommerce")
EXTENSION = "relay.sandbox"


@dataclass(frozen=True)
class Account:
    """Tokens, websites and visitors, where they are not simply good, existing and unknown."""

    known_visitors: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()
    read_only: frozenset[str] = frozenset()
    suspended: frozenset[str] = frozenset()
    unknown_websites: frozenset[str] = frozenset()
    integrations: frozenset[str] = frozenset()
    sites: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, kept: Mapping[str, Any]) -> "Account":
        """The account as `dump` wrote it."""
        values = {name: kept[name] for name in cls.__dataclass_fields__ if name in kept}
        sites = values.pop("sites", {})
        return cls(**{name: frozenset(value) for name, value in values.items()}, sites=sites)

    def dump(self) -> dict[str, Any]:
        """The account as JSON can hold it."""
        return {
            name: sorted(value) if isinstance(value, frozenset) else value
            for name, value in asdict(self).items()
        }


class Counts:
    """How the API's requests were answered. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counter: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count one."""
        with self._lock:
            self._counter[name] += 1

    def clear(self) -> None:
        """Begin anew."""
        with self._lock:
            self._counter.clear()

    def report(self) -> dict[str, Any]:
        """Requests in all, answers by status, connections dropped, duplicates skipped."""
        with self._lock:
            counted = dict(self._counter)
        by_status = {name: counted[name] for name in sorted(counted) if name.isdecimal()}
        dropped = counted.get("dropped", 0)
        return {
            "total": sum(by_status.values()) + dropped,
            "by_status": by_status,
            "dropped": dropped,
            "duplicates": counted.get("duplicates", 0),
        }


class Sandbox:
    """One sandbox: its options, its records, its imagined account, and what is to go wrong."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self.options = options
        self.clock = clock
        self.records = Records(options.database)
        self.account = Account.load(self.records.kept("account"))
        self.faults = Faults()
        self.limits = Limits(options.rate_limit)
        self.counts = Counts()
        self._changing = threading.Lock()

    def change(self, **changes: Any) -> None:  # noqa: ANN401 - the fields of Account
        """Change the account."""
        with self._changing:
            self.account = replace(self.account, **changes)
            self.records.keep("account", self.account.dump())

    def reset(self) -> None:
        """Everything back to the beginning."""
        with self._changing:
            self.records.clear()
            self.account = Account()
            self.faults.set(None)
            self.limits.clear()
            self.counts.clear()


def sandbox() -> Sandbox:
    """The sandbox of the current application."""
    found: Sandbox = current_app.extensions[EXTENSION]
    return found
