"""The rows behind `relay.ledger`: which event tells of which movement of money."""

from functools import cache
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from relay.model import Delivery, Kind, Payment
from relay.store.inbox import INSERT
from relay.store.schema import AnyRow, events, is_dead, movements


def tell(connection: Connection, delivery: Delivery, payment: Payment) -> bool:
    """Note that this event tells of this movement; False if another event already does.

    A teller that died without DataFast having taken its word makes room for the next one.
    """
    mine = {
        "event": delivery.id,
        "original_id": payment.original_id,
        "amount": str(payment.amount),
        "currency": payment.currency,
        "occurred_at": payment.occurred_at,
    }
    key = {
        "source": delivery.source,
        "kind": payment.kind,
        "transaction_id": payment.transaction_id,
    }
    new = _add_if_new(connection.dialect.name)
    if connection.execute(new, {**key, **mine}).first() is not None:
        return True
    dead = select(events.c.id).where(is_dead)
    same = [movements.c[name] == value for name, value in key.items()]
    vacant = (movements.c.event == delivery.id) | movements.c.event.in_(
        dead.where(events.c.id == movements.c.event)
    )
    taken = update(movements).where(*same, vacant).values(**mine)
    return connection.execute(taken).rowcount == 1


@cache
def _add_if_new(dialect: str) -> Any:  # noqa: ANN401 - either engine's Insert
    """Built once: building it costs more than running it."""
    return INSERT[dialect](movements).on_conflict_do_nothing().returning(movements.c.event)


def charged(connection: Connection, source: str, transaction_id: str) -> AnyRow | None:
    """The charge of that id, if one is known: its amount (text) and currency, and its state."""
    return connection.execute(
        select(movements.c.amount, movements.c.currency, events.c.state)
        .join(events, events.c.id == movements.c.event)
        .where(
            movements.c.source == source,
            movements.c.kind == Kind.CHARGE,
            movements.c.transaction_id == transaction_id,
        )
    ).first()
