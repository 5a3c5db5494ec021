"""Options that several commands share."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from relay.config import DEFAULT_FILE
from relay.model import Headers

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """`--config F`, as a path."""
    return click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=DEFAULT_FILE,
        envvar="RELAY_CONFIG",
        show_default=True,
        show_envvar=True,
        help="The configuration.",
    )(function)


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


def _headers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Headers:
    pairs = [value.partition(":") for value in values]
    for name, colon, _ in pairs:
        if not colon or not name.strip():
            raise click.BadParameter("write a header as 'Name: value'", ctx, param)
    return Headers([(name.strip(), value.strip()) for name, _, value in pairs])


def _settings(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str | bool]:
    pairs = [value.partition("=") for value in values]
    if not all(equals for _, equals, _ in pairs):
        raise click.BadParameter("write a setting as name=value", ctx, param)
    words = {"true": True, "false": False}
    return {name: words.get(value, value) for name, _, value in pairs}
