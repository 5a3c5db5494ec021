"""How much of one payment each refund, dispute and return of money stands for. Pure.

What is told is read in the order of the provider's time, so the order of arrival does not matter:

- a refund of all that is left takes what those before it left;
- a total of all refunds so far takes what it adds to those before it;
- a refund and a dispute together take no more than was paid: one of them settles the other. Refunds
  alone, or disputes alone, may take more, if that is what the provider says;
- money that returns is no more than was taken before.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from relay.model import TAKES_BACK, Kind

NOTHING = Decimal(0)

# What a loss or a return is known by.
Key = tuple[str, str]


@dataclass(frozen=True)
class Loss:
    """One refund, dispute or return of money as it was told; an amount of None is all that is left."""

    kind: str
    id: str
    at: datetime
    amount: Decimal | None
    cumulative: bool = False

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.kind, self.id


@dataclass(frozen=True)
class Shares:
    """What each comes to; `early` are the returns of more than was taken before them."""

    of: Mapping[Key, Decimal]
    early: frozenset[Key]

    def total(self, kinds: Iterable[str]) -> Decimal:
        """Of some kinds together."""
        return sum((it for (kind, _), it in self.of.items() if kind in kinds), NOTHING)


def shares(told: Sequence[Loss], paid: Decimal | None) -> Shares:
    """What each of the losses stands for, if `paid` was paid (None: nobody knows how much)."""
    gross = dict.fromkeys(TAKES_BACK, NOTHING)
    claimed = lost = returned = NOTHING
    found: dict[Key, Decimal] = {}
    early = set()
    for loss in sorted(told, key=lambda it: (it.at, it.kind == Kind.REINSTATED, it.kind, it.id)):
        if loss.kind == Kind.REINSTATED:
            wanted = claimed if loss.amount is None else loss.amount
            if wanted > claimed:
                early.add(loss.key)
            returned += min(wanted, claimed)
            claimed -= min(wanted, claimed)
        else:
            wanted = _wanted(loss, gross[Kind(loss.kind)], lost, paid)
            gross[Kind(loss.kind)] += wanted
            claimed += wanted
        before, lost = lost, claimed
        if paid is not None:
            lost = min(claimed, max(paid, *(it - returned for it in gross.values())))
        found[loss.key] = abs(lost - before)
    return Shares(found, frozenset(early))


def _wanted(loss: Loss, of_its_kind: Decimal, lost: Decimal, paid: Decimal | None) -> Decimal:
    """What a loss tells of, whatever of it others tell of too."""
    if loss.amount is None:
        return max((paid or NOTHING) - lost, NOTHING)
    if loss.cumulative:
        return max(loss.amount - of_its_kind, NOTHING)
    return loss.amount
