"""Documentation that no test reads goes stale: these read it."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from relay.cli import COMMANDS
from relay.cli.providers import markdown_table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_table_of_providers_is_the_one_that_the_command_prints() -> None:
    _, _, rest = README.partition("kept true by a test -->\n")
    table, end, _ = rest.partition("\n<!-- /providers -->")
    assert end, "the README lacks its markers"
    assert table == markdown_table(), "run `make table`"


def test_the_readme_opens_with_the_two_commands() -> None:
    first = README.index("```console")
    assert README[first:].startswith("```console\n$ make demo")
    assert "$ make test" in README[first : README.index("```", first + 3)]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"`relay {name}" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda it: it.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    named = [each for group in (project["dependencies"], *extras) for each in group]
    decisions = (ROOT / "docs" / "decisions.md").read_text("utf-8").lower()
    for each in named:
        name = re.split(r"[\[>=<]", each)[0].lower()
        if name != "datafast-relay" and not name.startswith("types-"):
            assert name in decisions, f"docs/decisions.md does not say why {name}"


def test_every_pinned_version_is_a_name_and_a_number() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    for line in lines:
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9A-Za-z.+]+", line), line


def test_the_repository_names_no_host_that_serves_packages_and_no_place_on_a_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    hosts = re.compile(r"https?://[^\s\"')]*/simple\b|index-url|pypi\.org|/work/|/root/")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path == Path(__file__) or not path.is_file():
            continue
        found = hosts.search(path.read_text("utf-8", errors="replace"))
        assert not found, f"{name}: {found and found.group()}"
