"""Sending recorded requests as the provider would, and standing in for its API.

Used by `relay send`, `relay demo`, the end-to-end tests and the benchmarks.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import requests
from flask import Flask, Response, request
from werkzeug.serving import BaseWSGIServer, make_server

from relay import samples
from relay.errors import RelayError
from relay.model import Received, Trust
from relay.provider import Provider
from relay.samples import Sample
from relay.verify import Rehearsal

_session = threading.local()


def post(url: str, signed: Received) -> requests.Response:
    """Post a signed request to a source's URL; its secret goes where the provider puts it.

    Raises RelayError(no_answer).
    """
    if not hasattr(_session, "it"):
        _session.it = requests.Session()
        _session.it.trust_env = False
    headers = {name: value for name, value in signed.headers.pairs if name not in _NOT_SENT}
    target = f"{url}/{quote(signed.url_secret)}" if signed.url_secret else url
    target += _query(signed.url)
    try:
        answer: requests.Response = _session.it.post(
            target, data=signed.body, headers=headers, timeout=30
        )
    except requests.RequestException as error:
        msg = f"{url} gave no answer ({type(error).__name__}); is `relay serve` running?"
        raise RelayError("no_answer", msg) from None
    return answer


_NOT_SENT = {"host", "content-length", "connection", "transfer-encoding"}


def addressed(sample: Sample, public_url: str, source: str) -> Received:
    """A recorded request as it would be sent now, to this source: its URL can be signed too."""
    url = f"{public_url.rstrip('/')}/webhooks/{source}{_query(sample.request.url)}"
    return replace(sample.request, received_at=datetime.now(UTC), url=url)


def _query(url: str) -> str:
    query = urlsplit(url).query
    return f"?{query}" if query else ""


def summary(sample: Sample) -> str:
    """What a sample becomes, in a few words."""
    told = [
        f"{it['kind']} {it['datafast']['amount']} {it['datafast']['currency']}"
        for it in sample.expected.get("payments", [])
    ]
    told += [f"ignored: {it['reason']}" for it in sample.expected.get("ignored", [])]
    return ", ".join(told) or "unreadable"


@dataclass(frozen=True)
class Rehearsed:
    """One provider with secrets of its own making, and where its API is stood in for."""

    provider: Provider
    rehearsal: Rehearsal
    api_base: str

    @property
    def settings(self) -> dict[str, object]:
        """The source's settings besides its secrets: every required one, and the stand-in's address."""
        found = {it.name: "rehearsal" for it in self.provider.settings if it.required}
        if "api_base" in self.provider.defaults():
            found["api_base"] = self.api_base
        return {**found, **self.rehearsal.settings}

    def sign(self, received: Received) -> Received:
        """The request, signed with this rehearsal's secret."""
        settings = {**self.provider.defaults(), **self.settings}
        trust = Trust(self.rehearsal.secrets, 300, settings, self.download)
        return self.provider.signature.sign(received, trust)

    def download(self, url: str) -> bytes:
        """What the stand-in has at this address."""
        return self.rehearsal.downloads[url.removeprefix(self.api_base)]


class StandIn:
    """The providers' APIs, answering what was recorded; one path prefix a provider."""

    def __init__(self) -> None:
        self._answers: dict[str, bytes] = {}
        self._server: BaseWSGIServer = make_server("127.0.0.1", 0, self._app(), threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def rehearse(self, provider: Provider, recorded: Iterable[Sample] | None = None) -> Rehearsed:
        """Make up secrets for a provider, and stand in for its API with what was recorded."""
        base = f"{self.url}/{provider.name}"
        rehearsal = provider.signature.rehearse()
        for path, document in rehearsal.downloads.items():
            self._answers[f"/{provider.name}{path}"] = document
        for sample in recorded or samples.of(provider.name):
            for each in sample.documents:
                self._answers[f"/{provider.name}{each.path}"] = each.body
        return Rehearsed(provider, rehearsal, base)

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def _app(self) -> Flask:
        app = Flask("standin", static_folder=None)

        @app.get("/<path:_>")
        def answer(_: str) -> Response:
            # As it was asked for: a path that is decoded has lost what was encoded in it.
            found = self._answers.get(request.environ["REQUEST_URI"])
            if found is None:
                return Response('{"error": "not recorded"}', 404, content_type="application/json")
            return Response(found, content_type="application/json")

        @app.post("/<path:_>")
        def reply(_: str) -> Response:
            # To a question: the answer whose mark (see Api.ask) stands in it.
            asked = request.get_data(as_text=True)
            for path, found in self._answers.items():
                address, _, mark = path.partition("#")
                if address == request.environ["REQUEST_URI"] and mark and mark in asked:
                    return Response(found, content_type="application/json")
            return Response('{"error": "not recorded"}', 404, content_type="application/json")

        return app
