"""Meaning that needs memory: what one event alone cannot tell.

What events tell (facts) is kept, one row an event; what is sent is judged from all the facts about
it, so that neither the order of arrival nor repetitions matter:

- one movement of money is sent once, however many events tell of it, with what all of them know;
- a subscription's first paid charge is new revenue, later ones are renewals, by the provider's time;
- money that is taken back or returns is held against its original;
- the visitor, and who the customer is, follow from payment to payment.

What may still come (a first charge, a refund's original) is waited for, for as long as the source's
`hold_seconds`. What turns out otherwise after it was sent is marked for `relay repair`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from relay.config import Source
from relay.losses import NOTHING, Key, Loss, shares
from relay.model import (
    TAKES_BACK,
    About,
    Decision,
    Delivery,
    Evidence,
    Ignored,
    Kind,
    Payment,
    Recurrence,
    Result,
    State,
)
from relay.store import AnyRow, Memory, Scope, Store
from relay.store.ledger import MOST_NEAR

WAITS_FOR_FIRST = "waits_for_first_charge"
WAITS_FOR_ORIGINAL = "waits_for_original"
WAITS_FOR_LOSS = "waits_for_refund_or_dispute"
HELD = (WAITS_FOR_FIRST, WAITS_FOR_ORIGINAL, WAITS_FOR_LOSS)

# A charge this soon after its subscription began is the first one. A longer gap may hide others.
AT_ONCE = timedelta(days=1)
# A visit that was seen after the payment is the payment's own only if it is the same checkout.
SAME_CHECKOUT = timedelta(hours=1)

_SPEAKS = {State.PENDING, State.DELIVERED}
_LONGEST = 255
_SUREST = (Recurrence.FIRST, Recurrence.RENEWAL, Recurrence.UNKNOWN, Recurrence.ONE_TIME)
# The customer and the address first: they lead to the visitor.
_INHERITED = ("customer_id", "email", "name", "visitor_id")
# What a movement says that can be repaired, and how that is called.
_REPAIRED = {"visitor_id": "visitor", "recurrence": "recurrence", "amount": "amount"}
_HELD_AGAINST = {*TAKES_BACK, Kind.REINSTATED}
_CAME_TO_NOTHING = {"already_taken_back", "nothing_to_reinstate", "unknown_amount"}
_WHO = {
    "transaction_id": "payment",
    "reference": "reference",
    "subscription_id": "subscription",
    "customer_id": "customer",
    "email_key": "e-mail address",
}


@dataclass(frozen=True)
class Verdict:
    """What becomes of an event, and why. A Decision is final, and written down already."""

    result: Payment | Ignored | Decision
    evidence: list[Evidence] = field(default_factory=list)

    @property
    def notes(self) -> dict[str, Any]:
        """For the event's row."""
        return {"evidence": [it.as_json() for it in self.evidence]}


@dataclass(frozen=True)
class Look:
    """What is known to one source, and nothing comes in between."""

    memory: Memory
    source: Source


@dataclass(frozen=True)
class Case(Look):
    """One event before the ledger, which is its own while it is judged."""

    delivery: Delivery
    now: datetime
    first_day: datetime

    @property
    def held_until(self) -> datetime:
        """Until when it may wait for what it needs to know."""
        return self.delivery.request.received_at + timedelta(seconds=self.source.hold_seconds)


def consider(
    store: Store, source: Source, delivery: Delivery, meaning: Payment | Ignored, now: datetime
) -> Verdict:
    """Learn from the event; the payment as it shall be forwarded, or Ignored, or to wait, and why."""
    if isinstance(meaning, Ignored) and not any(_about(meaning).values()):
        return Verdict(meaning)
    if meaning.test and source.test_events == "ignore":
        # What a test says must not be taken for a real customer's.
        return Verdict(meaning if isinstance(meaning, Ignored) else Ignored("test_event"))
    if (
        isinstance(meaning, Payment)
        and meaning.kind is Kind.DISPUTE
        and source.disputes == "ignore"
    ):
        return Verdict(Ignored("dispute"))
    first_day = store.first_day(source.name) or now
    return store.remember(
        source.name,
        source.destination.name,
        lambda memory: judge(Case(memory, source, delivery, now, first_day), meaning),
    )


