"""`relay delete`: what it takes away at DataFast, and what it refuses to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from command import Ran, run
from helpers import VISITOR, DataFast

from relay.cli import datafast
from relay.sandbox import Options

OTHER = "0b6f4f0e-5d39-4f0c-8a53-3f9d5ad9f1c2"


@pytest.fixture
def site(start_sandbox: Callable[..., DataFast]) -> DataFast:
    """A site with five payments: two of VISITOR, one of OTHER, two of nobody."""
    site = start_sandbox(Options(rate_limit=0))
    site.know(VISITOR, OTHER)
    for id, visitor, day in (
        ("jan", VISITOR, "2026-01-10"),
        ("feb", VISITOR, "2026-02-10"),
        ("other", OTHER, "2026-02-11"),
        ("nobody-jan", None, "2026-01-11"),
        ("nobody-feb", None, "2026-02-12"),
    ):
        body: dict[str, Any] = {"amount": 5, "currency": "EUR", "transaction_id": id}
        body |= {"timestamp": f"{day}T12:00:00Z"}
        if visitor:
            body["datafast_visitor_id"] = visitor
        answer = requests.post(
            f"{site.url}/api/v1/payments",
            json=body,
            headers={"Authorization": "Bearer df_abc"},
            timeout=10,
        )
        assert answer.status_code == 200
    return site


@pytest.fixture
def delete(site: DataFast, tmp_path: Path) -> Callable[..., Ran]:
    """Runs the command against that site."""
    file = tmp_path / "relay.yaml"
    main = {"api_key": "df_abc", "base_url": site.url}
    file.write_text(yaml.safe_dump({"destinations": {"main": main}, "sources": {}}))

    def run_(*args: object, said: str | None = None) -> Ran:
        return run("delete", "--config", file, *args, said=said)

    return run_


ALL = {"jan", "feb", "other", "nobody-jan", "nobody-feb"}
FEBRUARY = ("--from", "2026-02-01", "--to", "2026-03-01")


@pytest.mark.parametrize(
    ("args", "gone"),
    [
        (["--transaction-id", "feb"], {"feb"}),
        (["--visitor-id", VISITOR, "--all-time"], {"jan", "feb"}),
        (["--visitor-id", VISITOR, *FEBRUARY], {"feb"}),
        ([*FEBRUARY], {"feb", "other", "nobody-feb"}),
        (["--all-time"], ALL),
    ],
    ids=["transaction", "visitor", "visitor_and_range", "range", "everything"],
)
def test_what_is_asked_for_is_deleted_and_nothing_else(
    args: list[str], gone: set[str], site: DataFast, delete: Callable[..., Ran]
) -> None:
    ran = delete(*args, "--yes")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("deleted: ")
    assert set(site.ids()) == ALL - gone


def test_it_asks_first_and_says_what_would_go(site: DataFast, delete: Callable[..., Ran]) -> None:
    ran = delete("--visitor-id", VISITOR, *FEBRUARY, said="n\n")
    assert ran.code == 1
    assert f"of the visitor {VISITOR} from 2026-02-01 00:00 to 2026-03-01 00:00 UTC" in ran.out
    assert f"from main at {site.url}?" in ran.out
    assert set(site.ids()) == ALL


def test_without_an_answer_nothing_is_deleted(site: DataFast, delete: Callable[..., Ran]) -> None:
    assert delete("--transaction-id", "feb", said="").code == 1
    assert set(site.ids()) == ALL


def test_a_yes_deletes(site: DataFast, delete: Callable[..., Ran]) -> None:
    assert delete("--transaction-id", "feb", said="y\n").code == 0
    assert set(site.ids()) == ALL - {"feb"}


def test_everything_is_asked_for_in_plain_words(delete: Callable[..., Ran]) -> None:
    assert (
        "Delete ALL payments and trials of the whole site, of all time"
        in delete("--all-time", said="n\n").out
    )


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--visitor-id", VISITOR],
        ["--from", "2026-02-01"],
        ["--to", "2026-02-01"],
        ["--visitor-id", VISITOR, "--from", "2026-02-01"],
        ["--from", "2026-03-01", "--to", "2026-02-01"],
        ["--from", "2026-02-01", "--to", "2026-02-01"],
        ["--transaction-id", "feb", "--visitor-id", VISITOR],
        ["--transaction-id", "feb", *FEBRUARY],
        ["--transaction-id", "feb", "--all-time"],
        [*FEBRUARY, "--all-time"],
        ["--from", "soon", "--to", "later"],
        ["--destination", "elsewhere", "--transaction-id", "feb"],
    ],
    ids=lambda it: " ".join(it) or "nothing",
)
def test_what_is_too_much_or_contradicts_itself_is_refused(
    args: list[str], site: DataFast, delete: Callable[..., Ran]
) -> None:
    before = site.posts()
    ran = delete(*args, "--yes")
    assert (ran.code, ran.out) == (2, "")
    assert "Error: " in ran.err
    assert site.posts() == before
    assert set(site.ids()) == ALL


def test_times_are_read_with_their_zone(site: DataFast, delete: Callable[..., Ran]) -> None:
    noon = "2026-02-10T13:00:00+01:00"
    assert delete("--from", noon, "--to", "2026-02-10T12:00:01Z", "--yes").code == 0
    assert set(site.ids()) == ALL - {"feb"}


def test_what_datafast_refuses_is_1_in_its_words(
    site: DataFast, delete: Callable[..., Ran]
) -> None:
    ran = delete("--transaction-id", "nowhere", "--yes")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("404: ")
    ran = delete("--visitor-id", "no-uuid", "--all-time", "--yes")
    assert ran.code == 1
    assert ran.err.startswith("400: ")
    site.put("tokens", revoked=["df_abc"])
    ran = delete("--transaction-id", "feb", "--yes")
    assert ran.err.startswith("401: ")
    assert set(site.ids()) == ALL


def test_an_answer_without_words_is_still_told(site: DataFast, delete: Callable[..., Ran]) -> None:
    site.fail(status=502, body="<html>", count=1)
    ran = delete("--transaction-id", "feb", "--yes")
    assert (ran.code, ran.err) == (1, "502: refused\n")


def test_a_destination_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "relay.yaml").write_text(
        "destinations: {main: {api_key: df_abc, base_url: 'http://127.0.0.1:9'}}\nsources: {}\n"
    )
    ran = run("delete", "--config", tmp_path / "relay.yaml", "--transaction-id", "x", "--yes")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "relay: main: http://127.0.0.1:9 gave no answer (ConnectionError)\n"


def test_of_several_destinations_one_must_be_named(site: DataFast, tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    blocks = {name: {"api_key": f"df_{name}", "base_url": site.url} for name in ("first", "second")}
    file.write_text(yaml.safe_dump({"destinations": blocks, "sources": {}}))
    ran = run("delete", "--config", file, "--transaction-id", "feb", "--yes")
    assert (ran.code, ran.out) == (2, "")
    assert "there are: first, second" in ran.err
    named = ("--destination", "second")
    assert run("delete", "--config", file, *named, "--transaction-id", "feb", "--yes").code == 0
    assert set(site.ids()) == ALL - {"feb"}


def test_the_range_of_all_time_holds_every_payment() -> None:
    assert datafast._FIRST.year <= 1970
    assert datafast._LAST.year >= 2100
