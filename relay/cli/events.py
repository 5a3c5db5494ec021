"""The store: list, show, replay."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import simplejson
from rich.markup import escape
from rich.table import Table

from relay import config as configuration
from relay import explain
from relay.cli.options import MOMENT, config_option, console
from relay.errors import RelayError
from relay.mapping import iso
from relay.model import State
from relay.store import Filter, Store, migrate

F = TypeVar("F", bound=Callable[..., Any])


def filter_options(function: F) -> F:
    """The options that choose events."""
    for option in (
        click.option("--until", type=MOMENT, help="Received before this time (ISO 8601)."),
        click.option("--since", type=MOMENT, help="Received at this time or later (ISO 8601)."),
        click.option("--transaction-id", help="Of this movement of money."),
        click.option("--type", help="Of this event type of the provider's."),
        click.option(
            "--state", type=click.Choice([it.value for it in State]), help="In this state."
        ),
        click.option("--source", help="From this source."),
    ):
        function = option(function)
    return function


def chosen(wanted: dict[str, Any]) -> Filter:
    """The filter that the options say."""
    state = wanted.pop("state")
    return Filter(**wanted, state=State(state) if state else None)


@contextmanager
def opened(file: Path) -> Iterator[Store]:
    """The configured store. Raises ConfigError and StoreUnavailableError."""
    config = configuration.load(file)
    migrate(config.database)
    store = Store(config.database)
    try:
        yield store
    finally:
        store.close()


@click.group()
def events_command() -> None:
    """Look into the store: what came, what became of it; and send it again."""


@events_command.command("list")
@config_option
@filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option(
    "--waiting",
    is_flag=True,
    help="Open questions only: what waits, until when and why; what was sent and lacks something.",
)
def list_events(
    file: Path,
    limit: int,
    *,
    as_json: bool,
    waiting: bool,
    **wanted: Any,  # noqa: ANN401
) -> None:
    """List events, the newest first."""
    filter = chosen(wanted)
    if waiting and filter != Filter():
        raise click.UsageError("--waiting shows all open questions; leave the filters out")
    with opened(file) as store:
        if waiting:
            list_waiting(store.waiting(limit), as_json=as_json)
            return
        rows = store.listed(filter, limit)
    if as_json:
        for row in rows:
            click.echo(simplejson.dumps(as_shown(row)))
        return
    table = Table(
        "id", "received", "source", "type", "state", "kind", "transaction", "reason", box=None
    )
    for row in rows:
        received = row.received_at.strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(
            *map(
                escape,
                (
                    str(row.id),
                    received,
                    row.source,
                    row.type,
                    row.state.value,
                    row.kind or "",
                    row.transaction_id or "",
                    row.reason,
                ),
            )
        )
    console().print(table if rows else "no events")


def list_waiting(found: list[tuple[str, Any]], *, as_json: bool) -> None:
    """The open questions: `until` is when an event goes on with what is known then."""
    table = Table("id", "source", "type", "transaction", "waits for", "until", box=None)
    for lacking, row in found:
        question = lacking or explain.MEANINGS.get(row.reason.partition(":")[0], row.reason)
        if as_json:
            until = iso(row.due_at) if row.due_at else None
            line = as_shown(row) | {"waits_for": question, "until": until}
            click.echo(simplejson.dumps(line))
            continue
        until = row.due_at.strftime("%Y-%m-%d %H:%M:%S") if row.due_at else "sent without it"
        shown = (str(row.id), row.source, row.type, row.transaction_id or "", question, until)
        table.add_row(*map(escape, shown))
    if not as_json:
        console().print(table if found else "nothing waits")


@events_command.command("show")
@click.argument("name", metavar="EVENT")
@config_option
@click.option("--body", is_flag=True, help="The request's body and nothing else, byte for byte.")
def show_event(name: str, file: Path, *, body: bool) -> None:
    """Show one event whole, with its request and its attempts, as JSON.

    EVENT is its number, the provider's event id, or a transaction id.
    """
    with opened(file) as store:
        numbers = named(store, name)
        if len(numbers) > 1:
            shown = ", ".join(str(number) for number in numbers)
            msg = f"{name!r} is the name of several events; say which: {shown}"
            raise RelayError("several_events", msg)
        found = store.shown(numbers[0])
    request = found["request"]
    if body:
        sys.stdout.buffer.write(request.body)
        return
    whole = {
        "event": as_shown(found["event"]),
        "request": {
            "method": request.method,
            "url": request.url,
            "headers": [[name, masked(name, value)] for name, value in request.headers.pairs],
            "body": request.body.decode("utf-8", "replace"),
        },
        "fetched": [
            {"path": it.path, "at": iso(it.fetched_at), "body": it.body.decode("utf-8", "replace")}
            for it in found["documents"]
        ],
        "attempts": [as_shown(row) for row in found["attempts"]],
    }
    click.echo(simplejson.dumps(whole, indent=2, ensure_ascii=False))


@events_command.command("replay")
@click.argument("name", metavar="[EVENT]", required=False)
@config_option
@filter_options
@click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
def replay_events(name: str | None, file: Path, *, dry_run: bool, **wanted: Any) -> None:  # noqa: ANN401
    """Make one event, or all that match the filter, go their way again, behind everything live.

    DataFast knows each payment by its transaction id, so what it has already is not counted twice.
    """
    filters = [chosen(wanted)]
    if name is None and filters == [Filter()]:
        raise click.UsageError("say which: an EVENT, or a filter such as --state dead")
    if name is not None and filters != [Filter()]:
        raise click.UsageError("an EVENT and a filter contradict each other; leave one out")
    now = datetime.now(UTC)
    with opened(file) as store:
        if name is not None:
            filters = [Filter(id=number) for number in named(store, name)]
        count = sum(store.counted(it) if dry_run else store.replay(it, now) for it in filters)
    click.echo(
        f"{'would replay' if dry_run else 'replaying'} {count} event{'' if count == 1 else 's'}"
    )


def named(store: Store, name: str) -> list[int]:
    """The numbers of the events called `name`, at least one. Raises RelayError(unknown_event)."""
    found = store.named(name)
    if not found:
        msg = f"there is no event {name!r}; `relay events list` shows what there is"
        raise RelayError("unknown_event", msg)
    return found


def as_shown(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row
    """A row as JSON can say it."""
    return {
        name: iso(value) if isinstance(value, datetime) else value
        for name, value in row._mapping.items()  # noqa: SLF001 - SQLAlchemy's public name for it
        if name not in {"lease", "gate"}
    }


def masked(name: str, value: str) -> str:
    """Signatures and credentials are of no use to a reader."""
    telling = ("signature", "authorization", "token", "cookie", "secret", "transmission-sig")
    return f"({len(value)} characters)" if any(word in name for word in telling) else value
