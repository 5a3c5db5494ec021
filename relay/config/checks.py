"""What is wrong with one value, in words that say what to write instead; None if nothing is."""

import re
import warnings
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib.util import find_spec
from urllib.parse import urlsplit

from jmespath import exceptions, lexer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from relay import declared

_PLACEHOLDER = re.compile(r"<.*>|\.\.\.|…|x{4,}|change-?me|your[-_ ].*|todo|secret", re.IGNORECASE)
_PREFIX = re.compile(r"(whsec|dft?|live|test)_")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# What people write into JMESPath who think of another language, by the token it stumbles over.
_MEANT = {
    "=": "write == to compare",
    "-": 'a name with a dash stands in double quotes: "customer-id"',
    "$": "a path begins with its first name, without $",
}
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


def expression(text: str) -> str | None:
    """JMESPath that can be read, with the column of what cannot, and no function that is not there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PendingDeprecationWarning)  # `text` in backticks
            parsed = declared.Expression(text)
        told = next(_misused(text, parsed), None)
    except PendingDeprecationWarning:
        told = text.index("`"), "in backticks stands JSON; write a text in 'single quotes'"
    except exceptions.ParseError as error:
        told = error.lex_position, _out_of_place(error)
    except (ValueError, RecursionError):
        told = 0, "write the path of a value, such as data.id"
    return told and f"JMESPath, column {told[0] + 1}: {told[1]}"


def _out_of_place(error: exceptions.ParseError) -> str:
    token = error.token_value
    if token in {None, ""}:
        return "it ends too early"
    if isinstance(token, int):
        return f"write the number in backticks: `{token}`"
    if isinstance(error, exceptions.LexerError) and error.message.startswith("Unclosed"):
        return f"what begins with {token[0]} does not end"
    hint = _MEANT.get(token)
    return f"{token!r} is out of place here" + (f"; {hint}" if hint else "")


def _misused(text: str, parsed: declared.Expression) -> Iterator[tuple[int, str]]:
    """What JMESPath can read, and would not do what is meant."""
    before = ""
    for token in lexer.Lexer().tokenize(text):
        if before in {"eq", "ne"} and token["type"] == "quoted_identifier":
            word = token["value"]
            yield token["start"], f"\"{word}\" is the name of a field; write a text as '{word}'"
        before = token["type"]
    known = declared.Functions.FUNCTION_TABLE
    for name, count in parsed.calls():
        at = text.find(f"{name}(")
        if name not in known:
            yield at, unknown(name, known, "function")
        else:
            wanted = known[name]["signature"]
            if count < len(wanted) or (count > len(wanted) and not wanted[-1].get("variadic")):
                yield at, f"{name}() takes {len(wanted)}, not {count}"
