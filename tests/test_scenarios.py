"""Scenarios from life, each told in its order: what DataFast must hold at the end, exactly."""

from collections.abc import Iterator

import pytest
from scenarios import (
    ANN,
    BOB,
    EVE,
    Scenario,
    World,
    charge,
    dispute,
    free_trial,
    hurry,
    identified,
    net,
    new,
    refund,
    renewal,
    returned,
    seen,
    sums,
    taken,
    trial,
)

from relay.store import Store

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
READINGS = ("original_id", "refund_id")

# Subscriptions

SUBSCRIPTIONS = [
    Scenario(
        "a monthly subscription over a year with a failed payment",
        [
            charge("p1", "9.99 EUR", "10 Jan", subscription="s1", visitor=ANN, customer="c1"),
            *(
                charge(f"p{n}", "9.99 EUR", f"10 {MONTHS[n - 1]}", subscription="s1")
                for n in range(2, 13)
                if n != 6
            ),
            seen("p6 failed", "10 Jun", subscription="s1", transaction="p6"),
            charge("p6", "9.99 EUR", "13 Jun", subscription="s1", by="second try"),
        ],
        [
            new("p1", "9.99 EUR", ANN, customer="c1"),
            *(renewal(f"p{n}", "9.99 EUR", ANN, customer="c1") for n in range(2, 13)),
        ],
    ),
    Scenario(
        "an upgrade with proration",
        [
            charge("p1", "10 EUR", "1 Mar", subscription="s1", visitor=ANN),
            charge("p2", "7.42 EUR", "12 Mar", subscription="s1"),
            refund("r1", "3.23 EUR", "12 Mar 12:01", "p1"),
            charge("p3", "20 EUR", "1 Apr", subscription="s1"),
        ],
        [
            new("p1", "10 EUR", ANN),
            renewal("p2", "7.42 EUR", ANN),
            taken("r1", "3.23 EUR", ANN),
            renewal("p3", "20 EUR", ANN),
        ],
    ),
    Scenario(
        "a pause of four months",
        [
            charge("p1", "10 EUR", "1 Feb", subscription="s1", visitor=ANN, since="1 Feb"),
            seen("paused", "2 Feb", subscription="s1"),
            seen("resumed", "1 Jun", subscription="s1", since="1 Jun"),
            charge("p2", "10 EUR", "1 Jun", subscription="s1", since="1 Feb"),
        ],
        [new("p1", "10 EUR", ANN), renewal("p2", "10 EUR", ANN)],
    ),
    Scenario(
        "an annual plan with a coupon",
        [
            charge("p1", "79.20 USD", "1 Feb", subscription="s1", visitor=ANN, recurrence="first"),
            charge("p2", "99 USD", "1 Feb 2027", subscription="s1"),
        ],
        [new("p1", "79.20 USD", ANN), renewal("p2", "99 USD", ANN)],
    ),
    Scenario(
        "two subscriptions of one customer",
        [
            charge("a1", "10 EUR", "1 Feb", subscription="s1", customer="c1", visitor=ANN),
            charge("b1", "20 EUR", "3 Feb", subscription="s2", customer="c1"),
            charge("a2", "10 EUR", "1 Mar", subscription="s1", customer="c1"),
            charge("b2", "20 EUR", "3 Mar", subscription="s2", customer="c1"),
        ],
        [
            new("a1", "10 EUR", ANN, customer="c1"),
            new("b1", "20 EUR", ANN, customer="c1"),
            renewal("a2", "10 EUR", ANN, customer="c1"),
            renewal("b2", "20 EUR", ANN, customer="c1"),
        ],
    ),
    Scenario(
        "a renewal that comes before the first charge",
        [
            charge("p2", "10 EUR", "1 Mar", subscription="s1"),
            charge("p1", "10 EUR", "1 Feb", subscription="s1", arrives="1 Mar 12:05", visitor=ANN),
        ],
        [new("p1", "10 EUR", ANN), renewal("p2", "10 EUR", ANN)],
    ),
    Scenario(
        "a renewal that comes days before the first charge",
        [
            charge("p2", "10 EUR", "1 Mar", subscription="s1"),
            charge("p1", "10 EUR", "1 Feb", subscription="s1", arrives="4 Mar", visitor=ANN),
        ],
        [new("p1", "10 EUR", ANN), renewal("p2", "10 EUR", ANN)],
        sent=[new("p1", "10 EUR", ANN), new("p2", "10 EUR")],
    ),
    Scenario(
        "a business of years that gets a relay",
        [
            charge("p1", "10 EUR", "7 Mar", subscription="s1", since="7 Oct 2021"),
            charge("p2", "10 EUR", "7 Apr", subscription="s1", since="7 Oct 2021"),
            charge("q1", "10 EUR", "8 Mar", subscription="s2", since="8 Mar"),
        ],
        [renewal("p1", "10 EUR"), renewal("p2", "10 EUR"), new("q1", "10 EUR")],
    ),
    Scenario(
        "a business of years whose provider says when it began only later",
        [
            charge("p1", "10 EUR", "7 Mar", subscription="s1"),
            seen("updated", "9 Mar", subscription="s1", since="7 Oct 2021"),
        ],
        [renewal("p1", "10 EUR")],
        sent=[new("p1", "10 EUR")],
    ),
    Scenario(
        "the provider says which is first and which renews",
        [
            charge("p1", "10 EUR", "1 Mar", subscription="s1", recurrence="first"),
            charge("p2", "10 EUR", "1 Apr", subscription="s1", recurrence="renewal"),
            charge("p3", "10 EUR", "1 Apr", recurrence="renewal"),
            charge("p4", "10 EUR", "1 Apr"),
        ],
        [
            new("p1", "10 EUR"),
            renewal("p2", "10 EUR"),
            renewal("p3", "10 EUR"),
            new("p4", "10 EUR"),
        ],
    ),
]

