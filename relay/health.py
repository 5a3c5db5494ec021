"""`/healthz`: this process answers. `/readyz`: the relay does its work, and if not, why."""

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, current_app, jsonify

from relay.errors import StoreUnavailableError
from relay.store import Store

health = Blueprint("health", __name__)

# A worker says every few seconds that it is alive.
WORKER_SILENT = timedelta(seconds=30)


@health.get("/healthz")
def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@health.get("/readyz")
def readyz() -> Response:
    """Whether the store can be written and a worker is alive, and how old the oldest due event is."""
    store: Store = current_app.extensions["relay.store"]
    now = datetime.now(UTC)
    report: dict[str, Any] = {"store": "ok", "worker": "ok", "oldest_due_seconds": 0}
    try:
        store.probe(now)
        seen_at, oldest = store.last_beat(), store.oldest_due(now)
    except StoreUnavailableError as error:
        report = {"store": error.message, "worker": "unknown", "oldest_due_seconds": None}
    else:
        if seen_at is None or now - seen_at > WORKER_SILENT:
            report["worker"] = "no worker is alive; start `relay worker` or `relay serve`"
        if oldest is not None:
            report["oldest_due_seconds"] = round((now - oldest).total_seconds(), 3)
    ready = report["store"] == report["worker"] == "ok"
    response = jsonify(status="ok" if ready else "unready", **report)
    response.status_code = 200 if ready else 503
    return response
