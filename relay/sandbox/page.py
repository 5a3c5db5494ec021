"""The sandbox's one page: that it is not DataFast, what it holds, and how to use the controls."""

from decimal import Decimal

from flask import Blueprint, Response, make_response, render_template

from relay import __version__
from relay.sandbox.controls import CONTROLS
from relay.sandbox.state import sandbox

blueprint = Blueprint("page", __name__)

_NEWEST = 25
# The kinds of the records, and what DataFast's own reports call them.
_KINDS = {"payment": "New", "renewal": "Renewal", "refund": "Refund", "trial": "Trial"}


@blueprint.get("/")
def page() -> Response:
    """The page. It loads nothing, from here or elsewhere."""
    box = sandbox()
    html = render_template(
        "sandbox.html",
        version=__version__,
        options=box.options,
        count=box.records.count(),
        requests=box.counts.report(),
        kinds=_KINDS,
        sums=box.records.sums(),
        zero=Decimal(0),
        newest=box.records.all(newest=_NEWEST),
        controls=CONTROLS,
    )
    response = make_response(html)
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    response.headers["Cache-Control"] = "no-store"
    return response
