"""Commands that talk to DataFast: delete, doctor."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.markup import escape

from relay import config as configuration
from relay import doctor
from relay.cli.options import MOMENT, config_option, console
from relay.config import Config, Destination
from relay.datafast import Client

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

destination_option = click.option("--destination", "name", help="Which one, if there are several.")


def chosen(config: Config, name: str | None) -> Destination:
    """The destination that was named, or the only one."""
    if name is None and len(config.destinations) == 1:
        return next(iter(config.destinations.values()))
    if name is None or name not in config.destinations:
        known = ", ".join(config.destinations)
        raise click.UsageError(f"say which destination with --destination; there are: {known}")
    return config.destinations[name]


@click.command()
@config_option
@destination_option
@click.option("--transaction-id", help="This payment, refund or trial.")
@click.option("--visitor-id", help="All of this visitor's; with a range, those in it.")
@click.option("--from", "start", type=MOMENT, help="From this time (ISO 8601).")
@click.option("--to", "end", type=MOMENT, help="Up to this time (ISO 8601).")
@click.option(
    "--all-time", is_flag=True, help="Whenever it was: all of a visitor's, or all of the site's."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete_command(
    file: Path,
    name: str | None,
    transaction_id: str | None,
    visitor_id: str | None,
    start: datetime | None,
    end: datetime | None,
    *,
    all_time: bool,
    yes: bool,
) -> None:
    """Delete payments and free trials at DataFast. What the relay stored stays."""
    what = described(transaction_id, visitor_id, start, end, all_time=all_time)
    destination = chosen(configuration.load(file), name)
    if not yes:
        click.confirm(
            f"Delete {what} from {destination.name} at {destination.base_url}?", abort=True
        )
    if all_time and not visitor_id:  # DataFast wants a filter
        start, end = _FIRST, _LAST
    with Client(destination) as client:
        answer = client.delete(transaction_id, visitor_id, start, end)
    if answer.status != 200:
        click.echo(f"{answer.status}: {answer.message or 'refused'}", err=True)
        sys.exit(1)
    click.echo(f"deleted: {answer.first.get('message') or what}")


def described(
    transaction_id: str | None,
    visitor_id: str | None,
    start: datetime | None,
    end: datetime | None,
    *,
    all_time: bool,
) -> str:
    """What would be deleted, in words; a UsageError for what would be too much."""
    if transaction_id:
        if visitor_id or start or end or all_time:
            raise click.UsageError(
                "with --transaction-id DataFast ignores the other filters; leave them out"
            )
        return f"the record {transaction_id}"
    if (start is None) != (end is None):
        raise click.UsageError("a range has two ends: give --from and --to")
    if start and end:
        if all_time:
            raise click.UsageError("a range and --all-time contradict each other; leave one out")
        if start >= end:
            raise click.UsageError("--from must be before --to")
        whose = f"of the visitor {visitor_id} " if visitor_id else "of the whole site "
        return f"all payments and trials {whose}from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    if not visitor_id and not all_time:
        raise click.UsageError("say what: --transaction-id, --visitor-id, or --from and --to")
    if not visitor_id:
        return "ALL payments and trials of the whole site, of all time"
    if not all_time:
        raise click.UsageError(
            "without a range all records of all time go; if you mean it, add --all-time"
        )
    return f"all payments and trials of the visitor {visitor_id}, of all time"


@click.command()
@config_option
@destination_option
@click.option(
    "--probe-refunds",
    is_flag=True,
    help="On a THROW-AWAY site: create, refund, delete, and say which refund policy it needs.",
)
def doctor_command(file: Path, name: str | None, *, probe_refunds: bool) -> None:
    """Is all well: keys, clock, public URL, double counting, distance? Asks the real destination."""
    config = configuration.load(file)
    out = console()
    marks = {"ok": "[green]ok  [/]", "warn": "[yellow]look[/]", "bad": "[red]bad [/]"}
    findings = (
        doctor.probe_refunds(chosen(config, name)) if probe_refunds else doctor.examine(config)
    )
    all_well = True
    for finding in findings:
        told = escape(f"{finding.subject}: {finding.message}")
        out.print(f"{marks[finding.level]} {told}", soft_wrap=True)
        all_well &= finding.level != "bad"
    sys.exit(0 if all_well else 1)
