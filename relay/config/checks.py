"""What is wrong with one value, in words that say what to write instead; None if nothing is."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

_PLACEHOLDER = re.compile(r"<.*>|\.\.\.|…|x{4,}|change-?me|your[-_ ].*|todo|secret", re.IGNORECASE)
_PREFIX = re.compile(r"(whsec|dft?|live|test)_")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_DRIVERS = {"sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg"}


def secret(text: str) -> str | None:
    """Neither empty nor what an example has in its place."""
    if not text.strip():
        return "this is empty; nothing would be checked with it"
    if _PLACEHOLDER.fullmatch(_PREFIX.sub("", text, count=1)):
        return "this is a placeholder; put the real one here"
    return None


def address(url: str) -> str | None:
    """Keys travel to this address: https, or this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        return "write a whole address, such as https://api.example.com"
    if parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK):
        return None
    return "this must begin with https://, since a key is sent there"


def database(url: str) -> str | None:
    """An engine that the relay knows, with all that it needs. The address may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername not in _DRIVERS:
        return "write sqlite:///relay.db, or postgresql://user:password@host/name"
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in {None, "", ":memory:"}:
            return "SQLite needs a file: write sqlite:///relay.db, or sqlite:////var/lib/relay.db"
    elif find_spec("psycopg") is None:
        return "PostgreSQL needs a driver: pip install 'datafast-relay[postgres]'"
    return None


def unknown(name: str, known: Iterable[str], what: str = "setting") -> str:
    """There is no such name; the nearest one, or all of them."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"there is no {what} {name!r}; did you mean {near[0]!r}?"
    return f"there is no {what} {name!r}; there are: {', '.join(known) or 'none'}"
