"""The command line.

Exit codes: 0 it is so, 1 it is not (or could not be done), 2 wrong usage. What a script reads is
on stdout; what a person reads about a failure is on stderr.
"""

import importlib
import sys
from collections.abc import Sequence

import click

from relay import __version__
from relay.errors import RelayError

# Where each command lives. A module is imported when its command is used: `--help` stays quick.
COMMANDS = {
    "serve": "run",
    "web": "run",
    "worker": "run",
    "check": "run",
    "sandbox": "run",
    "demo": "run",
    "send": "requests",
    "map": "requests",
    "verify": "requests",
    "events": "events",
    "explain": "ledger",
    "repair": "ledger",
    "delete": "datafast",
    "doctor": "datafast",
    "providers": "providers",
}


class Commands(click.Group):
    """The commands, in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click.Group."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click.Group."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"relay.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="relay")
def relay() -> None:
    """Every payment, from any provider, into DataFast, once."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; say in one line what went wrong."""
    try:
        relay(args, prog_name="relay")
    except RelayError as error:
        click.echo(f"relay: {error.message}", err=True)
        sys.exit(1)
