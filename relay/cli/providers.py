"""The providers: what exists, and how to set one up."""

import click
from rich.markup import escape
from rich.table import Table

from relay import provider
from relay.cli.options import PROVIDER, console
from relay.provider import Provider


@click.command()
@click.argument("known", metavar="[NAME]", type=PROVIDER, required=False)
@click.option("--markdown", is_flag=True, help="As the table of the README.")
def providers_command(known: Provider | None, *, markdown: bool) -> None:
    """The providers that exist; with NAME: how to set it up, step by step."""
    if known is None:
        print_table(markdown=markdown)
    else:
        click.echo(set_up(known))


HEADINGS = ("provider", "in the configuration", "signature", "webhook", "visitor id")


def rows() -> list[tuple[str, ...]]:
    """The table of providers, one row each."""
    return [
        (
            each.title,
            each.name,
            each.signature.summary,
            "thin: asks the API" if each.fetch else "complete",
            each.setup.visitor,
        )
        for each in map(provider.load, provider.names())
    ]


def print_table(*, markdown: bool) -> None:
    """For a terminal, or for the README."""
    if markdown:
        click.echo(markdown_table())
        return
    table = Table(*HEADINGS, box=None, pad_edge=False)
    for row in rows():
        table.add_row(*map(escape, row))
    console().print(table)


def markdown_table() -> str:
    """The README's table."""
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *rows()]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


# For the providers whose checkout takes nothing along.
TELLS_ITSELF = (
    "Your own page can tell it, before it sends somebody to pay: POST <public_url>/identify/<key>",
    "with the visitor's id and the e-mail address that will be paid with. The README has the code;",
    "`identify_key` and `identify_origins` of the destination open it.",
)


def set_up(known: Provider) -> str:
    """How to set the provider up, as text."""
    setup = known.setup
    ending = "/<secret>" if known.signature.place == "url" else ""
    lines = [
        known.title,
        f"documentation: {known.docs}",
        "",
        f"1. URL to paste: <public_url>/webhooks/<source>{ending}",
        f"   where: {setup.where}",
        f"2. Events to tick: {', '.join(setup.events) or 'none to choose, all come'}",
        f"3. Secret: {setup.secret}",
        f"   signature: {known.signature.summary}",
        f"4. Visitor id: {setup.visitor}",
    ]
    if setup.checkout:
        lines += ["", *(f"   {line}" for line in setup.checkout.splitlines())]
    if "visitor" not in setup.checkout:
        lines += ["", *(f"   {line}" for line in TELLS_ITSELF)]
    if setup.notes:
        lines += ["", setup.notes]
    lines += ["", "In the configuration:", "", example(known)]
    return "\n".join(lines)


def example(known: Provider) -> str:
    """A source of this provider, as YAML."""
    lines = [
        "sources:",
        f"  {known.name}:",
        f"    provider: {known.name}",
        "    destination: main",
        "    secrets:",
        f"      - ${{{known.name.upper()}_SECRET}}",
    ]
    for setting in known.settings:
        shown = f"${{{known.name.upper()}_{setting.name.upper()}}}"
        if setting.default is not None and not setting.secret:
            shown = str(setting.default)
            shown = shown.lower() if isinstance(setting.default, bool) else shown
        lines.append(
            f"    {'' if setting.required else '# '}{setting.name}: {shown}  # {setting.help}"
        )
    return "\n".join(lines)