def judge(case: Case, meaning: Payment | Ignored) -> Verdict:
    """The whole of the ledger, in the order in which it thinks."""
    telling = _telling(meaning, case.delivery.request.received_at)
    news = case.memory.note(case.delivery.id, telling)
    if news:
        spread(case, telling)
    if isinstance(meaning, Ignored):
        return Verdict(meaning)
    teller = case.memory.movement(meaning.kind, meaning.transaction_id)
    if teller and teller.event != case.delivery.id and teller.state in _SPEAKS:
        if news:
            reconsider(case, teller)
        return Verdict(Ignored("already_told"), [_told_by(teller)])
    payment, evidence = identify(case, merge(case, meaning))
    before = teller if teller and teller.event == case.delivery.id else None
    verdict = DECIDE[payment.kind](case, payment)
    if before and payment.kind in _HELD_AGAINST and case.delivery.reason != Result.WITHDRAWN:
        verdict = _as_before(payment, before, verdict)
    verdict = Verdict(verdict.result, [*verdict.evidence, *evidence])
    if isinstance(verdict.result, Decision):
        case.memory.hold(case.delivery, verdict.result, case.now, verdict.notes)
    elif isinstance(verdict.result, Payment):
        claim(case, verdict.result, teller)
    elif news or before:
        balance(case, payment.original_id, without=(payment.kind, payment.transaction_id))
    return verdict


def _as_before(payment: Payment, before: AnyRow, verdict: Verdict) -> Verdict:
    """The amount of a loss stays as it was decided: it may have been posted, and others rely on it."""
    amount, place = Decimal(before.amount), before.recurrence and Recurrence(before.recurrence)
    kept = replace(payment, amount=amount, currency=before.currency, recurrence=place)
    found = verdict.result
    if isinstance(found, Payment) and found.amount == amount:
        return Verdict(kept, verdict.evidence)
    why = f"{before.amount} {before.currency}, as decided before"
    return Verdict(kept, [Evidence(payment.kind, why)])


def claim(case: Case, payment: Payment, teller: AnyRow | None) -> None:
    """This event tells of this movement from now on; what waited for that can be decided."""
    delivery, movement = case.delivery, _movement(payment)
    before = teller if teller and teller.event == delivery.id else None
    changed = before and next((it for it in _REPAIRED if movement[it] != getattr(before, it)), None)
    never_posted = not delivery.attempt or delivery.reason == Result.WITHDRAWN
    if before and not (never_posted and not delivery.interrupted):
        # DataFast may have it already, as it was understood then.
        movement["repair"] = before.repair or (changed and _REPAIRED[changed])
    case.memory.claim(delivery, movement)
    if before is None or changed:
        charge = payment.transaction_id if payment.kind is Kind.CHARGE else payment.original_id
        if charge:
            case.memory.wake(HELD, [Scope("original_id", charge)], case.now)
        balance(case, charge)
        if payment.kind is Kind.CHARGE:
            _mark_back(case, payment.transaction_id)


# One movement, told by several


def merge(case: Case, payment: Payment) -> Payment:
    """The payment with what other events told of the very same movement."""
    told = case.memory.told(payment.kind, payment.transaction_id)
    known = {name: value for row in told for name, value in _columns(row).items()}
    missing: dict[str, Any] = {
        name: known.get(name) for name, value in _about(payment).items() if value is None
    }
    missing["original_id"] = payment.original_id or known.get("original_id")
    earliest = min((row.occurred_at for row in told if row.kind), default=payment.occurred_at)
    place = surest([row.recurrence for row in told])
    return replace(payment, **missing, recurrence=place, occurred_at=earliest)


def surest(said: Sequence[str | None]) -> Recurrence | None:
    """Who knows the place in the subscription outdoes who does not, and that who knows of none."""
    return next((it for it in _SUREST if it in said), None)


# Charges and trials: first or renewal


def charge(case: Case, payment: Payment) -> Verdict:
    """New revenue or a renewal; or wait for what may tell."""
    found, why = recurrence(case, payment)
    if found is None and case.now < case.held_until:
        return Verdict(_wait(case, WAITS_FOR_FIRST), [why])
    return Verdict(replace(payment, recurrence=found or Recurrence.FIRST), [why])


