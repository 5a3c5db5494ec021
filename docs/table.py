"""Write the README's table of providers: it follows from the modules in `providers/`."""

from pathlib import Path

from relay.cli.providers import markdown_table

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "kept true by a test -->\n", "\n<!-- /providers -->"


def main() -> None:
    """Put the table between its markers."""
    before, begin, rest = README.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    README.write_text(before + begin + markdown_table() + end + after, "utf-8")


if __name__ == "__main__":
    main()