# Trials and zeros

TRIALS = [
    Scenario(
        "a trial, its conversion, a renewal",
        [
            trial("t1", "1 Mar", subscription="s1", visitor=ANN, customer="c1", email="ann@x.org"),
            charge("p1", "29.99 EUR", "15 Mar", subscription="s1"),
            charge("p2", "29.99 EUR", "15 Apr", subscription="s1"),
        ],
        [
            free_trial("t1", visitor=ANN, customer="c1", email="ann@x.org"),
            new("p1", "29.99 EUR", ANN, customer="c1", email="ann@x.org"),
            renewal("p2", "29.99 EUR", ANN, customer="c1", email="ann@x.org"),
        ],
    ),
    Scenario(
        "a trial whose conversion the provider calls a renewal",
        [
            trial("t1", "1 Mar", subscription="s1", visitor=ANN),
            charge("p1", "29.99 EUR", "15 Mar", subscription="s1", recurrence="renewal"),
            charge("p2", "29.99 EUR", "15 Apr", subscription="s1", recurrence="renewal"),
        ],
        [
            free_trial("t1", visitor=ANN),
            new("p1", "29.99 EUR", ANN),
            renewal("p2", "29.99 EUR", ANN),
        ],
    ),
    Scenario(
        "a trial of which the provider says nothing",
        [
            seen("activated", "1 Mar", subscription="s1", since="1 Mar", visitor=ANN),
            charge("p1", "29.99 EUR", "15 Mar", subscription="s1", since="1 Mar"),
            charge("p2", "29.99 EUR", "15 Apr", subscription="s1", since="1 Mar"),
        ],
        [new("p1", "29.99 EUR", ANN), renewal("p2", "29.99 EUR", ANN)],
    ),
    Scenario(
        "a trial that is told of after its conversion was sent",
        [
            charge("p1", "29.99 EUR", "15 Mar", subscription="s1", recurrence="renewal"),
            trial("t1", "1 Mar", arrives="16 Mar", subscription="s1", visitor=ANN),
        ],
        [free_trial("t1", visitor=ANN), new("p1", "29.99 EUR", ANN)],
        sent=[free_trial("t1", visitor=ANN), renewal("p1", "29.99 EUR")],
    ),
    Scenario(
        "a trial that is never converted",
        [trial("t1", "1 Mar", subscription="s1", visitor=ANN), seen("ended", "15 Mar")],
        [free_trial("t1", visitor=ANN)],
    ),
    Scenario(
        "an order that is free, then one that is paid",
        [
            charge("p1", "0 EUR", "1 Mar", customer="c1", visitor=ANN),
            charge("p2", "49 EUR", "9 Mar", customer="c1"),
        ],
        [new("p2", "49 EUR", ANN, customer="c1")],
    ),
    Scenario(
        "a first month for nothing, then a subscription that is paid",
        [
            charge("p1", "0 EUR", "1 Mar", subscription="s1", visitor=ANN),
            charge("p2", "9 EUR", "1 Apr", subscription="s1"),
            charge("p3", "9 EUR", "1 May", subscription="s1"),
        ],
        [new("p2", "9 EUR", ANN), renewal("p3", "9 EUR", ANN)],
    ),
]

