"""The providers: what exists, and how to set one up."""

import re

import click
from rich.markup import escape
from rich.table import Table

from relay import declared, provider, samples
from relay.cli.options import PROVIDER, console
from relay.provider import Provider


def _known(ctx: click.Context, param: click.Parameter, name: str | None) -> Provider | str | None:
    """The provider called `name`; of `mapping`, which the configuration declares, the name."""
    return name if name in {None, declared.NAME} else PROVIDER.convert(name, param, ctx)


@click.command()
@click.argument("known", metavar="[NAME]", callback=_known, required=False)
@click.option("--markdown", is_flag=True, help="As the table of the README.")
def providers_command(known: Provider | str | None, *, markdown: bool) -> None:
    """The providers that exist; with NAME: how to set it up, step by step."""
    if known is None:
        print_table(markdown=markdown)
    elif isinstance(known, str):
        click.echo(declared.SKELETON, nl=False)
    else:
        click.echo(set_up(known))


HEADINGS = (
    "provider",
    "in the configuration",
    "signature",
    "proved by",
    "webhook",
    "first or renewal",
    "refund",
    "dispute",
    "trial",
    "visitor id",
)
PROOFS = {"published": "vector", "sdk": "SDK", "formula": "formula"}


def rows() -> list[tuple[str, ...]]:
    """The table of providers, one row each. What one tells, its recorded requests show."""
    return [row(each) for each in map(provider.load, provider.names())]


def row(known: Provider) -> tuple[str, ...]:
    """What there is to know of a provider before one chooses it."""
    recorded = samples.of(known.name)
    told = [entry for it in recorded for entry in it.expected.get("payments", [])]
    kinds = {entry["kind"] for entry in told}
    proofs = {it.proof for it in recorded}
    dispute = "and won again" if "reinstated" in kinds else "yes"
    return (
        known.title,
        known.name,
        known.signature.summary,
        ", ".join(word for proof, word in PROOFS.items() if proof in proofs) or "nothing signed",
        "thin: asks the API" if known.fetch else "complete",
        places({entry["recurrence"] for entry in told}),
        "yes" if "refund" in kinds else "not told",
        dispute if "dispute" in kinds else "not told",
        "yes" if "trial" in kinds else "not told",
        re.split(r"[.:;] ", known.setup.visitor + " ")[0],
    )


def places(recurrences: set[str | None]) -> str:
    """By what a subscription's charges are told apart: the event's own word, or the ledger."""
    by_event = bool(recurrences & {"first", "renewal"})
    if "unknown" in recurrences:
        return "event, else memory" if by_event else "memory"
    return "event" if by_event else "no subscriptions"


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
