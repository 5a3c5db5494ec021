"""`relay doctor`: what it looks at, and what it says to do."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Ran, run
from flask import Flask
from helpers import NOON, SECRET, DataFast
from werkzeug.serving import make_server

from relay import config as configuration
from relay import doctor
from relay.app import create_app
from relay.config import Config, Destination
from relay.doctor import Finding
from relay.sandbox import Options
from relay.store import Store


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """The address at which `app` answers."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def write(sandbox: DataFast, tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration with one site, which is the sandbox."""

    def write_(public_url: str = "http://127.0.0.1:9", **site: Any) -> Path:
        site = {"api_key": "df_abc", "base_url": sandbox.url, **site}
        source = {"provider": "razorpay", "destination": "main", "secrets": [SECRET]}
        whole = {
            "server": {"public_url": public_url},
            "destinations": {"main": site},
            "sources": {"shop": source},
        }
        file = tmp_path / "doctor.yaml"
        file.write_text(yaml.safe_dump(whole))
        return file

    return write_


def found(ran: Ran, subject: str) -> list[str]:
    """What was said of a subject, with its level; one line each."""
    assert ran.err == ""
    return [line for line in ran.out.splitlines() if f" {subject}: " in line]


ACCOUNT = {"api_key": "dft_abc", "website_id": "site1"}


# Everything at once


def test_all_is_well_is_0(store: Store, config: Config, write: Callable[..., Path]) -> None:
    with serving(create_app(config, store)) as url:
        ran = run("doctor", "--config", write(url, **ACCOUNT))
    assert (ran.code, ran.err) == (0, "")
    assert [line[:4] for line in ran.out.splitlines()] == ["ok  "] * 5
    (line,) = found(ran, "main: connection")
    for step in ("DNS", "TCP", "TLS"):
        assert f"{step} " in line
    assert found(ran, "public URL") == [f"ok   public URL: {url} answers"]


def test_every_site_is_looked_at_and_one_bad_thing_makes_it_1(
    sandbox: DataFast, write: Callable[..., Path]
) -> None:
    file = write()
    whole = yaml.safe_load(file.read_text())
    whole["destinations"]["second"] = {"api_key": "df_bad", "base_url": sandbox.url}
    file.write_text(yaml.safe_dump(whole))
    sandbox.put("tokens", revoked=["df_bad"])
    ran = run("doctor", "--config", file)
    assert ran.code == 1
    assert found(ran, "main: key")[0].startswith("ok ")
    assert found(ran, "second: key") == ["bad  second: key: 401: Invalid token; check api_key"]


def test_nothing_is_written_at_the_destination(
    sandbox: DataFast, write: Callable[..., Path]
) -> None:
    run("doctor", "--config", write())
    assert sandbox.records() == []


# The key


def test_a_good_key_says_for_which_site_it_is(
    sandbox: DataFast, write: Callable[..., Path]
) -> None:
    sandbox.put("tokens", sites={"df_abc": "shop.example.com"})
    (line,) = found(run("doctor", "--config", write()), "main: key")
    assert line.startswith("ok   main: key: good, for shop.example.com, in ")


def test_an_account_token_is_asked_for_its_website(
    sandbox: DataFast, write: Callable[..., Path]
) -> None:
    sandbox.put("websites", unknown=["site1"])
    ran = run("doctor", "--config", write(**ACCOUNT))
    assert ran.code == 1
    assert found(ran, "main: key")[0].startswith("bad  main: key: 404: ")


@pytest.mark.parametrize("body", ["<html>", "[]", '{"data": []}', '{"data": [7]}', '"x"'])
def test_an_answer_that_is_none_of_datafasts_breaks_nothing(
    body: str, sandbox: DataFast, write: Callable[..., Path]
) -> None:
    sandbox.fail(status=502, body=body, count=9)
    ran = run("doctor", "--config", write(**ACCOUNT))
    assert ran.code == 1
    assert found(ran, "main: key")[0].startswith("bad  main: key: 502")
    sandbox.fail(status=200, body=body, count=9)
    assert run("doctor", "--config", write(**ACCOUNT)).err == ""


def test_a_destination_that_drops_the_connection_is_said_to(
    sandbox: DataFast, write: Callable[..., Path]
) -> None:
    sandbox.fail(drop=True, count=1)
    (line,) = found(run("doctor", "--config", write()), "main: key")
    assert line.startswith("bad  main: key: main: http://127.0.0.1:")
    assert line.endswith(" gave no answer (ConnectionError)")