# Whose it was

CUSTOMERS = [
    Scenario(
        "one customer at two providers",
        [
            charge("p1", "10 EUR", "1 Mar", email="ann@x.org", visitor=ANN, source="till"),
            charge("k1", "5 USD", "9 Mar", email="Ann@X.org", source="kiosk"),
        ],
        [
            new("p1", "10 EUR", ANN, email="ann@x.org"),
            new("k1", "5 USD", ANN, email="Ann@X.org"),
        ],
        sites={"till": "site", "kiosk": "site"},
    ),
    Scenario(
        "one customer at two providers with addresses left alone",
        [
            charge("p1", "10 EUR", "1 Mar", email="ann@x.org", visitor=ANN, source="till"),
            charge("k1", "5 USD", "9 Mar", email="ann@x.org", source="kiosk"),
        ],
        [new("p1", "10 EUR", ANN, email="ann@x.org"), new("k1", "5 USD", email="ann@x.org")],
        sites={"till": "site", "kiosk": "site"},
        match_email=False,
    ),
    Scenario(
        "two providers whose customers have the same numbers",
        [
            charge("p1", "10 EUR", "1 Mar", customer="17", visitor=ANN, source="till"),
            charge("k1", "5 USD", "9 Mar", customer="17", source="kiosk"),
        ],
        [new("p1", "10 EUR", ANN, customer="17"), new("k1", "5 USD", customer="17")],
        sites={"till": "site", "kiosk": "site"},
    ),
    Scenario(
        "two sites that never share a visitor",
        [
            charge("p1", "10 EUR", "1 Mar", email="ann@x.org", visitor=ANN, source="till"),
            charge("k1", "5 USD", "9 Mar", email="ann@x.org", source="kiosk"),
            charge("p1", "5 USD", "9 Mar", email="ann@x.org", source="kiosk", by="same id"),
        ],
        [
            new("p1", "10 EUR", ANN, email="ann@x.org"),
            new("k1", "5 USD", email="ann@x.org"),
            new("p1", "5 USD", email="ann@x.org"),
        ],
        sites={"till": "blue", "kiosk": "red"},
    ),
    Scenario(
        "an address with other capitals",
        [
            charge("p1", "10 EUR", "1 Mar", email="Ann@X.org", visitor=ANN),
            charge("p2", "10 EUR", "2 Apr", email="ann@x.ORG"),
        ],
        [
            new("p1", "10 EUR", ANN, email="Ann@X.org"),
            new("p2", "10 EUR", ANN, email="ann@x.ORG"),
        ],
    ),
    Scenario(
        "a guest checkout, then an account",
        [
            charge("p1", "10 EUR", "1 Mar", email="ann@x.org", visitor=ANN),
            charge("p2", "10 EUR", "2 Apr", email="ann@x.org", customer="c1"),
            charge("p3", "10 EUR", "2 May", customer="c1"),
        ],
        [
            new("p1", "10 EUR", ANN, email="ann@x.org"),
            new("p2", "10 EUR", ANN, email="ann@x.org", customer="c1"),
            new("p3", "10 EUR", ANN, email="ann@x.org", customer="c1"),
        ],
    ),
    Scenario(
        "a visitor whom only a later telling knows",
        [
            charge("p1", "10 EUR", "1 Mar", by="paid"),
            charge("p1", "10 EUR", "1 Mar", by="invoice", arrives="1 Mar 12:01", visitor=ANN),
        ],
        [new("p1", "10 EUR", ANN)],
        sent=[new("p1", "10 EUR")],
    ),
    Scenario(
        "a visitor of a checkout that moved no money",
        [
            seen("checkout", "1 Mar", reference="order 7", visitor=ANN, email="ann@x.org"),
            charge("p1", "10 EUR", "1 Mar 12:01", reference="order 7"),
        ],
        [new("p1", "10 EUR", ANN, email="ann@x.org")],
    ),
    Scenario(
        "a checkout that is told of after its payment was sent",
        [
            charge("p1", "10 EUR", "1 Mar 12:01", reference="order 7"),
            refund("r1", "4 EUR", "2 Mar", "p1"),
            seen("checkout", "1 Mar", arrives="3 Mar", transaction="p1", visitor=ANN),
        ],
        [new("p1", "10 EUR", ANN), taken("r1", "4 EUR", ANN)],
        sent=[new("p1", "10 EUR"), taken("r1", "4 EUR")],
    ),
    Scenario(
        "a customer who comes back as another visitor",
        [
            charge("p1", "10 EUR", "1 Mar", customer="c1", visitor=ANN),
            charge("p2", "10 EUR", "1 Apr", customer="c1"),
            charge("p3", "10 EUR", "1 May", customer="c1", visitor=BOB),
            charge("p4", "10 EUR", "1 Jun", customer="c1"),
        ],
        [
            new("p1", "10 EUR", ANN, customer="c1"),
            new("p2", "10 EUR", ANN, customer="c1"),
            new("p3", "10 EUR", BOB, customer="c1"),
            new("p4", "10 EUR", BOB, customer="c1"),
        ],
    ),
    Scenario(
        "the nearest visitor outdoes those farther away",
        [
            charge("p0", "1 EUR", "1 Feb", customer="c1", visitor=EVE),
            seen("cart", "28 Feb", email="ann@x.org", visitor=BOB),
            seen("activated", "1 Mar", subscription="s1", visitor=ANN),
            charge("p1", "10 EUR", "1 Mar", subscription="s1", customer="c1", email="ann@x.org"),
        ],
        [
            new("p0", "1 EUR", EVE, customer="c1"),
            new("p1", "10 EUR", ANN, customer="c1", email="ann@x.org"),
        ],
    ),
    Scenario(
        "the owner's site says who it is, by address",
        [
            identified("1 Mar 11:55", visitor=ANN, email="ann@x.org"),
            charge("p1", "10 EUR", "1 Mar", email="Ann@x.org"),
            identified("5 Mar", visitor=BOB, email="ann@x.org"),
            charge("p2", "10 EUR", "6 Mar", email="ann@x.org"),
        ],
        [new("p1", "10 EUR", ANN, email="Ann@x.org"), new("p2", "10 EUR", BOB, email="ann@x.org")],
    ),
    Scenario(
        "the owner's site says who it is, by customer and by order, to two providers",
        [
            identified("1 Mar 11:55", visitor=ANN, customer="c1"),
            identified("1 Mar 11:56", visitor=BOB, reference="order 7"),
            charge("p1", "10 EUR", "1 Mar", customer="c1", source="till"),
            charge("order 7", "10 EUR", "1 Mar", source="kiosk"),
        ],
        [new("p1", "10 EUR", ANN, customer="c1"), new("order 7", "10 EUR", BOB)],
        sites={"till": "site", "kiosk": "site"},
    ),
    Scenario(
        "the subscription knows the address, and the owner's site whose it is",
        [
            identified("1 Mar 11:55", visitor=ANN, email="ann@x.org"),
            seen("activated", "1 Mar", subscription="s1", email="ann@x.org"),
            charge("p1", "10 EUR", "1 Mar 12:01", subscription="s1"),
            charge("p2", "10 EUR", "1 Apr", subscription="s1"),
        ],
        [
            new("p1", "10 EUR", ANN, email="ann@x.org"),
            renewal("p2", "10 EUR", ANN, email="ann@x.org"),
        ],
    ),
    Scenario(
        "a visitor of a test does not leak into real payments",
        [
            seen("checkout", "1 Mar", email="ann@x.org", visitor=EVE, test=True),
            charge("p0", "10 EUR", "1 Mar", email="ann@x.org", visitor=EVE, test=True),
            charge("p1", "10 EUR", "2 Mar", email="ann@x.org"),
        ],
        [new("p1", "10 EUR", email="ann@x.org")],
    ),
    Scenario(
        "test events where the source wants them",
        [charge("p0", "10 EUR", "1 Mar", visitor=ANN, test=True)],
        [new("p0", "10 EUR", ANN)],
        test_events="forward",
    ),
]

