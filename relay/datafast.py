"""DataFast's API apart from posting payments: who a key is for, what is connected, deleting.

Source: https://datafa.st/docs/api. Used by people's commands; the way of an event is `forward.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import requests

from relay import __version__
from relay.config import Destination
from relay.errors import RelayError
from relay.mapping import iso


@dataclass(frozen=True)
class Answer:
    """Status, parsed body (None if it is no JSON), and how long it took in seconds."""

    status: int
    body: Any
    seconds: float

    @property
    def message(self) -> str:
        """The error's own words, if it has any."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return str(error.get("message", "")) if isinstance(error, dict) else ""

    @property
    def first(self) -> dict[str, Any]:
        """The first object of `data`, which DataFast gives as a list or bare."""
        data = self.body.get("data", self.body) if isinstance(self.body, dict) else {}
        data = data[0] if isinstance(data, list) and data else data
        return data if isinstance(data, dict) else {}


class Client:
    """One destination's API; in a `with`, so that its connections are closed."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["User-Agent"] = f"datafast-relay/{__version__}"
        self._session.headers["Authorization"] = f"Bearer {destination.api_key}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def metadata(self) -> Answer:
        """Which site the key is for."""
        return self._ask("GET", "/api/v1/analytics/metadata")

    def integrations(self) -> Answer:
        """Which providers DataFast itself is connected to; for account tokens."""
        return self._ask(
            "GET", f"/api/v1/admin/websites/{self.destination.website_id}/integrations"
        )

    def post(self, body: Mapping[str, Any]) -> Answer:
        """Post a payment outside of the way of an event; for probes on a throw-away site."""
        return self._ask("POST", "/api/v1/payments", json=dict(body))

    def delete(
        self,
        transaction_id: str | None = None,
        visitor_id: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> Answer:
        """Delete payments and free trials. Both spellings of the range are sent, as both are seen."""
        params = {
            "transaction_id": transaction_id,
            "datafast_visitor_id": visitor_id,
            "startAt": iso(start) if start else None,
            "start": iso(start) if start else None,
            "endAt": iso(end) if end else None,
            "end": iso(end) if end else None,
        }
        return self._ask("DELETE", "/api/v1/payments", {k: v for k, v in params.items() if v})

    def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        **more: Any,  # noqa: ANN401
    ) -> Answer:
        """Raises RelayError(unreachable)."""
        site = {"websiteId": self.destination.website_id} if self.destination.website_id else {}
        timeout = (self.destination.connect_timeout, self.destination.read_timeout)
        try:
            response = self._session.request(
                method,
                self.destination.base_url + path,
                params={**site, **(params or {})},
                timeout=timeout,
                allow_redirects=False,
                **more,
            )
        except requests.RequestException as error:
            name = type(error).__name__
            msg = f"{self.destination.name}: {self.destination.base_url} gave no answer ({name})"
            raise RelayError("unreachable", msg) from None
        try:
            body = response.json()
        except ValueError:
            body = None
        return Answer(response.status_code, body, response.elapsed.total_seconds())
