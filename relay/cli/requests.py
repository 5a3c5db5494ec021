"""Commands about single requests: send, map, verify."""

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import click
import simplejson

from relay import config as configuration
from relay import diagnose, fetch, preview, provider, samples
from relay.cli.options import MOMENT, config_option, headers_option, settings_option
from relay.errors import RelayError
from relay.model import Document, Headers, Received, Trust

body_argument = click.argument("body", metavar="FILE", type=click.File("rb"))


class Provider(click.ParamType[provider.Provider]):
    """A provider's name."""

    name = "provider"

    def convert(
        self,
        value: str | provider.Provider,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> provider.Provider:
        """See click.ParamType."""
        if isinstance(value, provider.Provider):
            return value
        try:
            return provider.load(value)
        except RelayError as error:
            self.fail(error.message, param, ctx)


provider_argument = click.argument("known", metavar="PROVIDER", type=Provider())


@click.command()
@provider_argument
@body_argument
@headers_option
@click.option("--content-type", help="The request's content type, if it is not in a --header.")
@click.option(
    "--fetched",
    type=click.File("rb"),
    multiple=True,
    metavar="FILE",
    help="An answer of the provider's API, as it came; in the order of asking.",
)
@click.option("--currency", help="The source's currency, for providers that name none.")
@settings_option
def map_command(
    known: provider.Provider,
    body: BinaryIO,
    headers: Headers,
    content_type: str | None,
    fetched: tuple[BinaryIO, ...],
    currency: str | None,
    settings: dict[str, str | bool],
) -> None:
    """Map one saved request body, without a server, a secret or a database; JSON on stdout.

    Exit code 1 if it cannot be mapped, with the path of what is wrong on stderr.
    """
    now = datetime.now(UTC)
    raw = body.read()
    if headers.get("content-type") is None:
        headers = headers.replaced(content_type=content_type or guessed_type(raw))
    found = preview.preview(
        known,
        Received(raw, headers, now, url=f"https://relay.example.com/webhooks/{known.name}"),
        settings=settings,
        documents=[Document(None, file.read(), now) for file in fetched],
        currency=currency,
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
    help="Also try the secrets of this configuration's sources.",
)
@settings_option
def verify_command(
    known: provider.Provider,
    body: BinaryIO,
    secrets: tuple[str, ...],
    headers: Headers,
    url: str,
    at: datetime | None,
    tolerance: float,
    file: Path | None,
    settings: dict[str, str | bool],
) -> None:
    """Is the signature of a saved request good? And if not, which mistake would explain it?"""
    request = Received(
        body=body.read(),
        headers=headers,
        received_at=at or datetime.now(UTC),
        url=url,
        url_secret=urlsplit(url).path.rpartition("/")[2] or None,
    )
    trust = Trust(secrets, tolerance, known.defaults() | settings, fetch.download)
    sources = configuration.load(file).sources.values() if file else ()
    others = {it.name: it.secrets for it in sources if it.provider.name == known.name}
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
    "--to", metavar="URL", help="The relay's address; http:// and server.bind, if left out."
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
    request = replace(recorded[sample].request, received_at=datetime.now(UTC))
    signed = source.provider.signature.sign(request, flow.trust(source))
    answer = rehearse.post(f"{address}/webhooks/{name}", signed)
    click.echo(f"{answer.status_code} in {answer.elapsed.total_seconds() * 1000:.1f} ms")
    if answer.status_code >= 300:
        click.echo(answer.text, err=True)
        sys.exit(1)