def recurrence(case: Case, payment: Payment) -> tuple[Recurrence | None, Evidence]:
    """By the surest evidence there is; None if an earlier charge may still turn up."""
    told, subscription = payment.recurrence, payment.subscription_id
    if told in {None, Recurrence.ONE_TIME}:
        return Recurrence.ONE_TIME, Evidence("new", "it belongs to no subscription")
    if told is Recurrence.FIRST:
        return told, Evidence("new", f"{case.source.provider.title} says that it is the first")
    if subscription is not None:
        return _in_subscription(case, payment, subscription)
    if told is Recurrence.RENEWAL:
        return told, Evidence("renewal", f"{case.source.provider.title} says so")
    return None, Evidence("new", "nothing says that it is a renewal")


def _in_subscription(
    case: Case, payment: Payment, subscription: str
) -> tuple[Recurrence | None, Evidence]:
    """By what is known of the subscription before this charge."""
    before = case.memory.charge_before(subscription, payment.occurred_at, payment.transaction_id)
    if before is not None:
        paid = f"the subscription {subscription} had a paid charge on {_day(before.occurred_at)}"
        return Recurrence.RENEWAL, Evidence("renewal", paid, before.event)
    trial = case.memory.trial(subscription)
    if trial is not None and trial.occurred_at <= payment.occurred_at:
        since = f"the first paid charge after the trial that began on {_day(trial.occurred_at)}"
        return None, Evidence("new", since, trial.event)
    if payment.recurrence is Recurrence.RENEWAL:
        says_so = Evidence("renewal", f"{case.source.provider.title} says so")
        return Recurrence.RENEWAL, says_so
    return _by_its_age(case, payment, subscription)


def _by_its_age(
    case: Case, payment: Payment, subscription: str
) -> tuple[Recurrence | None, Evidence]:
    """No earlier charge is known: did the relay see the subscription from its beginning?"""
    began, opening = case.memory.beginning(subscription)
    if began is not None and payment.occurred_at - began >= AT_ONCE and began < case.first_day:
        inferred = (
            f"inferred: the subscription {subscription} began on {_day(began)}, before the relay's "
            f"first day with this source, {_day(case.first_day)}"
        )
        return Recurrence.RENEWAL, Evidence("renewal", inferred)
    if began is None and opening is not None:
        began = opening.occurred_at
    if began is not None and abs(payment.occurred_at - began) < AT_ONCE:
        return Recurrence.FIRST, Evidence("new", f"the subscription began on {_day(began)}")
    return None, Evidence("new", f"no earlier charge of the subscription {subscription} is known")


# Money that goes back, and money that returns


def taken_back(case: Case, payment: Payment) -> Verdict:
    """A refund or dispute, held against what is left of its original."""
    if payment.original_id is None:
        why = f"{case.source.provider.title} does not say of which payment"
        return _known_amount(payment, [Evidence(payment.kind, why)])
    original = case.memory.movement(Kind.CHARGE, payment.original_id)
    if original is None:
        why = f"the payment {payment.original_id} is not known here"
        if case.now < case.held_until:
            return Verdict(_wait(case, WAITS_FOR_ORIGINAL), [Evidence(payment.kind, why)])
        if payment.cumulative:
            payment = replace(payment, amount=_standing(case, payment, None).rest)
        return _known_amount(payment, [Evidence(payment.kind, why)])
    payment = replace(payment, currency=payment.currency or original.currency)
    if payment.currency != original.currency:
        why = f"of {original.amount} {original.currency}, in another currency"
        return _known_amount(payment, [Evidence(payment.kind, why, original.event)])
    return _against(case, payment, original)


def _against(case: Case, payment: Payment, original: AnyRow) -> Verdict:
    """In the original's currency: how much is left, and has this loss been told already?"""
    standing = _standing(case, payment, original)
    amount, paid = standing.rest, Decimal(original.amount)
    whole = f"of {original.amount} {original.currency}, paid on {_day(original.occurred_at)}"
    if amount <= 0:
        why = f"all {whole} that it tells of is taken back already"
        last = standing.others[-1].event if standing.others else original.event
        return Verdict(Ignored("already_taken_back"), [Evidence("not sent", why, last)])
    rest = paid - standing.lost - amount
    left = f"{rest} left" if rest >= 0 else f"{-rest} more than was left"
    found = Evidence(payment.kind, f"{amount} {whole}; {left}", original.event)
    return Verdict(replace(payment, amount=amount), [found])