# One movement, told by several

TELLERS = [
    Scenario(
        "one payment told by two events",
        [
            charge("p1", "10 EUR", "1 Mar", by="order", visitor=ANN),
            charge("p1", "10 EUR", "1 Mar", by="invoice", customer="c1"),
        ],
        [new("p1", "10 EUR", ANN)],
    ),
    Scenario(
        "one payment told by three, the poorest first",
        [
            charge("p1", "10 EUR", "1 Mar", by="authorised"),
            charge("p1", "10 EUR", "1 Mar", by="captured", arrives="1 Mar 12:01", email="a@x.org"),
            charge(
                "p1",
                "10 EUR",
                "1 Mar",
                by="invoice",
                arrives="1 Mar 12:02",
                subscription="s1",
                recurrence="renewal",
                visitor=ANN,
            ),
        ],
        [renewal("p1", "10 EUR", ANN, email="a@x.org")],
        sent=[new("p1", "10 EUR")],
    ),
    Scenario(
        "one payment told by five, the first of which says little and waits",
        [
            charge("p1", "10 EUR", "1 Mar", by="1", recurrence="unknown"),
            charge("p1", "10 EUR", "1 Mar", by="2", arrives="1 Mar 12:01", name="Ann"),
            charge("p1", "10 EUR", "1 Mar", by="3", arrives="1 Mar 12:02", email="ann@x.org"),
            charge("p1", "10 EUR", "1 Mar", by="4", arrives="1 Mar 12:03", customer="c1"),
            charge(
                "p1",
                "10 EUR",
                "1 Mar",
                by="5",
                arrives="1 Mar 12:04",
                subscription="s1",
                since="1 Mar",
                visitor=ANN,
            ),
        ],
        [new("p1", "10 EUR", ANN, email="ann@x.org", name="Ann", customer="c1")],
    ),
    Scenario(
        "a teller that DataFast refuses and another one of the same money",
        [
            charge("p1", "10 ZZZ", "1 Mar", by="order"),
            charge("p1", "10 EUR", "1 Mar", by="invoice", arrives="1 Mar 12:01"),
        ],
        [new("p1", "10 EUR")],
    ),
]

