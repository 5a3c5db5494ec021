"""The controls: what a test or a person may ask the sandbox, and tell it. No token is needed.

Every PUT replaces what the control held before. A control that does not exist, or says something
that is not understood, is a 400 that tells what to write instead.
"""

from typing import Any

from flask import Blueprint, request

from relay.sandbox.answers import ApiError, read_object, storable
from relay.sandbox.faults import Fault
from relay.sandbox.fields import is_uuid_v4
from relay.sandbox.state import NATIVE, sandbox

blueprint = Blueprint("controls", __name__, url_prefix="/sandbox")

# Method, path, example body, meaning. The page and every refusal show this table.
CONTROLS = (
    ("GET", "/sandbox/payments", "", "every record, oldest first; amounts as text"),
    ("GET", "/sandbox/requests", "", "how many requests were answered with which status"),
    ("PUT", "/sandbox/faults", '{"status": 503, "count": 5}', "answer this instead"),
    ("PUT", "/sandbox/faults", '{"status": 200, "body": "nonsense"}', "the same, in these words"),
    ("PUT", "/sandbox/faults", '{"latency_ms": 2000}', "answer the truth, late"),
    (
        "PUT",
        "/sandbox/faults",
        '{"drop": true, "when": "after", "count": 1}',
        "close the connection, before or after recording",
    ),
    ("DELETE", "/sandbox/faults", "", "no more faults"),
    ("PUT", "/sandbox/visitors", '{"known": ["<uuid>"]}', "who was seen on a page"),
    (
        "PUT",
        "/sandbox/tokens",
        '{"revoked": ["df_a"], "read_only": ["dft_b"], "suspended": ["df_c", "my.site"]}',
        "401, 403 to writing, 403 (a token or a website)",
    ),
    ("PUT", "/sandbox/tokens", '{"sites": {"df_d": "other.site"}}', "which website a key is for"),
    ("PUT", "/sandbox/websites", '{"unknown": ["my.site"]}', "404 for account tokens"),
    ("PUT", "/sandbox/integrations", '{"paddle": true}', "what DataFast reads by itself"),
    ("DELETE", "/sandbox", "", "everything back to the beginning"),
)

_MOST_LATENCY = 600_000
_FAULT = ("status", "body", "headers", "latency_ms", "drop", "when", "count")
_DONE = {"status": "success"}


@blueprint.get("/payments")
def payments() -> list[dict[str, Any]]:
    """Every record, oldest first."""
    return sandbox().records.all()


@blueprint.get("/requests")
def requests() -> dict[str, Any]:
    """How the API's requests were answered."""
    return sandbox().counts.report()


@blueprint.put("/faults")
def set_fault() -> dict[str, str]:
    """Let the next requests, or all, fail."""
    said = _said(*_FAULT)
    count = said.pop("count", None)
    if count is not None and not _whole(count, 1, 10**9):
        raise ApiError(400, "count must be a whole number from 1; leave it out for all requests")
    sandbox().faults.set(_fault(said), count)
    return _DONE


@blueprint.delete("/faults")
def no_faults() -> dict[str, str]:
    """No more faults."""
    sandbox().faults.set(None)
    return _DONE


@blueprint.put("/visitors")
def visitors() -> dict[str, str]:
    """Who was seen on a page."""
    known = _texts(_said("known"), "known")
    wrong = next((visitor for visitor in sorted(known) if not is_uuid_v4(visitor)), None)
    if wrong is not None:
        raise ApiError(400, f"known: {wrong[:60]} is not a UUID v4")
    sandbox().change(known_visitors=frozenset(visitor.lower() for visitor in known))
    return _DONE


@blueprint.put("/tokens")
def tokens() -> dict[str, str]:
    """Which tokens are not simply good, and which website a key is for."""
    said = _said("revoked", "read_only", "suspended", "sites")
    sites = said.get("sites", {})
    if not isinstance(sites, dict) or not all(map(_is_text, sites.values())):
        raise ApiError(400, 'sites must look like {"df_key": "my.site"}')
    lists = {name: _texts(said, name) for name in ("revoked", "read_only", "suspended")}
    sandbox().change(**lists, sites=sites)
    return _DONE


@blueprint.put("/websites")
def websites() -> dict[str, str]:
    """Which websites do not exist."""
    sandbox().change(unknown_websites=_texts(_said("unknown"), "unknown"))
    return _DONE


@blueprint.put("/integrations")
def integrations() -> dict[str, str]:
    """Which payment providers DataFast reads by itself."""
    said = _said(*NATIVE)
    for name, on in said.items():
        if not isinstance(on, bool):
            raise ApiError(400, f"{name} must be true or false")
    sandbox().change(integrations=frozenset(name for name, on in said.items() if on))
    return _DONE


@blueprint.delete("")
def reset() -> dict[str, str]:
    """Everything back to the beginning."""
    sandbox().reset()
    return _DONE


def refusal() -> ApiError:
    """For a control that does not exist: those that do."""
    known = "; ".join(f"{method} {path} {body}".strip() for method, path, body, _ in CONTROLS)
    return ApiError(400, f"There is no control {request.method} {request.path}. There is: {known}")


def _fault(said: dict[str, Any]) -> Fault:
    rules = (
        ("status", _whole(said.get("status", 200), 200, 599), "a number from 200 to 599"),
        ("body", _is_text(said.get("body", "")), "text"),
        ("headers", _are_headers(said.get("headers", {})), "an object of header lines"),
        ("latency_ms", _whole(said.get("latency_ms", 0), 0, _MOST_LATENCY), "0 to 600000"),
        ("drop", said.get("drop", True) is True, "true, or left out"),
        ("when", said.get("when", "before") in ("before", "after"), '"before" or "after"'),
    )
    for name, right, wanted in rules:
        if not right:
            raise ApiError(400, f"{name} must be {wanted}")
    fault = Fault(**said)
    if not fault.replaces and set(said) != {"latency_ms"}:
        raise ApiError(400, "Give status, drop or latency_ms; the others only add to them")
    if fault.drop and set(said) & {"status", "body", "headers"}:
        raise ApiError(400, "Give either drop or status: who drops the connection answers nothing")
    return fault


def _said(*known: str) -> dict[str, Any]:
    said = read_object(request.get_data(cache=False))
    unknown = next((name for name in said if name not in known), None)
    if unknown is not None:
        raise ApiError(400, f"{unknown[:60]} is unknown here; write {', '.join(known)}")
    return said


def _texts(said: dict[str, Any], name: str) -> frozenset[str]:
    values = said.get(name, [])
    if not isinstance(values, list) or not all(map(_is_text, values)):
        raise ApiError(400, f"{name} must be a list of texts")
    return frozenset(values)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and storable(value)


def _are_headers(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_line(name) and name and _is_line(text) for name, text in value.items()
    )


def _is_line(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable()


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
