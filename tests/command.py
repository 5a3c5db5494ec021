"""Running a command in this process: what it printed, and its exit code."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from click.testing import CliRunner

from relay import cli


@dataclass(frozen=True)
class Ran:
    """One command that has ended. Standard output is no terminal, as in a pipe."""

    code: int
    stdout: bytes
    err: str

    @property
    def out(self) -> str:
        return self.stdout.decode()


def run(
    *args: object, said: str | None = None, environ: Mapping[str, str | None] | None = None
) -> Ran:
    """Run `relay args…` with `said` on standard input. What is not caught there fails the test."""
    code: object = 0
    env = {"RELAY_CONFIG": None, **(environ or {})}
    with CliRunner().isolation(input=said, env=env) as (stdout, stderr, _):
        try:
            cli.main([str(arg) for arg in args])
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush()
        sys.stderr.flush()
        return Ran(int(str(code or 0)), stdout.getvalue(), stderr.getvalue().decode())
