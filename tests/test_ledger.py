"""The ledger's rules one by one, each with the evidence that it writes down.

The lines of "Mistakes that public bridges make" (docs of DataFast) that are about money's meaning
are named tests here. The others are proved where they belong:

- 2, 4, 5, 18 (ids, minor units, amounts paid and their currency): tests/providers/, test_money.py
- 7 (spellings of the visitor's key): test_visitor.py
- 8, 11, 15 (what a 200 means, limits, dead letters): test_forward.py, test_settle.py, test_flow.py
- 9, 10, 17 (nothing lost, signatures, two deliveries at once): test_flow.py, test_verify.py
- 16 (health checks that write): test_health.py
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from helpers import LEASE
from scenarios import (
    ANN,
    Arrival,
    Life,
    Scenario,
    World,
    charge,
    dispute,
    free_trial,
    hurry,
    new,
    refund,
    renewal,
    returned,
    seen,
    taken,
    trial,
)

from relay.losses import Loss, shares
from relay.model import Kind
from relay.sandbox.faults import Fault
from relay.store import Store

Lived = Callable[..., Life]


@pytest.fixture
def lived(store: Store) -> Iterator[Lived]:
    hurry(store)
    world = World(store)

    def live(*arrivals: Arrival) -> Life:
        life = world.begin(Scenario("", arrivals, []))
        life.live()
        return life

    yield live
    world.close()


# The mistakes that public bridges make


def test_mistake_1_the_first_payment_of_a_subscription_is_no_renewal(lived: Lived) -> None:
    life = lived(
        charge("p1", "10 EUR", "1 Mar", subscription="s1"),
        charge("p2", "10 EUR", "1 Apr", subscription="s1"),
    )
    assert life.held() == [new("p1", "10 EUR"), renewal("p2", "10 EUR")]


def test_mistake_3_two_types_of_event_for_one_payment_count_once(lived: Lived) -> None:
    life = lived(
        charge("p1", "10 EUR", "1 Mar", by="order"), charge("p1", "10 EUR", "1 Mar", by="invoice")
    )
    assert life.held() == [new("p1", "10 EUR")]
    assert life.reason("charge:p1:invoice") == "already_told"
    assert life.evidence("charge:p1:invoice") == [
        "not sent: the same money was told by charge:p1:order"
    ]


def test_mistake_6_a_payment_without_a_visitor_is_sent(lived: Lived) -> None:
    assert lived(charge("p1", "10 EUR", "1 Mar")).held() == [new("p1", "10 EUR")]


def test_mistake_12_a_partial_refund_is_told_apart_and_keeps_the_visitor(lived: Lived) -> None:
    life = lived(
        charge("p1", "29.99 EUR", "1 Mar", visitor=ANN), refund("r1", "10 EUR", "2 Mar", "p1")
    )
    assert life.held() == [new("p1", "29.99 EUR", ANN), taken("r1", "10 EUR", ANN)]
    assert life.evidence("refund:r1") == [
        "refund: 10 of 29.99 EUR, paid on 1 March 2026; 19.99 left",
        f"inherited: visitor {ANN}, by its payment",
    ]


def test_mistake_13_what_is_only_a_test_is_not_revenue(lived: Lived) -> None:
    life = lived(charge("p1", "10 EUR", "1 Mar", test=True))
    assert (life.held(), life.reason("charge:p1")) == ([], "test_event")


def test_mistake_14_a_zero_invoice_is_no_free_trial(lived: Lived) -> None:
    life = lived(charge("p1", "0 EUR", "1 Mar"), trial("t1", "2 Mar"))
    assert (life.held(), life.reason("charge:p1")) == ([free_trial("t1")], "zero_amount")


# First or renewal


def test_a_renewal_names_the_charge_before_it(lived: Lived) -> None:
    life = lived(
        charge("p1", "10 EUR", "1 Mar", subscription="s1"),
        charge("p2", "10 EUR", "1 Apr", subscription="s1"),
    )
    why = "renewal: the subscription s1 had a paid charge on 1 March 2026"
    assert life.evidence("charge:p2") == [why]


def test_a_renewal_of_a_subscription_older_than_the_relay_is_inferred(lived: Lived) -> None:
    life = lived(charge("p1", "10 EUR", "7 Mar", subscription="s1", since="7 Oct 2021"))
    (why,) = life.evidence("charge:p1")
    assert why == (
        "renewal: inferred: the subscription s1 began on 7 October 2021, before the relay's first "
        "day with this source, 1 January 2026"
    )


def test_the_first_charge_after_a_trial_says_so(lived: Lived) -> None:
    life = lived(
        trial("t1", "1 Mar", subscription="s1"),
        charge("p1", "10 EUR", "15 Mar", subscription="s1", recurrence="renewal"),
    )
    why = "new: the first paid charge after the trial that began on 1 March 2026"
    assert life.evidence("charge:p1") == [why]


def test_what_belongs_to_no_subscription_is_new(lived: Lived) -> None:
    life = lived(charge("p1", "10 EUR", "1 Mar"))
    assert life.evidence("charge:p1") == ["new: it belongs to no subscription"]


# Money back


def test_more_than_was_left_is_kept_and_flagged(lived: Lived) -> None:
    life = lived(
        charge("p1", "10 EUR", "1 Mar"),
        refund("r1", "6 EUR", "2 Mar", "p1"),
        refund("r2", "6 EUR", "3 Mar", "p1"),
    )
    why = "refund: 6 of 10 EUR, paid on 1 March 2026; 2 more than was left"
    assert life.evidence("refund:r2") == [why]


def test_a_refund_of_nobody_knows_how_much_is_dead_with_the_reason(lived: Lived) -> None:
    life = lived(refund("r1", None, "2 Mar", "p0"))
    assert life.held() == []
    assert life.reason("refund:r1").startswith("unknown_amount: ")


def test_money_that_returns_says_how_much_was_taken(lived: Lived) -> None:
    life = lived(
        charge("p1", "10 EUR", "1 Mar"),
        dispute("d1", "10 EUR", "2 Mar", "p1"),
        returned("w1", "10 EUR", "2 Apr", "p1"),
    )
    assert life.evidence("reinstated:w1") == ["reinstated: 10 of 10 that were taken back"]


def test_the_amount_of_a_loss_stays_while_it_may_have_been_posted(lived: Lived) -> None:
    """A worker dies over a refund of all that is left; then a part of it is told of."""
    life = lived(charge("p1", "10 EUR", "1 Mar"))
    life.arrive(refund("r2", None, "3 Mar", "p1"))
    (delivery,) = life.claim(1)
    life.steps.die((6, "after"))
    assert not life.deliver(delivery)
    assert len(life.held()) == 2  # it was posted, and nobody wrote it down
    life.arrive(refund("r1", "4 EUR", "2 Mar", "p1"))
    life.deliver_all()
    life.clock.now += LEASE
    life.deliver_all()
    assert life.held() == [new("p1", "10 EUR"), taken("r2", "10 EUR")]
    assert life.reason("refund:r1") == "already_taken_back"


def test_a_teller_that_dies_lets_those_speak_that_were_silent(lived: Lived) -> None:
    life = lived(charge("p0", "10 EUR", "1 Mar"))
    life.arrive(charge("p1", "10 ZZZ", "1 Mar", by="order"))
    life.box.faults.set(Fault(status=503), 1)
    life.deliver_all()
    life.arrive(charge("p1", "10 EUR", "1 Mar", by="invoice"))
    life.deliver_all()
    assert life.reason("charge:p1:invoice") == "already_told"
    life.pass_until()
    assert life.reason("charge:p1:order").startswith("rejected: ")
    assert life.held() == [new("p0", "10 EUR"), new("p1", "10 EUR")]


# Whose it was


def test_the_evidence_of_a_visitor_names_the_way_it_came(lived: Lived) -> None:
    life = lived(
        seen("activated", "1 Mar", subscription="s1", visitor=ANN),
        charge("p1", "10 EUR", "1 Mar 12:01", subscription="s1"),
    )
    assert f"inherited: visitor {ANN}, by its subscription" in life.evidence("charge:p1")


# The arithmetic of losses

START = datetime(2026, 3, 1, tzinfo=UTC)


def loss(kind: Kind, amount: str | None, number: int, *, total: bool = False) -> Loss:
    exact = None if amount is None else Decimal(amount)
    return Loss(kind, str(number), START + timedelta(days=number), exact, total)


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ([("refund", "10"), ("refund", None)], ["10", "19.99"]),
        ([("refund", "20"), ("refund", "20")], ["20", "20"]),
        ([("refund", "10"), ("dispute", "29.99")], ["10", "19.99"]),
        ([("dispute", "29.99"), ("refund", "29.99")], ["29.99", "0"]),
        ([("dispute", "29.99"), ("reinstated", "29.99"), ("dispute", "29.99")], ["29.99"] * 3),
        ([("refund", "5"), ("dispute", "29.99"), ("reinstated", "29.99")], ["5", "24.99", "24.99"]),
        ([("refund", "5"), ("reinstated", "9")], ["5", "5"]),
    ],
    ids=lambda it: " ".join(str(each) for each in it),
)
def test_what_each_loss_stands_for(told: list[tuple[str, str | None]], wanted: list[str]) -> None:
    losses = [loss(Kind(kind), amount, n) for n, (kind, amount) in enumerate(told)]
    for order in (losses, losses[::-1]):  # the order of arrival does not matter
        found = shares(order, Decimal("29.99")).of
        assert [found[it.key] for it in losses] == [Decimal(it) for it in wanted]


def test_totals_add_what_is_new_in_them() -> None:
    told = [loss(Kind.REFUND, "10", 1, total=True), loss(Kind.REFUND, "25", 2, total=True)]
    assert list(shares(told, None).of.values()) == [Decimal(10), Decimal(15)]
