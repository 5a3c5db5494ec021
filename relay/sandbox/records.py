"""What was posted, in one SQLite connection behind one lock; and what posting it comes to.

Amounts are kept as text, digit by digit, and summed as decimals. A refund that is posted under the
id of its payment is a row of its own (`mark` 1) beside the payment's: both amounts are kept, and
the mark goes when its payment is deleted. It lives in the process that created it: do not fork.
"""

import json
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from relay.sandbox.fields import Posted

_TABLES = """
CREATE TABLE IF NOT EXISTS records (
    number INTEGER PRIMARY KEY,
    site TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    mark INTEGER NOT NULL,
    kind TEXT NOT NULL,
    amount TEXT NOT NULL,
    currency TEXT NOT NULL,
    datafast_visitor_id TEXT COLLATE NOCASE,
    email TEXT,
    name TEXT,
    customer_id TEXT,
    renewal INTEGER,
    refunded INTEGER,
    is_free_trial INTEGER,
    timestamp TEXT NOT NULL,
    occurred_at TEXT NOT NULL,
    attributed INTEGER NOT NULL,
    recorded_at TEXT NOT NULL,
    UNIQUE (site, transaction_id, mark)
) STRICT;
CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""
_COLUMNS = (
    "site, transaction_id, kind, amount, currency, datafast_visitor_id, email, name, customer_id, "
    "renewal, refunded, is_free_trial, timestamp, attributed, recorded_at"
)
_FLAGS = ("renewal", "refunded", "is_free_trial", "attributed")
_INSERT = """
INSERT INTO records (
    site, transaction_id, mark, kind, amount, currency, datafast_visitor_id, email, name,
    customer_id, renewal, refunded, is_free_trial, timestamp, occurred_at, attributed, recorded_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# A mark is part of its payment, whenever and for whomever it was posted.
_DELETE = """
DELETE FROM records WHERE site = :site AND transaction_id IN (
    SELECT transaction_id FROM records WHERE site = :site AND mark = 0
    AND (:transaction_id IS NULL OR transaction_id = :transaction_id)
    AND (:visitor IS NULL OR datafast_visitor_id = :visitor)
    AND (:start IS NULL OR occurred_at BETWEEN :start AND :end)
)
"""

Record = dict[str, Any]


class Result(Enum):
    """What posting a payment came to. All of them are answered 200."""

    ATTRIBUTED = "attributed"
    RECORDED = "recorded"
    VISITOR_NOT_FOUND = "visitor_not_found"
    REFUNDED = "refunded"
    DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Filter:
    """Which records to delete: all that match everything that is given."""

    transaction_id: str | None = None
    visitor: str | None = None
    start: datetime | None = None
    end: datetime | None = None


class Records:
    """All records, and the few settings that outlive a restart. Safe for threads."""

    def __init__(self, database: str | None) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            database or ":memory:", check_same_thread=False, isolation_level=None
        )
        self._connection.row_factory = sqlite3.Row
        if database:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_TABLES)

    def add(
        self, site: str, posted: Posted, now: datetime, *, visitor_known: bool, marks: bool
    ) -> Result:
        """Record once. With `marks`, a refund under a recorded payment's id refunds that payment."""
        with self._lock:
            recorded = self._find(site, posted.transaction_id)
            if recorded is None:
                self._insert(site, posted, now, mark=0, attributed=visitor_known)
                return _recorded(posted, visitor_known=visitor_known)
            if not (marks and posted.refunded and _can_be_refunded(recorded)):
                return Result.DUPLICATE
            attributed = visitor_known or bool(recorded[0]["attributed"])
            self._insert(site, posted, now, mark=1, attributed=attributed)
            return Result.REFUNDED

    def delete(self, site: str, which: Filter) -> int:
        """Delete payments and free trials, and the refunds marked on them. Returns how many."""
        values = {
            "site": site,
            "transaction_id": which.transaction_id,
            "visitor": which.visitor,
            "start": _sortable(which.start),
            "end": _sortable(which.end),
        }
        with self._lock:
            return self._connection.execute(_DELETE, values).rowcount

    def all(self, newest: int | None = None) -> list[Record]:
        """Every record, oldest first; or only the `newest` ones, newest first."""
        order = "number" if newest is None else "number DESC LIMIT ?"
        values = () if newest is None else (newest,)
        query = f"SELECT {_COLUMNS} FROM records ORDER BY {order}"  # noqa: S608 - constants
        with self._lock:
            return [_as_posted(row) for row in self._connection.execute(query, values)]

    def count(self) -> int:
        """How many records there are."""
        with self._lock:
            found: int = self._connection.execute("SELECT count(*) FROM records").fetchone()[0]
            return found

    def sums(self) -> dict[str, dict[str, Decimal]]:
        """Exact sums: currency to kind to amount."""
        with self._lock:
            rows = self._connection.execute("SELECT currency, kind, amount FROM records").fetchall()
        sums: dict[str, dict[str, Decimal]] = {}
        for currency, kind, amount in rows:
            of_currency = sums.setdefault(currency, {})
            of_currency[kind] = of_currency.get(kind, Decimal(0)) + Decimal(amount)
        return dict(sorted(sums.items()))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._connection.executescript("DELETE FROM records; DELETE FROM kept;")

    def keep(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep a setting."""
        with self._lock:
            self._connection.execute(
                "INSERT OR REPLACE INTO kept VALUES (?, ?)", (name, json.dumps(value))
            )

    def kept(self, name: str) -> dict[str, Any]:
        """A setting that was kept; empty if there is none."""
        with self._lock:
            row = self._connection.execute(
                "SELECT value FROM kept WHERE name = ?", (name,)
            ).fetchone()
        found: dict[str, Any] = json.loads(row["value"]) if row else {}
        return found

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def _find(self, site: str, transaction_id: str) -> list[sqlite3.Row] | None:
        """The record of this id and the refund marked on it."""
        query = (
            "SELECT kind, attributed FROM records WHERE site = ? AND transaction_id = ? "
            "ORDER BY mark"
        )
        return self._connection.execute(query, (site, transaction_id)).fetchall() or None

    def _insert(
        self, site: str, posted: Posted, now: datetime, *, mark: int, attributed: bool
    ) -> None:
        values = (
            site,
            posted.transaction_id,
            mark,
            posted.kind,
            f"{posted.amount:f}",
            posted.currency,
            posted.datafast_visitor_id,
            posted.email,
            posted.name,
            posted.customer_id,
            posted.renewal,
            posted.refunded,
            posted.is_free_trial,
            posted.timestamp,
            _sortable(posted.occurred_at),
            attributed,
            _sortable(now),
        )
        self._connection.execute(_INSERT, values)


def _recorded(posted: Posted, *, visitor_known: bool) -> Result:
    if posted.datafast_visitor_id is None:
        return Result.RECORDED
    return Result.ATTRIBUTED if visitor_known else Result.VISITOR_NOT_FOUND


def _can_be_refunded(recorded: list[sqlite3.Row]) -> bool:
    """Not when the id is a refund's own, and not twice."""
    return len(recorded) == 1 and recorded[0]["kind"] != "refund"


def _sortable(moment: datetime | None) -> str | None:
    """One width for all, so that the order of the texts is the order of the times."""
    return None if moment is None else moment.isoformat(timespec="microseconds")


def _as_posted(row: sqlite3.Row) -> Record:
    record = dict(row)
    for flag in _FLAGS:
        record[flag] = None if record[flag] is None else bool(record[flag])
    return record