def reinstated(case: Case, payment: Payment) -> Verdict:
    """Money that returns is a payment again, but never more than was taken back here before."""
    original = case.memory.movement(Kind.CHARGE, payment.original_id or "")
    standing = _standing(case, payment, original)
    amount = standing.rest
    if amount <= 0 or standing.early:
        why = Evidence("not sent", "nothing was taken back that could return")
        if case.now < case.held_until:
            return Verdict(_wait(case, WAITS_FOR_LOSS), [why])
        if amount <= 0:
            return Verdict(Ignored("nothing_to_reinstate"), [why])
    again = Recurrence(original.recurrence) if original and original.recurrence else None
    last = standing.others[-1].event if standing.others else None
    why = Evidence("reinstated", f"{amount} of {standing.taken} that were taken back", last)
    currency = payment.currency or (original.currency if original else None)
    return Verdict(replace(payment, amount=amount, currency=currency, recurrence=again), [why])


@dataclass(frozen=True)
class Standing:
    """How one loss or return of money stands among the others of its original.

    `rest` is what it has to say itself; `taken` and `lost` are what was taken back, without and
    with what returned; `early` says that not all of it can be explained yet.
    """

    rest: Decimal
    taken: Decimal
    lost: Decimal
    early: bool
    others: Sequence[AnyRow]


def _standing(case: Case, payment: Payment, original: AnyRow | None) -> Standing:
    """What the others say is not said again: the sum is right, whoever came first."""
    losses = _losses(case.memory.losses(payment.original_id or ""), payment.currency)
    due = shares(losses, Decimal(original.amount) if original else None)
    own = (str(payment.kind), payment.transaction_id)
    others = [
        row
        for row in case.memory.moved_back(payment.original_id or "")
        if (row.kind, row.transaction_id) != own and row.currency == payment.currency
    ]
    others = [row for row in others if row.state is not State.IGNORED]
    said = dict(due.of) | {(it.kind, it.transaction_id): Decimal(it.amount) for it in others}
    said.pop(own, None)
    group = TAKES_BACK if payment.kind in TAKES_BACK else {Kind.REINSTATED}
    rest = due.total(group) - _sum(said, group)
    if payment.amount is not None and not payment.cumulative:
        rest = min(rest, payment.amount)
    taken = _sum({(it.kind, it.transaction_id): Decimal(it.amount) for it in others}, TAKES_BACK)
    return Standing(rest, taken, _net(others), own in due.early, others)


def _losses(rows: Sequence[AnyRow], currency: str | None) -> list[Loss]:
    """What was told of the losses in one currency, each once with all that is known of it."""
    found: dict[Key, Loss] = {}
    for row in rows:
        if row.currency not in {None, currency}:
            continue
        key = (row.kind, row.transaction_id)
        amount = None if row.amount is None else Decimal(row.amount)
        if key not in found:
            found[key] = Loss(*key, row.occurred_at, amount, bool(row.cumulative))
        elif found[key].amount is None:
            found[key] = replace(found[key], amount=amount, cumulative=bool(row.cumulative))
    return list(found.values())


def balance(case: Case, original_id: str | None, without: Key | None = None) -> None:
    """What came to nothing and is needed now is judged again; what is too much or too little, marked."""
    told = case.memory.losses(original_id) if original_id else []
    original = case.memory.movement(Kind.CHARGE, original_id or "") if told else None
    if original is None:
        return
    due = shares(_losses(told, original.currency), Decimal(original.amount))
    rows = [
        it for it in case.memory.moved_back(original_id or "") if it.currency == original.currency
    ]
    decided = {(it.kind, it.transaction_id): it for it in rows if it.state is not State.IGNORED}
    decided.pop(without or ("", ""), None)
    silent = {
        (it.kind, it.transaction_id): it.event
        for it in told
        if it.reason.partition(":")[0] in _CAME_TO_NOTHING and it.event != case.delivery.id
    }
    for group in (TAKES_BACK, {Kind.REINSTATED}):
        said = {key: Decimal(it.amount) for key, it in decided.items()}
        said = {key: said.get(key, NOTHING if key in silent else it) for key, it in due.of.items()}
        said |= {without: NOTHING} if without else {}
        missing = due.total(group) - _sum(said, group)
        for key in (it for it in due.of if missing and it[0] in group):
            lacks = due.of[key] - said[key]
            if key in decided and lacks * missing > 0:
                case.memory.mark(decided[key], "amount")
            elif key in silent and key not in decided and lacks > 0 < missing:
                case.memory.reopen([silent[key]], case.now)
    for row in decided.values():
        if row.kind == Kind.REINSTATED and row.recurrence != original.recurrence:
            case.memory.mark(row, "recurrence")


