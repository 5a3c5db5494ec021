"""Commands that run something: serve, web, worker, check, sandbox, demo."""

import re
import sys
from pathlib import Path

import click

from relay import config as configuration
from relay.cli.options import PROVIDER, config_option
from relay.config.schemas import ADDRESS
from relay.errors import ConfigError
from relay.provider import Provider


def address(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Address and port."""
    if value is not None and not re.match(ADDRESS, value):
        raise click.BadParameter("write address:port, such as 127.0.0.1:8080", ctx, param)
    return value


bind_option = click.option(
    "--bind", metavar="H:P", callback=address, help="Listen here instead of server.bind."
)


@click.command()
@config_option
@bind_option
def serve_command(file: Path, bind: str | None) -> None:
    """Receive and deliver: web and worker on one machine, supervised.

    SIGTERM drains and loses nothing; SIGHUP reads the configuration again, and keeps the old one
    if the new one is wrong.
    """
    supervise(file, bind)


@click.command()
@config_option
@bind_option
def web_command(file: Path, bind: str | None) -> None:
    """Receive only; for several machines over PostgreSQL."""
    supervise(file, bind, delivery=False)


@click.command()
@config_option
def worker_command(file: Path) -> None:
    """Deliver only; for several machines over PostgreSQL."""
    supervise(file, None, web=False)


def supervise(file: Path, bind: str | None, *, web: bool = True, delivery: bool = True) -> None:
    """Run until SIGTERM."""
    from relay import log
    from relay.serve import Supervisor

    config = configuration.load(file)
    log.configure(config.log_level)
    Supervisor(file, config, bind=bind, web=web, delivery=delivery).run()


@click.command()
@config_option
def check_command(file: Path) -> None:
    """Is the configuration right? Every mistake with its line, and what to write instead."""
    try:
        config = configuration.load(file)
    except ConfigError as error:
        click.echo(error.message, err=True)
        count = len(error.problems)
        click.echo(f"{count} {'mistake' if count == 1 else 'mistakes'}", err=True)
        sys.exit(1)
    click.echo(f"{file}: right")
    base = config.server.public_url.rstrip("/")
    for source in config.sources.values():
        secret = "/<secret>" if source.provider.signature.place == "url" else ""
        url = f"{base}/webhooks/{source.name}{secret}"
        click.echo(f"  {source.provider.title}: {url} -> {source.destination.name}")


@click.command()
@click.option(
    "--bind", metavar="H:P", default="127.0.0.1:8081", callback=address, show_default=True
)
@click.option(
    "--refunds",
    type=click.Choice(["original_id", "refund_id"]),
    default="original_id",
    show_default=True,
    help="Which transaction_id a refund must carry; DataFast does not say.",
)
@click.option(
    "--rate-limit",
    type=click.IntRange(0),
    default=60,
    show_default=True,
    help="Requests a minute and token; 0 for none.",
)
@click.option(
    "--database",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the records in this SQLite file, not in memory.",
)
def sandbox_command(bind: str, refunds: str, rate_limit: int, database: Path | None) -> None:
    """DataFast's Payments API, embedded: for tries and tests. It is not DataFast."""
    from relay import log
    from relay.sandbox import Options
    from relay.sandbox.serve import serve

    if database and not database.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {database.absolute().parent}")
    log.configure("info")
    file = str(database) if database else None
    serve(bind, Options(refunds=refunds, rate_limit=rate_limit, database=file))  # type: ignore[arg-type]


@click.command()
@click.option("--stay", is_flag=True, help="Keep the relay and the sandbox up afterwards.")
@click.option(
    "--only", metavar="PROVIDER", type=PROVIDER, multiple=True, help="Only this provider."
)
def demo_command(*, stay: bool, only: tuple[Provider, ...]) -> None:
    """Send one signed webhook of every kind all the way into the sandbox, and show what came."""
    from relay.demo import demo

    sys.exit(demo(stay=stay, only=tuple(it.name for it in only)))
