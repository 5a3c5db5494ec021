"""`relay explain`, `relay repair` and `relay events list --waiting`: what people are told."""

from datetime import timedelta
from pathlib import Path

import pytest
import simplejson
from command import run
from helpers import NOON, VISITOR, Clock, DataFast, Way, captured, disputed, refunded, row

from relay import config as configuration
from relay.config import Config
from relay.store import Store
from relay.worker import Worker

PAID = "payment.captured:pay_1"
FIRST_LINE = (
    f"Event 1: payment.captured of shop ({PAID}), received 1 March 2026 12:00 UTC, told once."
)


@pytest.fixture
def file(way: Way, tmp_path: Path) -> Path:
    """The configuration that the way goes by."""
    assert way
    return tmp_path / "relay.yaml"


def told(file: Path, name: str) -> list[str]:
    """What `relay explain` says."""
    ran = run("explain", name, "--config", file)
    assert ran.code == 0, ran.err
    return ran.out.splitlines()


def test_a_payment_says_what_it_is_and_what_datafast_answered(
    way: Way, file: Path, sandbox: DataFast
) -> None:
    sandbox.know(VISITOR)
    way.send(captured(visitor=VISITOR))
    assert told(file, "pay_1") == [
        FIRST_LINE,
        f"DataFast has it: a new payment of 29.99 EUR of the visitor {VISITOR}, as pay_1.",
        "  new: it belongs to no subscription",
        "Sent once; the last answer: Payment recorded and attributed successfully.",
    ]


def test_a_visitor_says_from_where_it_was_inherited(way: Way, file: Path) -> None:
    way.send(captured(visitor=VISITOR), captured("pay_2"))
    lines = told(file, "pay_2")
    assert f"  inherited: visitor {VISITOR}, by its e-mail address (event 1)" in lines


def test_a_refund_says_how_much_is_left(way: Way, file: Path) -> None:
    way.send(captured(visitor=VISITOR), refunded(amount=1000))
    lines = told(file, "rfnd_1")
    assert "  refund: 10.00 of 29.99 EUR, paid on 1 March 2026; 19.99 left (event 1)" in lines
    assert f"  inherited: visitor {VISITOR}, by its payment (event 1)" in lines


def test_what_is_not_sent_says_why_and_who_told_before(way: Way, file: Path) -> None:
    way.send(captured(), captured(type="subscription.charged"))
    lines = told(file, "subscription.charged:pay_1")
    assert lines[1] == "Not sent: another event told of the same money."
    assert lines[2] == f"  not sent: the same money was told by {PAID} (event 1)"


def test_what_waits_says_for_what_and_until_when(way: Way, file: Path) -> None:
    text = file.read_text("utf-8").replace("hold_seconds: 0", "hold_seconds: 600")
    file.write_text(text, "utf-8")
    held = Way(config_of(file), way.store, way.clock)
    held.send(refunded())
    until = "1 March 2026 12:10 UTC"
    assert told(file, "1")[1:] == [
        f"It waits: its payment is still to come, or on its way, at the latest until {until}.",
        "  refund: the payment pay_1 is not known here",
    ]
    (line,) = waiting(file)
    assert (line["id"], line["until"]) == (1, "2026-03-01T12:10:00.000Z")
    assert line["waits_for"] == "its payment is still to come, or on its way"
    held.send(captured())
    assert {it["waits_for"] for it in waiting(file)} == {"a visitor"}


def config_of(file: Path) -> Config:
    return configuration.load(file, {})


def waiting(file: Path) -> list[dict[str, object]]:
    """The open questions, as JSON."""
    ran = run("events", "list", "--waiting", "--json", "--config", file)
    assert ran.code == 0, ran.err
    return [simplejson.loads(line) for line in ran.out.splitlines()]