def _sum(amounts: Mapping[Key, Decimal], kinds: Collection[str]) -> Decimal:
    return sum((it for (kind, _), it in amounts.items() if kind in kinds), NOTHING)


def _net(rows: Sequence[AnyRow]) -> Decimal:
    """Taken back less returned."""
    return sum((Decimal(it.amount) * (1 if it.kind in TAKES_BACK else -1) for it in rows), NOTHING)


def _known_amount(payment: Payment, evidence: list[Evidence]) -> Verdict:
    """Without its original, a refund must say itself how much it is."""
    if payment.amount is not None:
        return Verdict(payment, evidence)
    why = "unknown_amount: the event does not say how much, and its payment is not known here"
    return Verdict(Decision(State.DEAD, why), evidence)


def _wait(case: Case, reason: str) -> Decision:
    """For as long as the source allows."""
    return Decision(State.PENDING, reason, case.held_until, case.delivery.lane, counts=False)


def trial(case: Case, payment: Payment) -> Verdict:
    """Only what the provider calls a trial is one."""
    return Verdict(payment, [Evidence("trial", f"{case.source.provider.title} says so")])


DECIDE = {
    Kind.CHARGE: charge,
    Kind.TRIAL: trial,
    Kind.REFUND: taken_back,
    Kind.DISPUTE: taken_back,
    Kind.REINSTATED: reinstated,
}


# Whose it was


def identify(case: Look, payment: Payment) -> tuple[Payment, list[Evidence]]:
    """The payment with what is missing of its visitor and customer, from the nearest that knows.

    Money that goes back is looked for as its original is, at its original's time.
    """
    evidence = []
    near = Sightings(case.memory)
    like = _original(case, payment) if payment.original_id else payment
    for what in _INHERITED:
        if getattr(payment, what):
            continue
        for scope in scopes(case, like):
            row = _sighting(near, what, scope, like.occurred_at)
            if row is not None:
                found = {what: getattr(row, what)}
                payment, like = replace(payment, **found), replace(like, **found)
                who = _WHO[scope.column]
                shown = f"{what.removesuffix('_id')} {found[what]}" if what != "email" else "e-mail"
                evidence.append(Evidence("inherited", f"{shown}, by its {who}", row.event))
                break
    return payment, evidence


def _original(case: Look, payment: Payment) -> Payment:
    """What the original of a refund is known by, as far as the refund does not say so itself."""
    told = case.memory.told(Kind.CHARGE, payment.original_id or "")
    known = {name: value for row in told for name, value in _columns(row).items()}
    missing: dict[str, Any] = {
        name: known.get(name) for name, value in _about(payment).items() if value is None
    }
    paid_at = min((row.occurred_at for row in told if row.kind), default=payment.occurred_at)
    return replace(payment, **missing, occurred_at=paid_at)


def scopes(case: Look, payment: Payment) -> Iterator[Scope]:
    """Where to look, the nearest first: the payment, its subscription, its customer, the address."""
    for column, value in (
        ("transaction_id", payment.original_id or payment.transaction_id),
        ("reference", payment.reference),
        ("reference", payment.original_id or payment.transaction_id),
        ("subscription_id", payment.subscription_id),
        ("customer_id", payment.customer_id),
        ("email_key", _folded(payment.email) if case.source.destination.match_email else None),
    ):
        if value:
            yield Scope(column, value)


class Sightings:
    """Who was seen near a payment; each place is looked at once, whatever is looked for."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._rows: dict[tuple[Scope, bool], Sequence[AnyRow]] = {}

    def find(self, what: str, scope: Scope, moment: datetime, *, after: bool) -> AnyRow | None:
        """The telling that knows `what`: the last one up to `moment`, or the first one after it."""
        key = (scope, after)
        if key not in self._rows:
            self._rows[key] = self._memory.near(scope, moment, after=after)
        rows = self._rows[key]
        found = [row for row in rows if getattr(row, what) is not None and _may_say(row, what)]
        if not found and len(rows) == MOST_NEAR:
            return self._memory.sighting(what, scope, moment, after=after)
        # Of two at one moment, any will do, as long as it is the same one in any order of arrival.
        at_once = [row for row in found if row.occurred_at == found[0].occurred_at]
        return min(at_once, key=lambda row: getattr(row, what), default=None)


def _may_say(row: AnyRow, what: str) -> bool:
    """A site's key is public: it can say whose visit it was, no more."""
    return what == "visitor_id" or row.event is not None


