"""The sandbox as a WSGI application.

All state lives in one process: serve it with one worker process and any number of threads.
"""

import logging
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from relay.sandbox import api, controls, page
from relay.sandbox.answers import ApiError, envelope
from relay.sandbox.faults import Dropping, dropped
from relay.sandbox.options import Clock, Options
from relay.sandbox.state import EXTENSION, Sandbox, sandbox

logger = logging.getLogger("relay.sandbox")

_LARGEST_BODY = 1024 * 1024

Answer = tuple[dict[str, Any], int]


def _now() -> datetime:
    return datetime.now(UTC)


def create_app(options: Options | None = None, clock: Clock = _now) -> Flask:
    """Put a sandbox together. `clock` returns aware datetimes."""
    options = options or Options()
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _LARGEST_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    box = app.extensions[EXTENSION] = Sandbox(options, clock)
    for module in (api, controls, page):
        app.register_blueprint(module.blueprint)
    app.before_request(_fail)
    app.after_request(_finish)
    app.register_error_handler(ApiError, _refuse)
    app.register_error_handler(HTTPException, _refuse_http)
    app.wsgi_app = Dropping(app.wsgi_app)  # type: ignore[method-assign]
    logger.info(
        "this is a sandbox and NOT DataFast: what it is sent goes nowhere else "
        "(records=%d refunds=%s rate_limit=%d kept=%s)",
        box.records.count(),
        options.refunds,
        options.rate_limit,
        "in a file" if options.database else "in memory",
    )
    return app


def _fail() -> Response | None:
    """The fault that was set, before anything is done; or remembered for after it."""
    if not _is_api():
        return None
    fault = sandbox().faults.take()
    if fault is None:
        return None
    fault.delay()
    if not fault.replaces:
        return None
    if fault.when == "before":
        return fault.answer()
    g.fault = fault
    return None


def _finish(response: Response) -> Response:
    """Put the fault in the answer's place, and count what was answered."""
    if not _is_api():
        return response
    fault = g.pop("fault", None)
    if fault is not None:
        response = fault.answer()
    sandbox().counts.add("dropped" if dropped() else str(response.status_code))
    return response


def _refuse(error: ApiError) -> Answer:
    return envelope(error.code, error.message), error.code


def _refuse_http(error: HTTPException) -> Answer:
    """What Flask itself refuses; a control that does not exist names those that do."""
    is_control = request.path == "/sandbox" or request.path.startswith("/sandbox/")
    if is_control and error.code in {404, 405}:
        return _refuse(controls.refusal())
    code = error.code or 500
    return envelope(code, error.description or error.name), code


def _is_api() -> bool:
    return request.path.startswith("/api/")
