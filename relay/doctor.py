"""Is all well, against the real destination? Each finding says what to do."""

import json
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import requests

from relay.config import Config, Destination
from relay.datafast import Client
from relay.errors import RelayError
from relay.forward import classify
from relay.mapping import iso
from relay.model import Result

CLOCK_OFF_S = 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `warn` is worth a look, `bad` needs one."""

    level: Literal["ok", "warn", "bad"]
    subject: str
    message: str


def examine(config: Config) -> Iterator[Finding]:
    """Look at every destination, the clock and the public URL, one finding after the other."""
    for destination in config.destinations.values():
        yield from connection(destination)
        yield from key(destination)
        yield from double_counting(config, destination)
    yield from public_url(config)


def connection(destination: Destination) -> Iterator[Finding]:
    """How far away the destination is, and whether our clock agrees with it."""
    subject = f"{destination.name}: connection"
    parts = urlsplit(destination.base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        begun = time.perf_counter()
        address = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)[0][4]
        named = time.perf_counter()
        host = str(address[0]), port
        with socket.create_connection(host, destination.connect_timeout) as plain:
            connected = time.perf_counter()
            if parts.scheme == "https":
                with ssl.create_default_context().wrap_socket(
                    plain, server_hostname=parts.hostname
                ):
                    pass
        secured = time.perf_counter()
        with requests.Session() as session:
            session.trust_env = False
            answer = session.head(destination.base_url, timeout=10, allow_redirects=False)
            date = answer.headers.get("Date")
    except (OSError, ValueError) as error:  # requests' own errors are OSErrors
        yield Finding("bad", subject, f"{destination.base_url} cannot be reached: {error}")
        return
    steps = (("DNS", named - begun), ("TCP", connected - named), ("TLS", secured - connected))
    yield Finding("ok", subject, ", ".join(f"{name} {took * 1000:.0f} ms" for name, took in steps))
    yield clock(destination, date or "", datetime.now(UTC))


def clock(destination: Destination, date: str, now: datetime) -> Finding:
    """Whether our clock agrees with the header `Date` of an answer."""
    subject = f"{destination.name}: clock"
    try:
        off = (now - parsedate_to_datetime(date).astimezone(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return Finding("warn", subject, "the destination does not tell its time")
    if abs(off) < CLOCK_OFF_S:
        return Finding("ok", subject, f"{off:+.0f} s against the destination")
    advice = "set the clock (NTP): signatures are checked against it"
    return Finding("bad", subject, f"{off:+.0f} s against the destination; {advice}")


def key(destination: Destination) -> Iterator[Finding]:
    """Whether the key is good, and for which site. Asks a reading endpoint, never the writing one."""
    subject = f"{destination.name}: key"
    try:
        with Client(destination) as client:
            answer = client.metadata()
    except RelayError as error:
        yield Finding("bad", subject, error.message)
        return
    if answer.status == 200:
        domain = answer.first.get("domain", "a site without a domain")
        yield Finding("ok", subject, f"good, for {domain}, in {answer.seconds * 1000:.0f} ms")
    else:
        yield Finding(
            "bad", subject, f"{answer.status}: {answer.message or 'refused'}; check api_key"
        )


def double_counting(config: Config, destination: Destination) -> Iterator[Finding]:
    """Whether a relayed provider is also connected to DataFast itself."""
    subject = f"{destination.name}: double counting"
    relayed = {it.provider.name for it in config.sources.values() if it.destination == destination}
    if not destination.website_id:
        yield Finding(
            "warn",
            subject,
            "a website key cannot tell which providers are connected natively; look at DataFast's "
            f"settings that none of these is: {', '.join(sorted(relayed)) or 'none relayed'}",
        )
        return
    try:
        with Client(destination) as client:
            answer = client.integrations()
    except RelayError as error:
        yield Finding("bad", subject, error.message)
        return
    if answer.status != 200:
        yield Finding("warn", subject, f"the integrations cannot be read ({answer.status})")
        return
    connected = {name.lower() for name, state in answer.first.items() if is_connected(state)}
    twice = sorted(relayed & connected)
    if twice:
        msg = (
            f"connected to DataFast and relayed as well: {', '.join(twice)}; take one of them away"
        )
        yield Finding("bad", subject, msg)
    else:
        yield Finding("ok", subject, "no relayed provider is connected natively")


def is_connected(state: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether an integration is on: `{"connected": true}`, or a bare true."""
    return state is True or (isinstance(state, dict) and state.get("connected") is True)


def public_url(config: Config) -> Iterator[Finding]:
    """Whether the relay reaches itself under the URL the providers use."""
    url = config.server.public_url.rstrip("/")
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(f"{url}/healthz", timeout=10, allow_redirects=False)
    except requests.RequestException as error:
        msg = f"{url}/healthz cannot be reached from here ({type(error).__name__}); is `relay serve` up?"
        yield Finding("bad", "public URL", msg)
        return
    if answer.status_code == 200 and answer.text.strip().startswith('{"status"'):
        yield Finding("ok", "public URL", f"{url} answers")
    else:
        msg = f"{url}/healthz answers {answer.status_code}, and not as the relay does; check the proxy"
        yield Finding("bad", "public URL", msg)


def probe_refunds(destination: Destination) -> Iterator[Finding]:
    """Post a payment, refund it under the original's id, read the answers, delete both.

    Only for a throw-away site: for a moment there is a payment of 1.00 that nobody made.
    """
    subject = f"{destination.name}: refunds"
    id = f"relay-probe-{secrets.token_hex(6)}"
    body = {
        "amount": 1,
        "currency": "USD",
        "transaction_id": id,
        "timestamp": iso(datetime.now(UTC)),
    }
    with Client(destination) as client:
        try:
            results = []
            for what, more in (("payment", {}), ("refund", {"refunded": True})):
                answer = client.post({**body, **more})
                text = json.dumps(answer.body)
                results.append(classify(answer.status, text, {}, id, datetime.now(UTC)).result)
                yield Finding("ok", subject, f"{what}: {answer.status} {text[:200]}")
            yield policy(subject, *results)
        except RelayError as error:
            yield Finding("bad", subject, error.message)
        yield from taken_away(client, subject, id)


def policy(subject: str, paid: Result, refunded: Result) -> Finding:
    """What the two answers say about refunds."""
    if paid not in {Result.ATTRIBUTED, Result.RECORDED}:
        return Finding("bad", subject, f"the payment was not recorded ({paid}); look at the key")
    wanted = {Result.REFUNDED: "original_id", Result.DUPLICATE: "refund_id"}.get(refunded)
    if wanted is None:
        return Finding("warn", subject, f"the answer reads as {refunded}; keep `refunds: auto`")
    return Finding("ok", subject, f"this destination wants `refunds: {wanted}`")


def taken_away(client: Client, subject: str, id: str) -> Iterator[Finding]:
    """Delete what the probe has left; what cannot be deleted is named."""
    try:
        status = client.delete(transaction_id=id).status
    except RelayError:
        status = 0
    if status not in {200, 404}:
        msg = f"the probe's payment may still be there; delete it: --transaction-id {id}"
        yield Finding("bad", subject, msg)
