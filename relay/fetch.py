"""Asking a provider's API for what a thin webhook does not carry.

Two implementations of `relay.provider.Api`: `LiveApi` asks and notes each answer as it came;
`RecordedApi` gives noted answers again, for `relay map --fetched`, for replays and for tests.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import requests

from relay import __version__
from relay.errors import FetchError
from relay.model import Document
from relay.payload import Payload

TIMEOUT = (5, 15)
LARGEST = 2 * 1_048_576
DOCUMENTS_KEPT = 64
DOCUMENT_KEPT_S = 3_600.0
FAILURE_KEPT_S = 30.0

_local = threading.local()


class Downloads:
    """Public documents, such as certificates, kept by address.

    A failure is kept as well, for a short while: whoever sends invented addresses must not make
    the relay ask the provider each time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, bytes | FetchError]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, url: str) -> bytes:
        """The document at an address that the caller has checked. Raises FetchError."""
        with self._lock:
            until, found = self._kept.get(url, (0.0, b""))
        if until <= self._clock():
            found = self._ask(url)
        if isinstance(found, FetchError):
            raise found
        return found

    def _ask(self, url: str) -> bytes | FetchError:
        found: bytes | FetchError
        try:
            status, found = _get(url, {})
            if status != 200:
                found = FetchError(f"fetch_{status}", f"{urlsplit(url).hostname} answered {status}")
        except FetchError as error:
            found = error
        seconds = FAILURE_KEPT_S if isinstance(found, FetchError) else DOCUMENT_KEPT_S
        with self._lock:
            self._kept[url] = (self._clock() + seconds, found)
            while len(self._kept) > DOCUMENTS_KEPT:
                self._kept.popitem(last=False)
        return found


download = Downloads()


class LiveApi:
    """The provider's API at the source's `api_base`; never anywhere else, and no redirects."""

    def __init__(self, base: str) -> None:
        self._base = base.rstrip("/")
        self.documents: list[Document] = []

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        """See Api.get. Raises FetchError: permanent for 400, 404, 410 and 422."""
        return self._read(path, headers or {})

    def ask(self, path: str, question: Mapping[str, Any]) -> Payload:
        """See Api.ask. Raises FetchError as `get` does."""
        return self._read(path, {}, question)

    def _read(
        self, path: str, headers: Mapping[str, str], question: Mapping[str, Any] | None = None
    ) -> Payload:
        status, body = _get(self._base + path, headers, question)
        if status != 200:
            hint = {401: "; is the source's API key right?", 403: "; may the key read this?"}
            msg = f"the provider's API answered {status}{hint.get(status, '')}"
            raise FetchError(f"fetch_{status}", msg, permanent=status in {400, 404, 410, 422})
        self.documents.append(Document(path, body, datetime.now(UTC)))
        return _payload(body, path)

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        """See Api.get_or_none. Raises FetchError only for what may be better next time."""
        try:
            return self.get(path, headers)
        except FetchError as error:
            if error.permanent or error.reason in {"fetch_401", "fetch_403"}:
                return None
            raise


class RecordedApi:
    """Answers that were noted before. A document without a path is matched by what is in it."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._left = list(documents)
        self.documents = list(documents)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        """See Api.get. Raises FetchError(not_fetched) when no document is left for it."""
        found = self.get_or_none(path, headers)
        if found is None:
            found = self._next_unnamed(path)
        if found is None:
            msg = f"the answer of {path} is needed; hand it in with --fetched FILE"
            raise FetchError("not_fetched", msg, permanent=True)
        return found

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        """See Api.get_or_none."""
        for document in self._left:
            if document.path == path or (document.path is None and _is_about(document.body, path)):
                self._left.remove(document)
                return _payload(document.body, path)
        return None

    def ask(self, path: str, question: Mapping[str, Any]) -> Payload:
        """See Api.ask. Raises FetchError(not_fetched) when no document is left for it."""
        return self.get(path)

    def _next_unnamed(self, path: str) -> Payload | None:
        for document in self._left:
            if document.path is None:
                self._left.remove(document)
                return _payload(document.body, path)
        return None


def _is_about(body: bytes, path: str) -> bool:
    """Whether a nameless answer looks like the one of `path`: its very id, or else its kind."""
    *_, kind, last = PurePosixPath(urlsplit(path).path).parts
    value: Any = _payload(body, path).value
    if not isinstance(value, dict):
        return False
    inner = value.get(kind)
    id = (inner if isinstance(inner, dict) else value).get("id")
    return id == last if id is not None else kind in value or last in value


def _payload(body: bytes, path: str) -> Payload:
    return Payload.json(body.removeprefix(b"\xef\xbb\xbf"), f"$[{path}]")


def _get(
    url: str, headers: Mapping[str, str], question: Mapping[str, Any] | None = None
) -> tuple[int, bytes]:
    """Status and body, within TIMEOUT and LARGEST; by POST if there is a question. Raises FetchError."""
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
        _local.session.trust_env = False
        _local.session.headers["User-Agent"] = f"datafast-relay/{__version__}"
    try:
        with _local.session.request(
            "GET" if question is None else "POST",
            url,
            headers=headers,
            json=question,
            timeout=TIMEOUT,
            allow_redirects=False,
            stream=True,
        ) as response:
            body = b""
            for piece in response.iter_content(65_536):
                body += piece
                if len(body) > LARGEST:
                    msg = "the provider's answer is too large"
                    raise FetchError("fetch_too_large", msg, permanent=True)
            return response.status_code, body
    except requests.RequestException as error:
        msg = f"{urlsplit(url).hostname} gave no answer ({type(error).__name__})"
        raise FetchError("fetch_unavailable", msg) from None
