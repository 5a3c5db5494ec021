"""Recorded requests: one `.http` and one `.json` each, in a folder for each provider.

The `.http` is the request, byte for byte; the `.json` says where it comes from, what it is checked
with, and what it must become. They are the tests' fixtures, and what `relay send` and `relay demo`
send; `docs/add-a-provider.md` describes the fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import simplejson

import providers
from relay.errors import RelayError
from relay.model import Document, Headers, Received, Trust

_SEPARATOR = b"\n\n"


@dataclass(frozen=True)
class Sample:
    """One recorded request, and what it must become.

    `proof` says how its signature is known to be right: `published` by the provider, made by its
    `sdk`, or by the documented `formula`; `none` where there is nothing to sign. `downloads` are
    public documents by URL (certificates); `documents` the provider API's answers, in order.
    """

    provider: str
    name: str
    origin: str
    proof: str
    request: Received
    secrets: tuple[str, ...]
    expected: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    currency: str | None = None
    downloads: Mapping[str, bytes] = field(default_factory=dict)
    documents: tuple[Document, ...] = ()

    def trust(self, tolerance: float = 300) -> Trust:
        """What the sample is checked with; its downloads stand in for the network."""
        return Trust(self.secrets, tolerance, self.settings, self.download)

    def download(self, url: str) -> bytes:
        """The recorded public document at `url`."""
        try:
            return self.downloads[url]
        except KeyError:
            raise RelayError("not_recorded", f"no document is recorded for {url}") from None


def root() -> Path:
    """The folder of recorded requests: in an installed package, or in a checkout."""
    bundled = Path(providers.__path__[0]) / "samples"
    return bundled if bundled.is_dir() else Path(__file__).parents[1] / "tests" / "providers"


def of(provider: str, folder: Path | None = None) -> list[Sample]:
    """All recorded requests of one provider, by name."""
    home = (folder or root()) / provider
    return [read(path) for path in sorted(home.glob("*.http"))]


def read(path: Path) -> Sample:
    """One recorded request, from its `.http` (and the `.json` beside it)."""
    facts = simplejson.loads(path.with_suffix(".json").read_text("utf-8"), use_decimal=True)
    home, received_at = path.parent, datetime.fromisoformat(facts["received_at"])
    downloads = {
        url: (home / file).read_bytes() for url, file in facts.get("downloads", {}).items()
    }
    documents = tuple(
        Document(each["path"], (home / each["file"]).read_bytes(), received_at)
        for each in facts.get("fetched", [])
    )
    return Sample(
        provider=home.name,
        name=path.stem,
        origin=facts["origin"],
        proof=facts["proof"],
        request=parse(path.read_bytes(), received_at, facts.get("url_secret")),
        secrets=tuple(facts["secrets"]),
        expected=facts.get("expected", {}),
        settings=facts.get("settings", {}),
        currency=facts.get("currency"),
        downloads=downloads,
        documents=documents,
    )


def parse(raw: bytes, received_at: datetime, url_secret: str | None = None) -> Received:
    """A request as it stands in an `.http` file: lines end in LF, the body is what it is."""
    head, _, body = raw.partition(_SEPARATOR)
    first, *lines = head.decode("latin-1").split("\n")
    method, target, _ = first.split(" ", 2)
    headers = Headers(
        [(name, value.strip()) for name, _, value in (it.partition(":") for it in lines)]
    )
    host = headers.get("host") or "relay.example.com"
    return Received(
        body=body,
        headers=headers,
        received_at=received_at.astimezone(UTC),
        url=f"https://{host}{target}",
        method=method,
        url_secret=url_secret,
    )
