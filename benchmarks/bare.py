"""The ceiling: a Flask view that reads the body and does nothing with it.

Served by the same gunicorn, with the same settings, as `relay web`.
"""

from flask import Flask, request

app = Flask("bare", static_folder=None)


@app.post("/webhooks/<name>")
def accept(name: str) -> str:  # noqa: ARG001 - the same address as the relay's
    """Read and answer."""
    request.get_data()
    return ""