def _sighting(near: Sightings, what: str, scope: Scope, moment: datetime) -> AnyRow | None:
    if scope.column == "email_key" and what != "visitor_id":
        return None  # two customers can share an address; only their visit is worth the risk
    if scope.column in {"customer_id", "email_key"}:
        return near.find(what, scope, moment + SAME_CHECKOUT, after=False)
    found = near.find(what, scope, moment, after=False)
    return found or near.find(what, scope, moment, after=True)


# What follows for others


def spread(case: Case, telling: dict[str, Any]) -> None:
    """Wake what waits for this telling, and mark what went out without what it says."""
    near = [
        Scope(column, telling[column])
        for column in ("transaction_id", "original_id", "subscription_id")
        if telling[column]
    ]
    if telling["transaction_id"]:
        near.append(Scope("original_id", telling["transaction_id"]))
    if telling["original_id"]:
        near.append(Scope("transaction_id", telling["original_id"]))
    case.memory.wake(HELD, near, case.now)
    _mark_visitors(case, telling)
    if telling["subscription_id"]:
        _mark_places(case, telling, telling["subscription_id"])


def _mark_visitors(case: Case, telling: dict[str, Any]) -> None:
    """Mark what went out as another visitor's, or as nobody's; directly, or by what this links."""
    visitor = telling["visitor_id"]
    nobody = not (telling["customer_id"] or telling["email_key"])
    if not visitor and (nobody or case.memory.knew(case.delivery.id, telling)):
        return
    own = ("transaction_id", "subscription_id")
    about = [Scope(column, telling[column]) for column in own if telling[column]]
    wide = _wide(telling)
    if visitor:
        by_customer = [it for it in wide if it.column in {"customer_id", "email_key"}]
        wide += case.memory.links(by_customer)
    for movement in case.memory.others([*about, *wide], visitor):
        _mark_visitor(case, movement)


def _mark_visitor(look: Look, movement: AnyRow) -> bool:
    """Mark a movement if it would be another visitor's by now; whether it would."""
    memory = look.memory.of(movement.source)
    told = memory.told(movement.kind, movement.transaction_id)
    now = identify(Look(memory, look.source), _retold(movement, told))[0].visitor_id
    differs = now is not None and now != movement.visitor_id
    if differs:
        memory.mark(movement, "visitor")
    return differs


def _mark_places(case: Case, telling: dict[str, Any], subscription: str) -> None:
    """Mark what went out as new and is a renewal by now, or the other way round."""
    at, since = telling["occurred_at"], telling["subscribed_at"]
    found: list[AnyRow] = []
    if since and not case.memory.begun(subscription, case.delivery.id, since):
        found += case.memory.charges(subscription, renewals=False)
    elif telling["kind"] == Kind.CHARGE:  # it can make later ones renewals
        found += case.memory.charges(subscription, renewals=False, after=at)
    if telling["kind"] == Kind.TRIAL:  # the first charge after it was no renewal
        found += case.memory.charges(subscription, renewals=True)
    for movement in found:
        _mark_place(case, movement)


def _mark_place(case: Case, movement: AnyRow) -> bool:
    """Mark a charge if its place in the subscription is another by now; whether it is."""
    told = case.memory.told(movement.kind, movement.transaction_id)
    renews = recurrence(case, _retold(movement, told))[0] is Recurrence.RENEWAL
    differs: bool = renews != (movement.recurrence == Recurrence.RENEWAL)
    if differs:
        case.memory.mark(movement, "recurrence")
    return differs


def reconsider(case: Case, movement: AnyRow) -> None:
    """A movement that another event told of before: would it be sent better by now?"""
    marked = _mark_visitor(case, movement)
    if movement.kind == Kind.CHARGE and not marked:
        _mark_place(case, movement)
    if movement.kind == Kind.CHARGE:
        _mark_back(case, movement.transaction_id)
    if movement.original_id:
        balance(case, movement.original_id)