# Refunds


def _all_back(policy: str, reading: str) -> Scenario:
    own = reading if policy == "auto" else policy
    return Scenario(
        f"a full refund, {policy} where DataFast means {reading}",
        [
            charge("p1", "10 EUR", "1 Mar", visitor=ANN),
            refund("r1", "10 EUR", "2 Mar", "p1"),
        ],
        [new("p1", "10 EUR", ANN), taken("r1", "10 EUR", ANN)],
        posted=["p1", "p1" if own == "original_id" else "r1"],
        refunds=policy,
        reading=reading,
    )


REFUNDS = [
    *(
        _all_back(policy, reading)
        for policy in ("auto", "original_id", "refund_id")
        for reading in READINGS
        if (policy, reading) != ("original_id", "refund_id")
    ),
    Scenario(
        "a full refund under an id that DataFast takes for a repetition",
        [
            charge("p1", "10 EUR", "1 Mar", visitor=ANN),
            refund("r1", "10 EUR", "2 Mar", "p1"),
        ],
        [new("p1", "10 EUR", ANN)],
        posted=["p1"],
        refunds="original_id",
        reading="refund_id",
        alike="none",
        since="the policy contradicts DataFast: docs/datafast.md says to leave it at auto",
    ),
    Scenario(
        "a refund a year later",
        [
            charge("p1", "10 EUR", "1 Mar", customer="c1", visitor=ANN, email="ann@x.org"),
            charge("p2", "10 EUR", "1 Jan 2027", customer="c1", visitor=BOB),
            refund("r1", "10 EUR", "1 Mar 2027", "p1"),
        ],
        [
            new("p1", "10 EUR", ANN, customer="c1", email="ann@x.org"),
            new("p2", "10 EUR", BOB, customer="c1", email="ann@x.org"),
            taken("r1", "10 EUR", ANN, customer="c1", email="ann@x.org"),
        ],
    ),
    Scenario(
        "a refund whose payment has its visitor from the subscription",
        [
            charge("p1", "10 EUR", "1 Mar", subscription="s1", visitor=ANN, email="ann@x.org"),
            charge("p2", "10 EUR", "1 Apr", subscription="s1"),
            refund("r1", "10 EUR", "3 Apr", "p2"),
        ],
        [
            new("p1", "10 EUR", ANN, email="ann@x.org"),
            renewal("p2", "10 EUR", ANN, email="ann@x.org"),
            taken("r1", "10 EUR", ANN, email="ann@x.org"),
        ],
    ),
    Scenario(
        "several partial refunds up to the whole",
        [
            charge("p1", "29.99 EUR", "1 Mar", visitor=ANN),
            refund("r1", "10 EUR", "2 Mar", "p1"),
            refund("r2", "10 EUR", "3 Mar", "p1"),
            refund("r3", "9.99 EUR", "4 Mar", "p1"),
        ],
        [
            new("p1", "29.99 EUR", ANN),
            taken("r1", "10 EUR", ANN),
            taken("r2", "10 EUR", ANN),
            taken("r3", "9.99 EUR", ANN),
        ],
    ),
    Scenario(
        "more back than was left",
        [
            charge("p1", "10 EUR", "1 Mar"),
            refund("r1", "6 EUR", "2 Mar", "p1"),
            refund("r2", "6 EUR", "3 Mar", "p1"),
        ],
        [new("p1", "10 EUR"), taken("r1", "6 EUR"), taken("r2", "6 EUR")],
    ),
    Scenario(
        "a refund that comes before its payment",
        [
            refund("r1", "10 EUR", "2 Mar", "p1"),
            charge("p1", "10 EUR", "1 Mar", arrives="2 Mar 12:05", visitor=ANN),
        ],
        [new("p1", "10 EUR", ANN), taken("r1", "10 EUR", ANN)],
        posted=["p1", "p1"],
    ),
    Scenario(
        "a refund that comes days before its payment",
        [
            refund("r1", "10 EUR", "2 Mar", "p1"),
            charge("p1", "10 EUR", "1 Mar", arrives="5 Mar", visitor=ANN),
        ],
        [new("p1", "10 EUR", ANN), taken("r1", "10 EUR", ANN)],
        sent=[new("p1", "10 EUR", ANN), taken("r1", "10 EUR")],
        posted=["p1", "r1"],
    ),
    Scenario(
        "a refund of a payment that was never seen",
        [refund("r1", "10 EUR", "2 Mar", "p0"), refund("r2", "3 EUR", "2 Mar", None)],
        [taken("r1", "10 EUR"), taken("r2", "3 EUR")],
    ),
    Scenario(
        "a refund of unknown size that comes days before its payment",
        [
            refund("r1", None, "2 Mar", "p1"),
            charge("p1", "10 EUR", "1 Mar", arrives="5 Mar"),
        ],
        [new("p1", "10 EUR"), taken("r1", "10 EUR")],
    ),
    Scenario(
        "a refund in another currency",
        [
            charge("p1", "10 EUR", "1 Mar", visitor=ANN),
            refund("r1", "11.20 USD", "2 Mar", "p1"),
        ],
        [new("p1", "10 EUR", ANN), taken("r1", "11.20 USD", ANN)],
    ),
    Scenario(
        "a refund without an amount after a partial one",
        [
            charge("p1", "29.99 EUR", "1 Mar"),
            refund("r1", "10 EUR", "2 Mar", "p1"),
            refund("r2", None, "3 Mar", "p1"),
        ],
        [new("p1", "29.99 EUR"), taken("r1", "10 EUR"), taken("r2", "19.99 EUR")],
        alike="sums",
        since="what is told first takes all that is left, and the sum is right at once",
    ),
    Scenario(
        "refunds that say how much it is by now",
        [
            charge("p1", "29.99 EUR", "1 Mar"),
            refund("r1", "10 EUR", "2 Mar", "p1", total=True),
            refund("r2", "29.99 EUR", "3 Mar", "p1", total=True),
        ],
        [new("p1", "29.99 EUR"), taken("r1", "10 EUR"), taken("r2", "19.99 EUR")],
        alike="sums",
        since="the later total holds the earlier one, and the sum is right at once",
    ),
    Scenario(
        "a refund that failed, and its second try",
        [
            charge("p1", "10 EUR", "1 Mar", visitor=ANN),
            refund("r1", "10 EUR", "2 Mar", "p1"),
            returned("f1", "10 EUR", "4 Mar", "p1"),
            refund("r2", "10 EUR", "5 Mar", "p1"),
        ],
        [
            new("p1", "10 EUR", ANN),
            taken("r1", "10 EUR", ANN),
            new("f1", "10 EUR", ANN),
            taken("r2", "10 EUR", ANN),
        ],
    ),
    Scenario(
        "amounts of yen and of dinars",
        [
            charge("p1", "2999 JPY", "1 Mar"),
            charge("p2", "29.995 KWD", "1 Mar"),
            refund("r1", "999 JPY", "2 Mar", "p1"),
            refund("r2", "0.005 KWD", "2 Mar", "p2"),
        ],
        [
            new("p1", "2999 JPY"),
            new("p2", "29.995 KWD"),
            taken("r1", "999 JPY"),
            taken("r2", "0.005 KWD"),
        ],
    ),
    Scenario(
        "payments that are years old",
        [
            charge("p1", "10 EUR", "1 Mar 2019", arrives="2 Jan", subscription="s1", visitor=ANN),
            charge("p2", "10 EUR", "1 Apr 2019", arrives="2 Jan", subscription="s1"),
            refund("r2", "10 EUR", "3 Apr 2019", "p2", arrives="2 Jan"),
        ],
        [new("p1", "10 EUR", ANN), renewal("p2", "10 EUR", ANN), taken("r2", "10 EUR", ANN)],
    ),
]

