"""Why an event became what it became, in plain sentences; for `relay explain`. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from relay.model import State
from relay.store import AnyRow

# The reasons that need more than their own words. docs/operating.md lists all of them.
MEANINGS = {
    "already_told": "another event told of the same money",
    "already_taken_back": "that money was taken back before",
    "nothing_to_reinstate": "nothing was taken back here that could return",
    "zero_amount": "nothing was paid; DataFast would take it for a free trial",
    "test_event": "it is from test mode, and the source says `test_events: ignore`",
    "dispute": "it is a dispute, and the source says `disputes: ignore`",
    "unknown_type": "events of this type are not known to the provider's module",
    "no_money_moved": "it moves no money",
    "waits_for_first_charge": "an earlier charge of its subscription may still come",
    "waits_for_original": "its payment is still to come, or on its way",
    "waits_for_refund_or_dispute": "the loss that it takes back is still to come",
    "waits_for_slot": "it is mapped, and waits for its turn in DataFast's limit",
    "visitor_not_found": "DataFast has not seen a page view of its visitor yet",
    "unauthorised": "DataFast does not take the key",
    "throttled": "DataFast's limit was reached",
    "unavailable": "DataFast did not answer",
    "repair": "more is known of it by now, so it goes again",
    "withdrawn": "it was deleted at DataFast, to go again with what is known by now",
}


def explain(shown: Mapping[str, Any], repair: str | None = None) -> Iterator[str]:
    """Sentences about one event, from `Store.shown`; `repair` is what is known better by now."""
    event, attempts = shown["event"], shown["attempts"]
    told = "once" if event.seen == 1 else f"{event.seen} times"
    yield (
        f"Event {event.id}: {event.type} of {event.source} ({event.event_id}), "
        f"received {_moment(event.received_at)}, told {told}."
    )
    yield _standing(event, attempts)
    for each in event.evidence or []:
        seen_in = f" (event {each['event']})" if each["event"] not in {None, event.id} else ""
        yield f"  {each['what']}: {each['why']}{seen_in}"
    if event.mark:
        yield f"  {event.mark}"
    if attempts:
        times = "once" if len(attempts) == 1 else f"{len(attempts)} times"
        yield f"Sent {times}; the last answer: {attempts[-1].message}."
    if repair:
        yield f"Its {repair} is known better by now: `relay repair` sends it again."


def _standing(event: AnyRow, attempts: Sequence[AnyRow]) -> str:
    """Where it stands, and what it is to DataFast."""
    reason, _, more = event.reason.partition(":")
    why = MEANINGS.get(reason, event.reason.replace("_", " ") if not more else event.reason)
    if event.state is State.DELIVERED:
        return f"DataFast has it: {_posted(attempts)}."
    if event.state is State.IGNORED:
        return f"Not sent: {why}."
    if event.state is State.DEAD:
        return f"Dead: {why}. Mend the cause, then `relay events replay {event.id}`."
    until = f", at the latest until {_moment(event.due_at)}" if event.due_at and reason else ""
    return f"It waits: {why}{until}." if reason else "It is on its way."


def _posted(attempts: Sequence[AnyRow]) -> str:
    """What was posted last, in words."""
    bodies = [it.sent for it in attempts if it.sent.startswith("{")]
    if not bodies:
        return "it says so itself"
    body = json.loads(bodies[-1], parse_float=str)
    kinds = {"is_free_trial": "a free trial", "refunded": "a refund", "renewal": "a renewal"}
    kind = next((words for name, words in kinds.items() if body.get(name)), "a new payment")
    visitor = body.get("datafast_visitor_id")
    whose = f"of the visitor {visitor}" if visitor else "without a visitor"
    return f"{kind} of {body['amount']} {body['currency']} {whose}, as {body['transaction_id']}"


def _moment(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y %H:%M} UTC"