def _mark_back(case: Case, charge: str) -> None:
    """What goes back of a charge goes back to its visitor."""
    for movement in case.memory.moved_back(charge):
        _mark_visitor(case, movement)


def identified(
    store: Store, site: str, sources: Sequence[Source], about: About, now: datetime
) -> None:
    """Keep what the owner's own site says of a visitor, and mark what went out without it."""
    telling = _telling(Ignored("identified", **_about(about)), now)

    def mark(memories: Sequence[Memory]) -> None:
        for memory, source in zip(memories, sources, strict=True):
            _mark_nobodys(Look(memory, source), telling)

    store.identify(site, [it.name for it in sources], telling, mark)


def _mark_nobodys(look: Look, telling: dict[str, Any]) -> None:
    """Mark the movements that went out without a visitor and have one now."""
    for scope in _wide(telling):
        # What is of another day is not worth the search: see `_sighting`.
        near_only = scope.column in {"customer_id", "email_key"}
        for movement in look.memory.nobodys([scope]):
            if near_only and movement.occurred_at + SAME_CHECKOUT < telling["occurred_at"]:
                continue
            _mark_visitor(look, movement)


def _wide(telling: dict[str, Any]) -> list[Scope]:
    """By what other sources, and the owner's site, may know the same customer."""
    wide = [
        Scope(column, telling[column])
        for column in ("reference", "customer_id", "email_key")
        if telling[column]
    ]
    if telling["reference"]:
        wide.append(Scope("transaction_id", telling["reference"]))
    return wide


# Rows


def _telling(meaning: Payment | Ignored, received_at: datetime) -> dict[str, Any]:
    """The row that keeps what an event says."""
    about = _about(meaning)
    payment = meaning if isinstance(meaning, Payment) else None
    return {
        **{name: _storable(value) for name, value in about.items()},
        "email_key": _folded(about["email"]),
        "kind": payment and payment.kind,
        "transaction_id": _storable(meaning.transaction_id),
        "original_id": payment and payment.original_id,
        "amount": None if payment is None or payment.amount is None else str(payment.amount),
        "currency": payment and payment.currency,
        "cumulative": payment and payment.cumulative,
        "recurrence": payment and payment.recurrence,
        "occurred_at": meaning.occurred_at or received_at,
    }


def _movement(payment: Payment) -> dict[str, Any]:
    """The row that keeps what was decided."""
    return {
        "kind": payment.kind,
        "transaction_id": payment.transaction_id,
        "original_id": payment.original_id,
        "amount": str(payment.amount),
        "currency": payment.currency,
        "occurred_at": payment.occurred_at,
        "recurrence": payment.recurrence,
        "visitor_id": _storable(payment.visitor_id),
        "repair": None,
    }


def _retold(movement: AnyRow, told: Any) -> Payment:  # noqa: ANN401 - rows
    """A movement as the events told it."""
    known = {name: value for row in told for name, value in _columns(row).items()}
    about: dict[str, Any] = {name: known.get(name) for name in _ABOUT if name != "visitor_id"}
    return Payment(
        **about,
        kind=Kind(movement.kind),
        transaction_id=movement.transaction_id,
        original_id=movement.original_id,
        amount=Decimal(movement.amount),
        currency=movement.currency,
        occurred_at=min(
            (row.occurred_at for row in told if row.kind), default=movement.occurred_at
        ),
        recurrence=surest([row.recurrence for row in told]),
    )


_ABOUT = tuple(it.name for it in fields(About))


def _about(meaning: About) -> dict[str, Any]:
    return {name: getattr(meaning, name) for name in _ABOUT}


def _columns(row: AnyRow) -> dict[str, Any]:
    """What a row says, without what it does not say."""
    names = (*_ABOUT, "original_id")
    return {name: getattr(row, name) for name in names if getattr(row, name) is not None}


def _storable(value: Any) -> Any:  # noqa: ANN401 - a text or a time
    """A text that fits a column; None for what no other event could be found by anyway."""
    if not isinstance(value, str):
        return value
    clean = "\x00" not in value and value.isprintable()
    return value if clean and 0 < len(value) <= _LONGEST else None


def _folded(email: str | None) -> str | None:
    return _storable(email.strip().casefold()) if email else None


def _told_by(teller: AnyRow) -> Evidence:
    return Evidence("not sent", f"the same money was told by {teller.event_id}", teller.event)


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"
