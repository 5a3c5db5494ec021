"""What the money means: explain, repair."""

from datetime import UTC, datetime
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from relay.cli.events import named, opened
from relay.cli.options import config_option, console
from relay.explain import explain


@click.command()
@click.argument("name", metavar="EVENT|TRANSACTION")
@config_option
def explain_command(name: str, file: Path) -> None:
    """Say in plain sentences what was decided, and from which evidence.

    EVENT is its number or the provider's event id; of a TRANSACTION all events are explained.
    """
    with opened(file) as store:
        better = {row.event: row.repair for row in store.repairs()}
        found = [(store.shown(number), better.get(number)) for number in named(store, name)]
    for index, (shown, repair) in enumerate(found):
        if index:
            click.echo()
        for sentence in explain(shown, repair):
            click.echo(sentence)


@click.command()
@click.argument("name", metavar="[EVENT|TRANSACTION]", required=False)
@config_option
@click.option("--destination", help="Only payments of this destination.")
@click.option("--dry-run", is_flag=True, help="Only show what would be sent again.")
def repair_command(name: str | None, file: Path, destination: str | None, *, dry_run: bool) -> None:
    """Send again what is known better by now: a visitor found later, a renewal that looked new.

    Each is deleted at DataFast and posted anew, with its own time, by the running worker.
    """
    with opened(file) as store:
        rows = store.repairs([destination] if destination else None)
        if name is not None:
            wanted = set(named(store, name))
            rows = [row for row in rows if row.event in wanted]
        if not dry_run and rows:
            store.repair([row.event for row in rows], datetime.now(UTC))
    if dry_run and rows:
        table = Table("event", "source", "kind", "transaction", "known better", box=None)
        for row in rows:
            shown = (str(row.event), row.source, row.kind, row.transaction_id, row.repair)
            table.add_row(*map(escape, shown))
        console().print(table)
    verb = "would send again" if dry_run else "sending again"
    click.echo(f"{verb}: {len(rows)} payment{'' if len(rows) == 1 else 's'}")
