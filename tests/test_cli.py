"""The command line: what a script gets to read, and the exit codes it can use."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import simplejson
from command import Ran, run
from helpers import SECRET, VISITOR, DataFast, Way, arrival, captured, refunded, states
from werkzeug.serving import make_server

from relay import cli, provider, samples
from relay.app import create_app
from relay.config import Config
from relay.samples import Sample
from relay.store import Filter, Store

SAMPLES = [sample for name in provider.names() for sample in samples.of(name)]
each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda it: f"{it.provider}/{it.name}")
each_name = pytest.mark.parametrize("name", provider.names())

LEAST = """\
database: sqlite:///{folder}/relay.db
destinations:
  main: {{api_key: df_abc123}}
sources:
  shop: {{provider: razorpay, destination: main, secrets: [{secret}]}}
  letters: {{provider: mollie, destination: main, secrets: [0123456789abcdef], api_key: live_1}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration that is right."""
    file = tmp_path / "relay.yaml"
    file.write_text(LEAST.format(folder=tmp_path, secret=SECRET), "utf-8")
    return file


def assert_one_line(text: str) -> None:
    """One clear line, and no traceback."""
    assert text.startswith("relay: ")
    assert text.count("\n") == 1
    assert text.endswith("\n")


# All commands


def commands() -> Iterator[tuple[str, ...]]:
    context = click.Context(cli.relay)
    for name in cli.relay.list_commands(context):
        yield (name,)
        command = cli.relay.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.list_commands(context))


def found(path: tuple[str, ...]) -> click.Command:
    command: click.Command | None = cli.relay
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    assert command is not None
    return command


def test_every_command_that_is_promised_is_there() -> None:
    promised = "serve web worker check sandbox demo send map verify events delete doctor providers explain repair"
    assert {path[0] for path in commands()} == set(promised.split())


@pytest.mark.parametrize("path", [(), *commands()], ids=" ".join)
def test_every_command_says_what_it_does(path: tuple[str, ...]) -> None:
    ran = run(*path, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: {' '.join(('relay', *path))} ")
    first = ran.out.splitlines()[2].strip()
    assert first.endswith((".", "?", ",", ":")) or first[0].isupper()
    assert run(*path, "-h").out == ran.out


@pytest.mark.parametrize("path", [*commands()], ids=" ".join)
def test_every_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    for option in found(path).params:
        if isinstance(option, click.Option) and option.name not in {"bind", "limit", "tolerance"}:
            assert option.help, option.name


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["check", "--nonsense"],
        ["events"],
        ["events", "list", "--state", "nonsense"],
        ["events", "list", "--since", "yesterday"],
        ["events", "list", "--limit", "0"],
        ["serve", "--bind", "nonsense"],
        ["web", "--bind", "127.0.0.1:99999"],
        ["sandbox", "--bind", "127.0.0.1"],
        ["sandbox", "--refunds", "both"],
        ["sandbox", "--database", "/no/such/folder/x.db"],
        ["demo", "--only", "nobody"],
        ["providers", "nobody"],
        ["send"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_nothing_on_standard_output(args: list[str]) -> None:
    ran = run(*args)
    assert (ran.code, ran.out) == (2, "")
    assert "Usage: relay" in ran.err


def test_it_runs_as_a_module_and_knows_its_version() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "relay", "--version"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"relay, version \d+\.\d+\S*\n", ended.stdout)


def test_a_mistake_is_a_line_and_not_a_traceback_in_a_process_of_its_own(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "relay", "events", "list", "--config", tmp_path / "none.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert_one_line(ended.stderr)


@pytest.mark.parametrize(
    "args", [["events", "list"], ["events", "show", "1"], ["send", "shop"], ["delete", "--visitor-id", VISITOR, "--all-time"], ["doctor"], ["serve"], ["worker"]],
    ids=lambda it: " ".join(it[:2]),
)  # fmt: skip
def test_without_a_configuration_every_command_says_how_to_begin(
    args: list[str], tmp_path: Path
) -> None:
    ran = run(*args, "--config", tmp_path / "none.yaml")
    assert (ran.code, ran.out) == (1, "")
    assert "copy config.example.yaml" in ran.err
    assert_one_line(ran.err)


# check


def test_a_right_configuration_is_0_and_shows_the_urls_to_paste(file: Path) -> None:
    ran = run("check", "--config", file)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        f"{file}: right",
        "  Razorpay: http://127.0.0.1:8080/webhooks/shop -> main",
        "  Mollie: http://127.0.0.1:8080/webhooks/letters/<secret> -> main",
    ]


def test_the_configuration_can_be_named_in_the_environment(file: Path) -> None:
    assert run("check", environ={"RELAY_CONFIG": str(file)}).code == 0


def test_a_wrong_configuration_is_1_with_every_mistake_on_standard_error(file: Path) -> None:
    text = file.read_text("utf-8").replace("razorpay", "razorpya").replace("df_abc123", "abc")
    file.write_text(f"{text}log_level: loud\n", "utf-8")
    ran = run("check", "--config", file)
    assert (ran.code, ran.out) == (1, "")
    *told, count = ran.err.splitlines()
    assert [it.partition(", ")[0] for it in told] == [f"{file}: line {n}" for n in (3, 5, 7)]
    assert count == "3 mistakes"


def test_one_mistake_is_counted_as_one(tmp_path: Path) -> None:
    ran = run("check", "--config", tmp_path / "none.yaml")
    assert ran.err.endswith("\n1 mistake\n")


# map


# Whose answers are recognised by what is in them.
NAMELESS = {"mollie", "gocardless", "gumroad"}


def arguments(
    sample: Sample, folder: Path, order: Callable[[list[Any]], list[Any]] = list
) -> list[Any]:
    """What `relay map` is given to map a recorded request."""
    (folder / "body").write_bytes(sample.request.body)
    args: list[Any] = ["map", sample.provider, folder / "body"]
    args += ["--at", sample.request.received_at.isoformat()]
    for name, value in sample.request.headers.pairs:
        args += ["--header", f"{name}: {value}"]
    for name, value in sample.settings.items():
        args += ["--setting", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
    if sample.currency:
        args += ["--currency", sample.currency]
    for index, document in order(list(enumerate(sample.documents))):
        (folder / f"fetched-{index}").write_bytes(document.body)
        path = f"{document.path}=" if sample.provider not in NAMELESS else ""
        args += ["--fetched", f"{path}{folder / f'fetched-{index}'}"]
    return args


def assert_mapped(ran: Ran, sample: Sample) -> None:
    if "error" in sample.expected:
        assert (ran.code, ran.out) == (1, "")
        assert_one_line(ran.err)
        assert sample.expected["path"] in ran.err
        return
    assert (ran.code, ran.err) == (0, "")
    assert simplejson.loads(ran.out, use_decimal=True) == sample.expected


@each_sample
def test_every_recorded_request_is_mapped_without_a_secret_or_a_database(
    sample: Sample, tmp_path: Path
) -> None:
    assert_mapped(run(*arguments(sample, tmp_path)), sample)


@pytest.mark.parametrize(
    "sample",
    [it for it in SAMPLES if len(it.documents) > 1],
    ids=lambda it: f"{it.provider}/{it.name}",
)
def test_the_order_of_what_was_fetched_does_not_matter(sample: Sample, tmp_path: Path) -> None:
    for shift in range(1, len(sample.documents)):
        turned = arguments(sample, tmp_path, lambda it, by=shift: it[by:] + it[:by])
        assert_mapped(run(*turned), sample)
    assert_mapped(run(*arguments(sample, tmp_path, lambda it: it[::-1])), sample)


def razorpay(name: str = "payment.captured.card") -> Sample:
    return next(it for it in samples.of("razorpay") if it.name == name)


def test_the_shape_of_what_is_mapped_is_as_documented(tmp_path: Path) -> None:
    (told,) = json.loads(run(*arguments(razorpay(), tmp_path)).out)["payments"]
    assert set(told) - {"left_out"} == {
        *("event_id", "event_type", "kind", "recurrence", "transaction_id", "original_id"),
        *("subscription_id", "test", "datafast"),
    }
    assert {"amount", "currency", "transaction_id", "timestamp"} <= set(told["datafast"])


def test_an_amount_is_printed_digit_by_digit_as_it_would_be_posted(tmp_path: Path) -> None:
    body = json.loads(razorpay().request.body)
    body["payload"]["payment"]["entity"] |= {"amount": 123456789012345, "currency": "EUR"}
    (tmp_path / "body").write_text(json.dumps(body))
    ran = run("map", "razorpay", tmp_path / "body", "--header", "x-razorpay-event-id: evt_1")
    assert '"amount": 1234567890123.45,' in ran.out


def test_what_cannot_be_mapped_is_1_with_the_path(tmp_path: Path) -> None:
    body = json.loads(razorpay().request.body)
    del body["payload"]["payment"]["entity"]["amount"]
    (tmp_path / "body").write_text(json.dumps(body))
    ran = run("map", "razorpay", tmp_path / "body", "--header", "x-razorpay-event-id: evt_1")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "relay: $.payload.payment.entity.amount: a number is missing\n"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 50_000, b"null", b"[]", b"\x00"])
@each_name
def test_a_body_that_is_none_is_one_line(name: str, body: bytes, tmp_path: Path) -> None:
    if not provider.load(name).events:
        pytest.skip("it takes anything")
    (tmp_path / "body").write_bytes(body)
    ran = run("map", name, tmp_path / "body")
    assert (ran.code, ran.out) == (1, "")
    assert_one_line(ran.err)
    assert "relay: $" in ran.err


def test_what_would_have_to_be_fetched_is_asked_for_by_name(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"id=tr_Ex4mPl4001")
    ran = run("map", "mollie", tmp_path / "body")
    assert ran.code == 1
    assert_one_line(ran.err)
    assert "/v2/payments/tr_Ex4mPl4001" in ran.err
    assert "--fetched" in ran.err


def test_a_fetched_file_that_is_no_json_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"id=tr_Ex4mPl4001")
    (tmp_path / "answer").write_bytes(b"<html>")
    ran = run("map", "mollie", tmp_path / "body", "--fetched", tmp_path / "answer")
    assert ran.code == 1
    assert_one_line(ran.err)
    assert "not JSON" in ran.err


def test_a_body_is_also_taken_from_standard_input() -> None:
    sample = razorpay()
    headers = [f"--header={name}: {value}" for name, value in sample.request.headers.pairs]
    assert_mapped(run("map", "razorpay", "-", *headers, said=sample.request.body.decode()), sample)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["razorpay"],
        ["nobody", "{body}"],
        ["razorpay", "{folder}/missing"],
        ["razorpay", "{folder}"],
        ["razorpay", "{body}", "--header", "no colon"],
        ["razorpay", "{body}", "--header", ": no name"],
        ["razorpay", "{body}", "--setting", "no-equals-sign"],
        ["razorpay", "{body}", "--setting", "tset=true"],
        ["razorpay", "{body}", "--setting", "test=maybe"],
        ["adyen", "{body}", "--setting", "charge_on=never"],
        ["razorpay", "{body}", "--currency", "EURO"],
        ["razorpay", "{body}", "--fetched", "{folder}/missing"],
    ],
    ids=lambda it: " ".join(it) or "nothing",
)
def test_wrong_usage_of_map_is_2(args: list[str], tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(razorpay().request.body)
    ran = run("map", *(it.format(folder=tmp_path, body=tmp_path / "body") for it in args))
    assert (ran.code, ran.out) == (2, "")


# providers


def test_every_provider_has_one_row_even_in_a_pipe() -> None:
    ran = run("providers")
    assert ran.code == 0
    heading, *rows = ran.out.splitlines()
    assert heading.startswith("provider")
    known = [provider.load(name) for name in provider.names()]
    assert len(rows) == len(known)
    for row, each in zip(rows, known, strict=True):
        assert row.startswith(each.title)
        assert each.signature.summary in row


def test_the_table_of_the_readme_is_markdown() -> None:
    rows = run("providers", "--markdown").out.splitlines()
    assert len(rows) == len(provider.names()) + 2
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {11}


@each_name
def test_a_provider_is_set_up_step_by_step(name: str) -> None:
    ran = run("providers", name)
    known = provider.load(name)
    assert ran.code == 0
    for text in (known.docs, known.setup.where, known.setup.secret, *known.setup.events):
        assert text in ran.out
    assert ("/webhooks/<source>/<secret>" in ran.out) == (known.signature.place == "url")
    assert f"    provider: {name}\n" in ran.out


# events


@pytest.fixture
def filled(way: Way, sandbox: DataFast, tmp_path: Path) -> Path:
    """The configuration of a relay that has had a payment, its refund, and a payment that is dead."""
    sandbox.know(VISITOR)
    way.send(captured("pay_1", visitor=VISITOR), refunded("rfnd_1", "pay_1"))
    way.send(captured("pay_2", amount="much", event_id="evt_dead"))
    way.accept(captured("pay_3", event_id="evt_waiting"))
    assert states(way.store)["evt_dead"][0] == "dead"
    return tmp_path / "relay.yaml"


def listed(file: Path, *args: str) -> list[dict[str, Any]]:
    ran = run("events", "list", "--config", file, "--json", *args)
    assert (ran.code, ran.err) == (0, "")
    return [json.loads(line) for line in ran.out.splitlines()]


def ids(file: Path, *args: str) -> set[str]:
    return {it["event_id"] for it in listed(file, *args)}


ALL = {"payment.captured:pay_1", "refund.processed:rfnd_1", "evt_dead", "evt_waiting"}


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ([], ALL),
        (["--source", "shop"], ALL),
        (["--source", "nobody"], set()),
        (["--state", "dead"], {"evt_dead"}),
        (["--state", "pending"], {"evt_waiting"}),
        (["--type", "refund.processed"], {"refund.processed:rfnd_1"}),
        (["--transaction-id", "pay_1"], {"payment.captured:pay_1"}),
        (["--since", "2026-03-01T12:00:00Z"], ALL),
        (["--since", "2026-03-01T13:00:01+01:00"], set()),
        (["--until", "2026-03-01T12:00:00Z"], set()),
        (["--until", "2026-03-02"], ALL),
        (["--state", "delivered", "--type", "payment.captured"], {"payment.captured:pay_1"}),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, list) else "",
)
def test_events_are_listed_by_any_filter(args: list[str], wanted: set[str], filled: Path) -> None:
    assert ids(filled, *args) == wanted


def test_the_newest_event_is_listed_first_and_a_limit_cuts_the_rest(filled: Path) -> None:
    numbers = [it["id"] for it in listed(filled)]
    assert numbers == sorted(numbers, reverse=True)
    assert [it["id"] for it in listed(filled, "--limit", "1")] == numbers[:1]


def test_the_table_has_one_line_an_event_in_a_pipe(filled: Path) -> None:
    ran = run("events", "list", "--config", filled)
    heading, *rows = ran.out.splitlines()
    assert heading.split() == [
        "id",
        "received",
        "source",
        "type",
        "state",
        "kind",
        "transaction",
        "reason",
    ]
    assert len(rows) == 4
    (dead,) = [row for row in rows if " dead " in row]
    assert "$.payload.payment.entity" in dead


def test_a_reason_stands_in_the_table_as_it_is(filled: Path, store: Store) -> None:
    reason = "missing_field: $[/v2/payments/tr_1].amount: [bold]text[/bold] is missing"
    store.add(arrival("evt_marked", dead=reason))
    ran = run("events", "list", "--config", filled, "--state", "dead")
    assert ran.code == 0
    assert reason in ran.out


def test_no_events_are_no_error(file: Path) -> None:
    ran = run("events", "list", "--config", file)
    assert (ran.code, ran.out) == (0, "no events\n")
    assert run("events", "list", "--config", file, "--json").out == ""


@pytest.mark.parametrize("name", ["payment.captured:pay_1", "pay_1"])
def test_an_event_is_shown_whole_with_its_attempts_but_no_signature(
    name: str, filled: Path
) -> None:
    ran = run("events", "show", name, "--config", filled)
    assert ran.code == 0
    told = json.loads(ran.out)
    assert told["event"]["event_id"] == "payment.captured:pay_1"
    assert told["event"]["state"] == "delivered"
    (attempt,) = told["attempts"]
    assert json.loads(attempt["sent"])["amount"] == 29.99
    assert attempt["status"] == 200
    headers = dict(told["request"]["headers"])
    assert headers["x-razorpay-signature"] == "(64 characters)"
    assert json.loads(told["request"]["body"])["event"] == "payment.captured"


def test_an_event_is_found_by_its_number(filled: Path) -> None:
    (dead,) = listed(filled, "--state", "dead")
    told = json.loads(run("events", "show", dead["id"], "--config", filled).out)
    assert told["event"]["event_id"] == "evt_dead"


def test_the_body_of_a_request_comes_byte_for_byte(filled: Path) -> None:
    ran = run("events", "show", "evt_waiting", "--body", "--config", filled)
    assert ran.stdout == captured("pay_3", event_id="evt_waiting").body


@pytest.mark.parametrize("command", ["show", "replay"])
def test_an_event_that_is_not_there_is_1_in_one_line(command: str, filled: Path) -> None:
    ran = run("events", command, "evt_nowhere", "--config", filled)
    assert (ran.code, ran.out) == (1, "")
    assert_one_line(ran.err)
    assert "relay events list" in ran.err


def test_a_name_of_several_events_is_not_guessed(filled: Path, way: Way) -> None:
    way.send(captured("evt_dead", event_id="evt_4"))  # a transaction that is called like an event
    ran = run("events", "show", "evt_dead", "--config", filled)
    assert (ran.code, ran.out) == (1, "")
    assert_one_line(ran.err)
    assert ", " in ran.err.rpartition("say which:")[2]


def test_a_replay_makes_events_pending_again(filled: Path, store: Store) -> None:
    ran = run("events", "replay", "--config", filled, "--state", "dead")
    assert (ran.code, ran.out) == (0, "replaying 1 event\n")
    (again,) = [it for it in store.listed(Filter()) if it.event_id == "evt_dead"]
    assert (again.state, again.lane) == ("pending", "replay")
    assert states(store)["payment.captured:pay_1"][0] == "delivered"


def test_one_event_is_replayed_by_its_name(filled: Path, store: Store) -> None:
    ran = run("events", "replay", "payment.captured:pay_1", "--config", filled)
    assert (ran.code, ran.out) == (0, "replaying 1 event\n")
    assert {id for id, (state, _) in states(store).items() if state == "pending"} == {
        "payment.captured:pay_1",
        "evt_waiting",
    }


def test_a_dry_run_only_counts(filled: Path, store: Store) -> None:
    before = states(store)
    ran = run("events", "replay", "--config", filled, "--source", "shop", "--dry-run")
    assert (ran.code, ran.out) == (0, "would replay 4 events\n")
    assert states(store) == before


def test_everything_is_not_replayed_by_accident(filled: Path, store: Store) -> None:
    before = states(store)
    for args in ([], ["--dry-run"], ["evt_dead", "--state", "dead"]):
        ran = run("events", "replay", *args, "--config", filled)
        assert (ran.code, ran.out) == (2, "")
    assert states(store) == before


@pytest.mark.parametrize(
    "database",
    [
        "sqlite:////no/such/folder/relay.db",
        "sqlite:///{folder}",
        "sqlite:///{folder}/text",
        "postgresql://nobody:hush@127.0.0.1:9/relay",
    ],
)
@pytest.mark.parametrize("command", ["events list", "serve", "worker"])
def test_a_database_that_cannot_be_opened_is_one_line(
    command: str, database: str, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("this is no database\n" * 100)
    text = re.sub("database: .*", f"database: {database.format(folder=tmp_path)}", file.read_text())
    file.write_text(text)
    ran = run(*command.split(), "--config", file)
    assert (ran.code, ran.out) == (1, "")
    assert_one_line(ran.err)
    assert "the database cannot be opened" in ran.err
    assert "hush" not in ran.err


# send


@pytest.fixture
def served(config: Config, store: Store) -> Iterator[str]:
    """A relay that receives, without its processes; its address."""
    server = make_server("127.0.0.1", 0, create_app(config, store), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_without_a_sample_they_are_listed_with_what_they_become(file: Path) -> None:
    ran = run("send", "shop", "--config", file)
    assert ran.code == 0
    names = [line.split()[0] for line in ran.out.splitlines()]
    assert names == [it.name for it in samples.of("razorpay")]
    assert re.search(r"^payment.captured.card +charge [0-9.]+ INR", ran.out, re.MULTILINE)


def test_a_sample_is_signed_with_the_sources_secret_and_accepted(
    served: str, store: Store, tmp_path: Path
) -> None:
    ran = run(
        *("send", "shop", "payment.captured.card", "--to", served),
        *("--config", tmp_path / "relay.yaml"),
    )
    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(r"200 in [0-9.]+ ms\n", ran.out)
    assert len(store.listed(Filter(source="shop", type="payment.captured"))) == 1


def test_what_the_relay_refuses_is_1_with_its_reason(
    served: str, store: Store, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text((tmp_path / "relay.yaml").read_text().replace(SECRET, "another-secret"))
    ran = run("send", "shop", "payment.captured.card", "--to", served, "--config", other)
    assert ran.code == 1
    assert ran.out.startswith("401 in ")
    assert "bad_signature" in ran.err
    assert store.listed(Filter()) == []


def test_without_a_running_relay_there_is_one_line(file: Path) -> None:
    ran = run(
        "send", "shop", "payment.captured.card", "--to", "http://127.0.0.1:9", "--config", file
    )
    assert (ran.code, ran.out) == (1, "")
    assert_one_line(ran.err)
    assert "is `relay serve` running?" in ran.err


@pytest.mark.parametrize(
    "to", ["127.0.0.1:9", "nonsense", "http://", "ftp://127.0.0.1", "http:///x"]
)
def test_an_address_that_is_none_is_told_as_such(to: str, file: Path) -> None:
    ran = run("send", "shop", "payment.captured.card", "--to", to, "--config", file)
    assert (ran.code, ran.out) == (2, "")
    assert "http://127.0.0.1:8080" in ran.err


@pytest.mark.parametrize(("source", "sample"), [("nobody", "x"), ("shop", "nonsense")])
def test_an_unknown_source_or_sample_is_2_and_says_what_there_is(
    source: str, sample: str, file: Path
) -> None:
    ran = run("send", source, sample, "--config", file)
    assert (ran.code, ran.out) == (2, "")
    assert "shop" in ran.err


def test_what_cannot_be_signed_here_is_one_line(file: Path) -> None:
    text = file.read_text().replace("provider: razorpay", "provider: paypal")
    file.write_text(text.replace(SECRET, "WH1234567890ABCDE"))
    ran = run("send", "shop", samples.of("paypal")[0].name, "--config", file)
    assert (ran.code, ran.out) == (1, "")
    assert_one_line(ran.err)