def test_a_dead_letter_says_what_to_do(way: Way, file: Path, sandbox: DataFast) -> None:
    sandbox.fail(status=400)
    way.send(captured())
    assert told(file, "1")[1].startswith("Dead: rejected: ")
    assert told(file, "1")[1].endswith("Mend the cause, then `relay events replay 1`.")


def test_all_events_of_a_transaction_are_explained(way: Way, file: Path) -> None:
    way.send(captured(), captured(type="subscription.charged"), disputed())
    assert [line for line in told(file, "pay_1") if line.startswith("Event")] == [FIRST_LINE]
    assert any("29.99 of 29.99 EUR" in line for line in told(file, "disp_1"))


def test_an_unknown_name_is_an_error(file: Path) -> None:
    ran = run("explain", "nobody", "--config", file)
    assert ran.code == 1
    assert "there is no event 'nobody'" in ran.err


def test_the_evidence_is_in_the_json_of_the_event(way: Way, file: Path) -> None:
    way.send(captured())
    shown = simplejson.loads(run("events", "show", "1", "--config", file).out)
    assert shown["event"]["evidence"] == [
        {"what": "new", "why": "it belongs to no subscription", "event": None}
    ]


# Repair


def test_a_visitor_that_becomes_known_later_is_repaired_on_demand(
    way: Way, file: Path, sandbox: DataFast
) -> None:
    sandbox.know(VISITOR)
    way.send(captured())
    assert run("repair", "--config", file).out == "sending again: 0 payments\n"
    way.send(captured(type="subscription.charged", visitor=VISITOR))
    assert (
        told(file, "1")[-1] == "Its visitor is known better by now: `relay repair` sends it again."
    )
    dry = run("repair", "--dry-run", "--config", file)
    assert dry.out.splitlines()[-1] == "would send again: 1 payment"
    assert "pay_1" in dry.out
    assert [it["attributed"] for it in sandbox.records()] == [False]
    way.clock.pass_(days=3)
    assert run("repair", "pay_1", "--config", file).out == "sending again: 1 payment\n"
    way.clock.now += timedelta(days=3000)  # the command's own clock is the real one
    way.deliver_all()
    (record,) = sandbox.records()
    assert (record["transaction_id"], record["attributed"]) == ("pay_1", True)
    assert record["timestamp"] == "2026-03-01T12:00:00.000Z"
    assert run("repair", "--config", file).out == "sending again: 0 payments\n"
    assert told(file, "1")[-1] == (
        "Sent 3 times; the last answer: Payment recorded and attributed successfully."
    )


def test_the_worker_repairs_by_itself_if_it_shall(
    way: Way, file: Path, sandbox: DataFast, store: Store, clock: Clock
) -> None:
    sandbox.know(VISITOR)
    text = file.read_text("utf-8").replace("rate_limit: 0", "rate_limit: 0\n    repair: automatic")
    file.write_text(text, "utf-8")
    config = config_of(file)
    way.send(captured(), captured(type="subscription.charged", visitor=VISITOR))
    Worker(way.config, store).repair()
    assert row(store, PAID).state.value == "delivered"
    Worker(config, store).repair()
    assert row(store, PAID).reason == "repair"
    clock.now = NOON + timedelta(days=3000)
    way.deliver_all()
    assert [it["attributed"] for it in sandbox.records()] == [True]


def test_waiting_and_a_filter_contradict_each_other(file: Path) -> None:
    ran = run("events", "list", "--waiting", "--source", "shop", "--config", file)
    assert ran.code == 2
    assert "leave the filters out" in ran.err


def test_what_was_sent_without_its_payment_or_visitor_is_an_open_question(
    way: Way, file: Path
) -> None:
    way.send(captured(), refunded(of="pay_0"))
    assert {(it["id"], it["waits_for"]) for it in waiting(file)} == {
        (1, "a visitor"),
        (2, "its payment"),
    }
    shown = run("events", "list", "--waiting", "--config", file).out
    assert "sent without it" in shown
