"""Is all well, against the real destination? Each finding says what to do."""

import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal
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
        with socket.create_connection(address[:2], destination.connect_timeout) as plain:
            connected = time.perf_counter()
            if parts.scheme == "https":
                with ssl.create_default_context().wrap_socket(
                    plain, server_hostname=parts.hostname
                ):
                    pass
        secured = time.perf_counter()
        date = requests.head(destination.base_url, timeout=10, allow_redirects=False).headers.get(
            "Date"
        )
    except (OSError, requests.RequestException) as error:
        yield Finding("bad", subject, f"{destination.base_url} cannot be reached: {error}")
        return
    steps = (("DNS", named - begun), ("TCP", connected - named), ("TLS", secured - connected))
    yield Finding("ok", subject, ", ".join(f"{name} {took * 1000:.0f} ms" for name, took in steps))
    if date:
        off = (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
        level: Literal["ok", "bad"] = "ok" if abs(off) < CLOCK_OFF_S else "bad"
        advice = "" if level == "ok" else "; set the clock (NTP): signatures are checked against it"
        yield Finding(
            level, f"{destination.name}: clock", f"{off:+.0f} s against the destination{advice}"
        )


def key(destination: Destination) -> Iterator[Finding]:
    """Whether the key is good, and for which site. Asks a reading endpoint, never the writing one."""
    subject = f"{destination.name}: key"
    try:
        answer = Client(destination).metadata()
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
        answer = Client(destination).integrations()
    except RelayError as error:
        yield Finding("bad", subject, error.message)
        return
    if answer.status != 200:
        yield Finding("warn", subject, f"the integrations cannot be read ({answer.status})")
        return
    connected = {name.lower() for name, on in answer.first.items() if on}
    twice = sorted(relayed & connected)
    if twice:
        msg = (
            f"connected to DataFast and relayed as well: {', '.join(twice)}; take one of them away"
        )
        yield Finding("bad", subject, msg)
    else:
        yield Finding("ok", subject, "no relayed provider is connected natively")


def public_url(config: Config) -> Iterator[Finding]:
    """Whether the relay reaches itself under the URL the providers use."""
    url = config.server.public_url.rstrip("/")
    try:
        answer = requests.get(f"{url}/healthz", timeout=10, allow_redirects=False)
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
    client = Client(destination)
    id = f"relay-probe-{secrets.token_hex(6)}"
    body = {
        "amount": 1,
        "currency": "USD",
        "transaction_id": id,
        "timestamp": iso(datetime.now(UTC)),
    }
    try:
        paid = client.post(body)
        refunded = client.post({**body, "refunded": True})
        client.delete(transaction_id=id)
    except RelayError as error:
        yield Finding("bad", subject, error.message)
        return
    results = []
    for what, answer in (("payment", paid), ("refund", refunded)):
        text = requests.compat.json.dumps(answer.body)
        results.append(classify(answer.status, text, {}, id, datetime.now(UTC)).result)
        yield Finding("ok", subject, f"{what}: {answer.status} {text[:200]}")
    policy = {Result.REFUNDED: "original_id", Result.DUPLICATE: "refund_id"}.get(results[1])
    if policy is None:
        yield Finding("warn", subject, f"the answer reads as {results[1]}; keep `refunds: auto`")
    else:
        yield Finding("ok", subject, f"this destination wants `refunds: {policy}`")