# Disputes

SAME_LOSS = (
    "which of them is told first takes what the other tells of, and the sum is right at once"
)
DISPUTES = [
    Scenario(
        "two partial refunds and a chargeback that is won",
        [
            charge("p1", "29.99 EUR", "1 Mar"),
            refund("r1", "5 EUR", "2 Mar", "p1"),
            refund("r2", "5 EUR", "3 Mar", "p1"),
            dispute("d1", "29.99 EUR", "9 Mar", "p1"),
            returned("w1", "29.99 EUR", "9 Apr", "p1"),
        ],
        [
            new("p1", "29.99 EUR"),
            taken("r1", "5 EUR"),
            taken("r2", "5 EUR"),
            taken("d1", "19.99 EUR"),
            new("w1", "19.99 EUR"),
        ],
        alike="sums",
        since=SAME_LOSS,
    ),
    Scenario(
        "a refund, then a dispute for the same money",
        [
            charge("p1", "10 EUR", "1 Mar"),
            refund("r1", "10 EUR", "2 Mar", "p1"),
            dispute("d1", "10 EUR", "3 Mar", "p1"),
        ],
        [new("p1", "10 EUR"), taken("r1", "10 EUR")],
        alike="sums",
        since=SAME_LOSS,
    ),
    Scenario(
        "a dispute, then a refund that settles it",
        [
            charge("p1", "10 EUR", "1 Mar"),
            dispute("d1", "10 EUR", "2 Mar", "p1"),
            refund("r1", "10 EUR", "3 Mar", "p1"),
        ],
        [new("p1", "10 EUR"), taken("d1", "10 EUR")],
        alike="sums",
        since=SAME_LOSS,
    ),
    Scenario(
        "a dispute that is lost",
        [
            charge("p1", "10 EUR", "1 Mar", visitor=ANN),
            dispute("d1", "10 EUR", "2 Mar", "p1", by="opened"),
            dispute("d1", "10 EUR", "2 Mar", "p1", by="lost", arrives="2 Apr"),
        ],
        [new("p1", "10 EUR", ANN), taken("d1", "10 EUR", ANN)],
    ),
    Scenario(
        "a dispute of a renewal that is won",
        [
            charge("p1", "10 EUR", "1 Mar", subscription="s1", visitor=ANN),
            charge("p2", "10 EUR", "1 Apr", subscription="s1"),
            dispute("d2", "10 EUR", "2 Apr", "p2"),
            returned("w2", "10 EUR", "2 May", "p2"),
        ],
        [
            new("p1", "10 EUR", ANN),
            renewal("p2", "10 EUR", ANN),
            taken("d2", "10 EUR", ANN),
            renewal("w2", "10 EUR", ANN),
        ],
    ),
    Scenario(
        "a dispute that is won twice",
        [
            charge("p1", "10 EUR", "1 Mar"),
            dispute("d1", "10 EUR", "2 Mar", "p1"),
            returned("w1", "10 EUR", "2 Apr", "p1"),
            returned("w2", "10 EUR", "3 Apr", "p1"),
        ],
        [new("p1", "10 EUR"), taken("d1", "10 EUR"), new("w1", "10 EUR")],
        alike="sums",
        since="nobody can tell which of the two it was",
    ),
    Scenario(
        "a dispute that the owner ignores, and wins",
        [
            charge("p1", "10 EUR", "1 Mar"),
            dispute("d1", "10 EUR", "2 Mar", "p1"),
            returned("w1", "10 EUR", "2 Apr", "p1"),
        ],
        [new("p1", "10 EUR")],
        disputes="ignore",
    ),
    Scenario(
        "a second chargeback after the first was won",
        [
            charge("p1", "10 EUR", "1 Mar"),
            dispute("d1", "10 EUR", "2 Mar", "p1"),
            returned("w1", "10 EUR", "2 Apr", "p1"),
            dispute("d2", "10 EUR", "2 May", "p1"),
        ],
        [new("p1", "10 EUR"), taken("d1", "10 EUR"), new("w1", "10 EUR"), taken("d2", "10 EUR")],
    ),
    Scenario(
        "a chargeback without an amount that is won, and comes again",
        [
            charge("p1", "10 EUR", "1 Mar"),
            dispute("d1", None, "2 Mar", "p1"),
            returned("w1", "10 EUR", "2 Apr", "p1"),
            dispute("d2", None, "2 May", "p1"),
        ],
        [new("p1", "10 EUR"), taken("d1", "10 EUR"), new("w1", "10 EUR"), taken("d2", "10 EUR")],
    ),
    Scenario(
        "money that returns before it was taken",
        [
            charge("p1", "10 EUR", "1 Mar"),
            returned("w1", "10 EUR", "2 Apr", "p1"),
            dispute("d1", "10 EUR", "2 Mar", "p1", arrives="4 Apr"),
        ],
        [new("p1", "10 EUR"), taken("d1", "10 EUR"), new("w1", "10 EUR")],
    ),
]

SCENARIOS = [*SUBSCRIPTIONS, *TRIALS, *CUSTOMERS, *TELLERS, *REFUNDS, *DISPUTES]


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    hurry(store)
    found = World(store)
    yield found
    found.close()


def test_there_are_enough_scenarios_and_no_two_have_one_name() -> None:
    assert len({it.title for it in SCENARIOS}) == len(SCENARIOS) >= 40


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda it: it.slug)
def test_told_in_order(world: World, scenario: Scenario) -> None:
    life = world.begin(scenario)
    life.live()
    first = sorted(scenario.datafast if scenario.sent is None else scenario.sent)
    assert life.held() == first, life.told()
    life.check()
    if scenario.posted is not None:
        posted = sorted(it["transaction_id"] for it in life.records())
        assert posted == sorted(scenario.posted)
    life.repair()
    assert life.held() == sorted(scenario.datafast), life.told()
    assert sums(life.held()) == sums(scenario.datafast)
    assert net(life.held()) == net(scenario.datafast)
    life.check()
