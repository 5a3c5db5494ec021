"""What several commands share: options, and how a table is printed."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from relay import config as configuration
from relay import declared, provider
from relay.config import DEFAULT_FILE, Source
from relay.errors import RelayError
from relay.model import Headers

F = TypeVar("F", bound=Callable[..., Any])


# Wide enough that no row is wrapped where a program reads it.
PIPED_WIDTH = 1_000


def console() -> Console:
    """Standard output; where it is no terminal, a row stays on its line."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = PIPED_WIDTH
    return out


def config_option(function: F) -> F:
    """`--config F`, as a path."""
    return click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=DEFAULT_FILE,
        envvar="RELAY_CONFIG",
        is_eager=True,  # a source is looked up in it while the other arguments are read
        show_default=True,
        show_envvar=True,
        help="The configuration.",
    )(function)


def source_option(function: F) -> F:
    """`--source NAME`: one of the configuration, for what a provider's name does not say."""
    return click.option(
        "--source",
        metavar="NAME",
        is_eager=True,
        help="A source of the configuration: its settings, and the block of `mapping`.",
    )(function)


def source_named(name: str, file: Path) -> Source:
    """A source of the configuration. Raises ConfigError and BadParameter."""
    sources = configuration.load(file).sources
    if name not in sources:
        raise click.BadParameter(f"no source is called {name!r}; there are: {', '.join(sources)}")
    return sources[name]


def headers_option(function: F) -> F:
    """`--header 'K: V'`, as often as needed."""
    return click.option(
        "--header",
        "headers",
        multiple=True,
        metavar="'K: V'",
        callback=_headers,
        help="A header of the request, as often as needed.",
    )(function)


def settings_option(function: F) -> F:
    """`--setting K=V`, as often as needed."""
    return click.option(
        "--setting",
        "settings",
        multiple=True,
        metavar="K=V",
        callback=_settings,
        help="A setting of the source, as often as needed (`relay providers NAME` lists them).",
    )(function)


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
        if value == declared.NAME and ctx and "source" in ctx.params:
            return self._declared(param, ctx)
        try:
            return provider.load(value)
        except RelayError as error:
            self.fail(error.message, param, ctx)

    def _declared(self, param: click.Parameter | None, ctx: click.Context) -> provider.Provider:
        """What one source's `mapping:` block says. An option that is not given is no text yet."""
        source, file = ctx.params["source"], ctx.params.get("file")
        if not isinstance(source, str):
            self.fail("say whose block: --source NAME, and --config FILE", param, ctx)
        file = Path(file) if isinstance(file, str | Path) else Path(DEFAULT_FILE)
        found = source_named(source, file).provider
        if found.name != declared.NAME:
            self.fail(f"the provider of {source!r} is {found.name}", param, ctx)
        return found


class Content(click.ParamType[bytes]):
    """What is in a file, or on standard input for `-`."""

    name = "filename"

    def convert(
        self,
        value: str | bytes,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> bytes:
        """See click.ParamType."""
        if isinstance(value, bytes):
            return value
        try:
            with click.open_file(value, "rb") as file:
                return bytes(file.read())
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            self.fail(f"{value!r} cannot be read: {why}", param, ctx)


class Answer(click.ParamType[tuple[str | None, bytes]]):
    """What is in a file, and the path at which a provider's API answered so, if it is said."""

    name = "filename"

    def convert(
        self,
        value: str | tuple[str | None, bytes],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str | None, bytes]:
        """See click.ParamType. `/v1/payments/1?embed=refunds=FILE`: the last = is ours."""
        if isinstance(value, tuple):
            return value
        path, _, file = value.rpartition("=")
        named = path.startswith("/") and not Path(value).exists()
        return (
            (path, CONTENT.convert(file, param, ctx))
            if named
            else (
                None,
                CONTENT.convert(value, param, ctx),
            )
        )


class Moment(click.ParamType[datetime]):
    """An ISO 8601 time; without a zone it is in UTC."""

    name = "time"

    def convert(
        self,
        value: str | datetime,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> datetime:
        """See click.ParamType."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is no time such as 2026-05-02 or 2026-05-02T10:00:00Z", param, ctx
            )
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)


MOMENT = Moment()
PROVIDER = Provider()
CONTENT = Content()
ANSWER = Answer()


def _headers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Headers:
    pairs = [value.partition(":") for value in values]
    for name, colon, _ in pairs:
        if not colon or not name.strip():
            raise click.BadParameter("write a header as 'Name: value'", ctx, param)
    return Headers([(name.strip(), value.strip()) for name, _, value in pairs])


def _settings(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    if not all(equals for _, equals, _ in pairs):
        raise click.BadParameter("write a setting as name=value", ctx, param)
    return {name: value for name, _, value in pairs}
