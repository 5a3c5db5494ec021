"""Commands about single requests: send, map, verify."""

import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import simplejson

from relay import config as configuration
from relay import diagnose, fetch, money, preview, provider, samples
from relay.cli.options import (
    ANSWER,
    CONTENT,
    MOMENT,
    PROVIDER,
    config_option,
    headers_option,
    settings_option,
    source_named,
    source_option,
)
from relay.config import DEFAULT_FILE, Source, checks
from relay.model import Document, Headers, Received, Trust

body_argument = click.argument("body", metavar="FILE", type=CONTENT)


def settings_of(
    known: provider.Provider, given: Mapping[str, str], source: Source | None = None
) -> dict[str, Any]:
    """The provider's (or source's) settings with what was given; a UsageError for what it lacks."""
    found = dict(source.settings) if source else known.defaults()
    for name, value in given.items():
        setting = next((it for it in known.settings if it.name == name), None)
        if setting is None:
            raise click.UsageError(f"{known.title}: {checks.unknown(name, found)}")
        if setting.choices and value not in setting.choices:
            raise click.UsageError(f"{name} is one of: {', '.join(setting.choices)}")
        if isinstance(setting.default, bool) and value not in {"true", "false"}:
            raise click.UsageError(f"{name} is true or false")
        found[name] = value == "true" if isinstance(setting.default, bool) else value
    return found


def owner_of(known: provider.Provider, source: str | None, file: Path | None) -> Source | None:
    """The source that is meant, if one is named; a UsageError if it is another provider's."""
    owner = source_named(source, file or Path(DEFAULT_FILE)) if source else None
    if owner and owner.provider.name != known.name:
        raise click.UsageError(f"the provider of {source!r} is {owner.provider.name}")
    return owner


def currency_code(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A code of ISO 4217."""
    if value is not None and money.exponent(value) is None:
        raise click.BadParameter(f"{value!r} is no code of ISO 4217, such as EUR", ctx, param)
    return value


def web_address(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """An address such as https://relay.example.com."""
    if value is not None and not re.match(r"https?://[^/\s]+", value):
        raise click.BadParameter("write a whole address: http://127.0.0.1:8080", ctx, param)
    return value.rstrip("/") if value else None


provider_argument = click.argument("known", metavar="PROVIDER", type=PROVIDER)


@click.command()
@provider_argument
@body_argument
@headers_option
@click.option("--content-type", help="The request's content type, if it is not in a --header.")
@click.option(
    "--fetched",
    type=ANSWER,
    multiple=True,
    metavar="[PATH=]FILE",
    help="An answer of the provider's API, as it came, and the path that was asked; several times.",
)
@click.option(
    "--currency",
    callback=currency_code,
    help="The source's currency, for providers that name none.",
)
@click.option("--at", type=MOMENT, help="When it was received, for what tells no time (ISO 8601).")
@settings_option
@source_option
@config_option
def map_command(
    known: provider.Provider,
    body: bytes,
    headers: Headers,
    content_type: str | None,
    fetched: tuple[tuple[str | None, bytes], ...],
    currency: str | None,
    at: datetime | None,
    settings: dict[str, str],
    source: str | None,
    file: Path,
) -> None:
    """Map one saved request body, without a server, a secret or a database; JSON on stdout.

    Exit code 1 if it cannot be mapped, with the path of what is wrong on stderr.
    """
    now = at or datetime.now(UTC)
    owner = owner_of(known, source, file)
    if headers.get("content-type") is None:
        headers = headers.replaced(content_type=content_type or guessed_type(body))
    found = preview.preview(
        known,
        Received(body, headers, now, url=f"https://relay.example.com/webhooks/{known.name}"),
        settings=settings_of(known, settings, owner),
        documents=[Document(path, answer, now) for path, answer in fetched],
        currency=currency or (owner.currency if owner else None),
    )
    click.echo(simplejson.dumps(found, use_decimal=True, indent=2, ensure_ascii=False))


def guessed_type(body: bytes) -> str:
    """What a saved body most probably was sent as."""
    if body.lstrip().startswith((b"{", b"[")):
        return "application/json"
    if body.lstrip().startswith(b"<"):
        return "application/xml"
    return "application/x-www-form-urlencoded"


@click.command()
@provider_argument
@body_argument
@click.option("--secret", "secrets", multiple=True, required=True, help="The source's secret.")
@headers_option
@click.option("--url", default="", help="The URL it was sent to, as the provider knows it.")
@click.option("--at", type=MOMENT, help="When it was received (ISO 8601); now, if left out.")
@click.option("--tolerance", type=float, default=300, show_default=True, help="In seconds.")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    is_eager=True,
    help="Also try the secrets of this configuration's sources.",
)
@settings_option
@source_option
def verify_command(
    known: provider.Provider,
    body: bytes,
    secrets: tuple[str, ...],
    headers: Headers,
    url: str,
    at: datetime | None,
    tolerance: float,
    file: Path | None,
    settings: dict[str, str],
    source: str | None,
) -> None:
    """Is the signature of a saved request good? And if not, which mistake would explain it?"""
    request = Received(
        body=body,
        headers=headers,
        received_at=at or datetime.now(UTC),
        url=url,
        url_secret=urlsplit(url).path.rpartition("/")[2] or None,
    )
    owner = owner_of(known, source, file)
    trust = Trust(secrets, tolerance, settings_of(known, settings, owner), fetch.download)
    sources = configuration.load(file).sources.values() if file else ()
    others = {it.name: it.secrets for it in sources}
    verdict = diagnose.diagnose(known, request, trust, others)
    if verdict.good:
        click.echo("good")
        return
    click.echo(f"bad: {verdict.reason}: {verdict.message}")
    if verdict.hint:
        click.echo(f"but: {verdict.hint}")
    sys.exit(1)


@click.command()
@click.argument("name", metavar="SOURCE")
@click.argument("sample", required=False)
@config_option
@click.option(
    "--to",
    metavar="URL",
    callback=web_address,
    help="The relay's address; http:// and server.bind, if left out.",
)
def send_command(name: str, sample: str | None, file: Path, to: str | None) -> None:
    """Sign a bundled sample with the source's secret and post it to the running relay.

    Without SAMPLE it lists the samples.
    """
    from relay import flow, rehearse

    config = configuration.load(file)
    source = config.sources.get(name)
    if source is None:
        known = ", ".join(config.sources)
        raise click.BadParameter(f"no source is called {name!r}; there are: {known}")
    recorded = {it.name: it for it in samples.of(source.provider.name)}
    if sample is None:
        for each in recorded.values():
            click.echo(f"{each.name:45} {rehearse.summary(each)}")
        return
    if sample not in recorded:
        raise click.BadParameter(f"there is no sample {sample!r}; `relay send {name}` lists them")
    address = to or f"http://{config.server.bind}"
    request = rehearse.addressed(recorded[sample], config.server.public_url, name)
    signed = source.provider.signature.sign(request, flow.trust(source))
    answer = rehearse.post(f"{address}/webhooks/{name}", signed)
    click.echo(f"{answer.status_code} in {answer.elapsed.total_seconds() * 1000:.1f} ms")
    if answer.status_code >= 300:
        click.echo(answer.text, err=True)
        sys.exit(1)