# The connection and the clock


@pytest.mark.parametrize("base", ["http://127.0.0.1:9", "https://nowhere.invalid"])
def test_an_address_that_cannot_be_reached_is_bad(base: str) -> None:
    (finding,) = doctor.connection(Destination("main", "df_abc", base, connect_timeout=2))
    assert finding.level == "bad"
    assert finding.message.startswith(f"{base} cannot be reached: ")


def test_an_address_without_tls_is_found_out(sandbox: DataFast) -> None:
    base = sandbox.url.replace("http:", "https:")
    (finding,) = doctor.connection(Destination("main", "df_abc", base))
    assert finding.level == "bad"


@pytest.mark.parametrize(
    ("off", "level"),
    [(0, "ok"), (29, "ok"), (-29, "ok"), (31, "bad"), (-31, "bad"), (90_000, "bad")],
)
def test_a_clock_that_is_off_is_bad_and_told_by_how_much(off: int, level: str) -> None:
    date = format_datetime(NOON - timedelta(seconds=off), usegmt=True)
    finding = doctor.clock(Destination("main", "df_abc"), date, NOON)
    assert finding.level == level
    assert finding.message.startswith(f"{off:+} s against the destination")
    assert ("NTP" in finding.message) == (level == "bad")


@pytest.mark.parametrize("date", ["", "soon", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_a_destination_that_tells_no_time_is_worth_a_look(date: str) -> None:
    assert doctor.clock(Destination("main", "df_abc"), date, NOON).level == "warn"


def test_the_clock_is_compared_with_the_answers_date(write: Callable[..., Path]) -> None:
    (line,) = found(run("doctor", "--config", write()), "main: clock")
    assert line.startswith("ok   main: clock: ")


# Double counting


def relayed(file: Path, *names: str) -> Config:
    """The configuration, as if its sources were of providers of these names."""
    config = configuration.load(file)
    shop = config.sources["shop"]
    sources = {
        name: replace(shop, name=name, provider=replace(shop.provider, name=name)) for name in names
    }
    return replace(config, sources=sources)


def double(file: Path, *names: str) -> Finding:
    config = relayed(file, *names)
    (finding,) = doctor.double_counting(config, config.destinations["main"])
    return finding


def test_a_provider_that_is_relayed_and_connected_is_bad(
    sandbox: DataFast, write: Callable[..., Path]
) -> None:
    sandbox.put("integrations", paddle=True, stripe=True)
    finding = double(write(**ACCOUNT), "paddle", "razorpay")
    assert finding.level == "bad"
    assert finding.message == (
        "connected to DataFast and relayed as well: paddle; take one of them away"
    )


def test_a_connected_provider_that_is_not_relayed_is_well(
    sandbox: DataFast, write: Callable[..., Path]
) -> None:
    sandbox.put("integrations", stripe=True)
    assert double(write(**ACCOUNT), "razorpay").level == "ok"


def test_a_provider_that_could_be_connected_and_is_not_is_well(
    write: Callable[..., Path],
) -> None:
    assert double(write(**ACCOUNT), "paddle", "stripe").level == "ok"


@pytest.mark.parametrize(
    ("state", "is_on"),
    [(True, True), ({"connected": True}, True), ({"connected": False}, False), (False, False),
     (None, False), ("USD", False), ({}, False), ({"connected": "no"}, False)],
)  # fmt: skip
def test_an_integration_is_on_only_when_it_says_so(state: Any, is_on: bool) -> None:  # noqa: FBT001
    assert doctor.is_connected(state) is is_on


def test_a_website_key_cannot_tell_and_says_what_to_look_for(
    write: Callable[..., Path],
) -> None:
    finding = double(write(), "razorpay", "paddle")
    assert finding.level == "warn"
    assert finding.message.endswith(": paddle, razorpay")


def test_integrations_that_cannot_be_read_are_worth_a_look(
    sandbox: DataFast, write: Callable[..., Path]
) -> None:
    sandbox.fail(status=403, count=1)
    finding = double(write(**ACCOUNT), "razorpay")
    assert (finding.level, finding.message) == ("warn", "the integrations cannot be read (403)")


# The public address


def test_a_public_address_that_nobody_answers_at_is_bad(write: Callable[..., Path]) -> None:
    ran = run("doctor", "--config", write())
    assert ran.code == 1
    (line,) = found(ran, "public URL")
    assert line.startswith(
        "bad  public URL: http://127.0.0.1:9/healthz cannot be reached from here"
    )
    assert "`relay serve`" in line


def test_a_public_address_that_somebody_else_answers_at_is_bad(
    sandbox: DataFast, write: Callable[..., Path]
) -> None:
    (line,) = found(run("doctor", "--config", write(sandbox.url)), "public URL")
    assert line.startswith("bad  public URL: ")
    assert line.endswith("answers 404, and not as the relay does; check the proxy")


# Refunds


@pytest.mark.parametrize("policy", ["original_id", "refund_id"])
def test_the_probe_finds_out_which_refunds_a_destination_needs(
    policy: Any, start_sandbox: Callable[..., DataFast], write: Callable[..., Path]
) -> None:
    site = start_sandbox(Options(rate_limit=0, refunds=policy))
    ran = run("doctor", "--probe-refunds", "--config", write(base_url=site.url))
    assert (ran.code, ran.err) == (0, "")
    paid, refunded, verdict = ran.out.splitlines()
    assert paid.startswith("ok   main: refunds: payment: 200 {")
    assert refunded.startswith("ok   main: refunds: refund: 200 {")
    assert verdict == f"ok   main: refunds: this destination wants `refunds: {policy}`"
    assert site.records() == []
    assert site.posts() == 3


def test_a_probe_with_a_bad_key_is_1(sandbox: DataFast, write: Callable[..., Path]) -> None:
    sandbox.put("tokens", revoked=["df_abc"])
    ran = run("doctor", "--probe-refunds", "--config", write())
    assert ran.code == 1
    assert "the payment was not recorded (unauthorised)" in ran.out


def test_an_answer_that_says_nothing_about_refunds_leaves_the_policy_open(
    sandbox: DataFast, write: Callable[..., Path]
) -> None:
    config = configuration.load(write())
    probe = doctor.probe_refunds(config.destinations["main"])
    assert "payment: 200" in next(probe).message
    sandbox.fail(status=200, body='{"status": "success"}', count=1)
    assert "refund: 200" in next(probe).message
    finding = next(probe)
    assert (finding.level, finding.message) == (
        "warn",
        "the answer reads as unknown; keep `refunds: auto`",
    )
    assert list(probe) == []
    assert sandbox.records() == []


def test_a_probe_that_breaks_off_still_takes_its_payment_away(
    sandbox: DataFast, write: Callable[..., Path]
) -> None:
    config = configuration.load(write())
    probe = doctor.probe_refunds(config.destinations["main"])
    next(probe)
    sandbox.fail(drop=True, count=1)
    finding = next(probe)
    assert finding.level == "bad"
    assert list(probe) == []
    assert sandbox.records() == []


def test_a_payment_that_could_not_be_taken_away_is_named(
    sandbox: DataFast, write: Callable[..., Path]
) -> None:
    config = configuration.load(write())
    probe = doctor.probe_refunds(config.destinations["main"])
    before = [next(probe) for _ in range(3)]
    assert [it.level for it in before] == ["ok"] * 3
    sandbox.fail(status=503, count=1)
    finding = next(probe)
    assert finding.level == "bad"
    assert {it["transaction_id"] for it in sandbox.records()} == {finding.message.split()[-1]}


def test_the_probe_needs_to_know_which_site(sandbox: DataFast, write: Callable[..., Path]) -> None:
    file = write()
    whole = yaml.safe_load(file.read_text())
    whole["destinations"]["second"] = {"api_key": "df_second", "base_url": sandbox.url}
    file.write_text(yaml.safe_dump(whole))
    ran = run("doctor", "--probe-refunds", "--config", file)
    assert (ran.code, ran.out) == (2, "")
    assert "--destination" in ran.err
    assert run("doctor", "--probe-refunds", "--destination", "second", "--config", file).code == 0


def test_the_key_is_never_printed(sandbox: DataFast, write: Callable[..., Path]) -> None:
    key = "df_a_rather_special_key"
    outputs = [run("doctor", "--config", write(api_key=key)).out]
    sandbox.put("tokens", revoked=[key])
    outputs.append(run("doctor", "--config", write(api_key=key)).out)
    outputs.append(run("doctor", "--probe-refunds", "--config", write(api_key=key)).out)
    assert not any("special" in out for out in outputs)
