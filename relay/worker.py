"""The loop: claim, deliver, sleep; stops cleanly.

One thread looks for work and sleeps when there is none; a few others deliver. The sleeper is woken
by the store's bell (something arrived), by a delivery that ended (a thread is free), by the clock
(something is due, a slot opens), or by a signal to stop.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.config import Config
from relay.errors import RelayError, StoreUnavailableError
from relay.flow import Courier, Step
from relay.model import Decision, Delivery, State
from relay.store import Store
from relay.store.wake import wait

log = logging.getLogger("relay.worker")

LONGEST_SLEEP = timedelta(seconds=1)
LATER = datetime.max.replace(tzinfo=UTC)
BEAT_EVERY_S = 5.0
# So many deliveries are claimed for each thread, one under way and the others at hand: claiming
# costs about the same for one as for ten.
AHEAD = 4


class Worker:
    """Delivers until it is stopped. `beat` is called about once a second, for a supervisor."""

    def __init__(
        self, config: Config, store: Store, beat: Callable[[], None] = lambda: None
    ) -> None:
        self.config = config
        self.store = store
        self.beat = beat
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.courier = Courier(store, lambda: datetime.now(UTC))
        self.lease = timedelta(seconds=config.worker.lease_seconds)
        self.gates = {it.gate: it.rate_limit for it in config.destinations.values()}
        self._stopping = threading.Event()
        self._busy = 0
        self._count = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._beaten_at = -BEAT_EVERY_S

    def stop(self) -> None:
        """Claim nothing more; what is under way is finished. Safe to call from a signal handler."""
        self._stopping.set()
        self._wake()

    def run(self) -> None:
        """Work until stopped. A database that is away is waited for."""
        with ThreadPoolExecutor(self.config.worker.threads, "deliver") as pool:
            log.info("worker.started", extra={"worker": self.name})
            while not self._stopping.is_set():
                self.beat()
                try:
                    self.say_alive()
                    self.sleep_until(self.start_what_is_due(pool))
                except StoreUnavailableError as error:
                    log.error("worker.store_unavailable", extra={"reason": error.message})  # noqa: TRY400
                    self.sleep_until(datetime.now(UTC) + LONGEST_SLEEP)
            log.info("worker.draining", extra={"worker": self.name, "under_way": self._busy})
        self.leave()

    def start_what_is_due(self, pool: ThreadPoolExecutor) -> datetime:
        """Hand what is due to the free threads; when to look again."""
        self.store.bell.listen()  # before looking, so that nothing comes unheard in between
        threads = self.config.worker.threads
        free = threads * AHEAD - self._busy
        now = datetime.now(UTC)
        again_at = now + LONGEST_SLEEP
        if free < threads * AHEAD // 2:
            return again_at
        for gate, rate in self.gates.items():
            free -= self.submit(pool, self.claim_ready(gate, rate, now, free))
            again_at = min(again_at, self.store.passes_at(gate) or again_at)
        due_at = self.store.first_due()
        if due_at is None or due_at > now or free <= 0:
            return min(again_at, due_at or again_at)
        claimed = self.store.claim(now, self.lease, free)
        self.submit(pool, claimed)
        return now if len(claimed) < free else again_at

    def claim_ready(self, gate: str, rate: int, now: datetime, free: int) -> list[Delivery]:
        """What waits at a gate and may pass it now, each with its slot."""
        found: list[Delivery] = []
        while len(found) < free and (self.store.passes_at(gate) or LATER) <= now:
            claimed = self.store.claim_ready(gate, rate, now, self.lease)
            if not claimed:
                break
            found += claimed
        return found

    def submit(self, pool: ThreadPoolExecutor, claimed: list[Delivery]) -> int:
        """Start the deliveries; how many."""
        for delivery in claimed:
            with self._count:
                self._busy += 1
            pool.submit(self.deliver, delivery, time.monotonic())
        return len(claimed)

    def deliver(self, delivery: Delivery, claimed_at: float) -> None:
        """One delivery, whatever comes. What breaks here is tried again when its lease is over."""
        started = time.perf_counter()
        try:
            held = timedelta(seconds=time.monotonic() - claimed_at)
            if self._stopping.is_set() or held > self.lease / 2:  # too late to begin with it
                self.store.give_back(delivery, datetime.now(UTC))
                return
            source = self.config.sources.get(delivery.source)
            if source is None:
                reason = "unknown_source: put the source back into the configuration, then replay"
                step = self.courier.settle(delivery, Decision(State.DEAD, reason))
            else:
                step = self.courier.deliver(delivery, source)
            log_step(delivery, step, time.perf_counter() - started)
        except RelayError as error:
            log.error("delivery.broke_off", extra={"delivery": delivery.id, "reason": error.reason})  # noqa: TRY400
        except Exception:
            log.exception("delivery.failed", extra={"delivery": delivery.id})
        finally:
            with self._count:
                self._busy -= 1
            self._wake()

    def sleep_until(self, moment: datetime) -> None:
        """Sleep, unless something happens before."""
        bell = self.store.bell.listen()
        descriptors = [self._wake_read] + ([bell] if bell is not None else [])
        wait(descriptors, (moment - datetime.now(UTC)).total_seconds())
        self.store.bell.clear()
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass

    def say_alive(self) -> None:
        """For /readyz; and look for what a worker with an older configuration left at its gates."""
        if time.monotonic() - self._beaten_at >= BEAT_EVERY_S:
            self.store.open_gates(list(self.gates))
            self.store.beat(self.name, datetime.now(UTC))
            self.repair()
            self._beaten_at = time.monotonic()

    def repair(self) -> None:
        """Send again what is known better by now, where the owner wants that done at once."""
        sites = [it.name for it in self.config.destinations.values() if it.repair == "automatic"]
        rows = self.store.repairs(sites) if sites else []
        if rows:
            self.store.repair([row.event for row in rows], datetime.now(UTC))
            log.info("worker.repairs", extra={"worker": self.name, "payments": len(rows)})

    def leave(self) -> None:
        """Say goodbye, if anybody is there to hear it."""
        try:
            self.store.leave(self.name)
        except StoreUnavailableError:
            log.warning("worker.left_silently", extra={"worker": self.name})
        log.info("worker.stopped", extra={"worker": self.name})

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b".")
        except BlockingIOError:
            pass  # full: it will wake


def log_step(delivery: Delivery, step: Step, seconds: float) -> None:
    """One line an attempt, or one for what ended without any."""
    line: dict[str, Any] = {
        "source": delivery.source,
        "delivery": delivery.id,
        "event_id": delivery.event_id,
        "type": delivery.event_type,
        "state": step.decision.state.value,
        "reason": step.decision.reason.partition(":")[0],
        "duration_ms": round(seconds * 1000, 1),
    }
    if step.decision.again_at:
        line["again_at"] = step.decision.again_at.isoformat(timespec="seconds")
    if not step.kept:
        line["lease_lost"] = True
    if step.attempt is None:
        log.info("delivery.settled", extra=line)
        return
    outcome = step.attempt.outcome
    line |= {
        "attempt": delivery.attempt + 1,
        "result": outcome.result.value,
        "status": outcome.status,
    }
    log.info("delivery.attempted", extra=line)
