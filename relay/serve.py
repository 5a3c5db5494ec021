"""`relay serve`, `relay web` and `relay worker` under gunicorn.

Gunicorn's master supervises both kinds of process: some of its workers answer HTTP, the others
deliver. One that dies is started again as the same kind; SIGTERM drains all of them; SIGHUP brings
a new configuration, if it is right. Nothing opens the database before the fork.
"""

import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import TConn, ThreadWorker

from relay import config as configuration
from relay import log as logs
from relay.app import create_app
from relay.config import Config
from relay.errors import ConfigError
from relay.store import Store, migrate
from relay.worker import Worker

log = logging.getLogger("relay.serve")

WEB = "web"
DELIVERY = "delivery"

# A process that has not said a word for this long is killed and started again.
SILENT_S = 60
# A client that falls silent in the middle of its request gives its thread back after this long.
PATIENCE_S = 5


class Process(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """One supervised process; its kind is set before the fork."""

    kind = WEB
    generation = 0
    stopper: Callable[[], None] = staticmethod(lambda: None)

    def run(self) -> None:
        """Answer HTTP, or deliver."""
        if self.kind == WEB:
            super().run()
            return
        config: Config = self.app.config
        store = Store(config.database)
        worker = Worker(config, store, beat=self.keep_alive)
        self.stopper = worker.stop
        if not self.alive:  # SIGTERM came before there was anything to stop
            worker.stop()
        worker.run()
        store.close()

    def handle(self, conn: TConn) -> Any:  # noqa: ANN401 - gunicorn's own sign
        """Answer the next request of a connection."""
        # On the socket itself: gunicorn takes back what is set from Python.
        patience = struct.pack("@ll", PATIENCE_S, 0)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        return super().handle(conn)

    def keep_alive(self) -> None:
        """Tell the master that we live, and stop when it does not."""
        self.notify()
        if self.ppid != os.getppid():
            self.stopper()

    def load_wsgi(self) -> None:
        """Only web processes need the WSGI application."""
        if self.kind == WEB:
            super().load_wsgi()

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ANN401 - the signal's frame
        """SIGTERM: finish what is under way."""
        if self.kind == WEB:
            super().handle_exit(sig, frame)
            return
        self.alive = False
        self.stopper()


class Supervisor(BaseApplication):  # type: ignore[misc]
    """Gunicorn, set up for the relay. `file` is read again on SIGHUP."""

    def __init__(
        self, file: Path, config: Config, *, bind: str | None, web: bool, delivery: bool
    ) -> None:
        self.file = file
        self.config = config
        self.bind = bind or config.server.bind
        self.web = web
        self.delivery = delivery
        self.generation = 0
        super().__init__()

    @property
    def wanted(self) -> dict[str, int]:
        """How many processes of each kind."""
        return {
            WEB: self.config.server.processes if self.web else 0,
            DELIVERY: self.config.worker.processes if self.delivery else 0,
        }

    def load_config(self) -> None:
        """Gunicorn's settings, from ours."""
        server = self.config.server
        settings = {
            "bind": self.bind if self.web else [],
            "workers": sum(self.wanted.values()),
            "worker_class": Process,
            "threads": server.threads,
            "timeout": SILENT_S,
            "graceful_timeout": server.drain_seconds,
            "keepalive": 15,
            "pre_fork": self.choose_kind,
            "logger_class": logs.GunicornLog,
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """In a web process, after the fork."""
        return create_app(self.config)

    def reload(self) -> None:
        """SIGHUP: take the new configuration, or keep the old one and say what is wrong."""
        told = {"file": str(self.file)}
        try:
            self.take(configuration.load(self.file))
            log.info("config.reloaded", extra=told)
        except ConfigError as error:
            log.error("config.kept_old", extra={**told, "problems": error.message})  # noqa: TRY400
        except Exception as error:  # noqa: BLE001 - whatever it is, the old database works
            problems = f"the new database cannot be made ready: {type(error).__name__}"
            log.error("config.kept_old", extra={**told, "problems": problems})  # noqa: TRY400
        self.generation += 1
        self.do_load_config()

    def take(self, config: Config) -> None:
        """Go on with this configuration, in all but the address."""
        if config.database != self.config.database:
            migrate(config.database)
        if config.server.bind != self.config.server.bind:
            log.warning("config.address_needs_restart", extra={"bind": config.server.bind})
        self.config = config
        logs.configure(config.log_level)

    def choose_kind(self, arbiter: Arbiter, process: Process) -> None:
        """A new process is of the kind that is missing among those of the same configuration."""
        process.generation = self.generation
        kinds = [it.kind for it in arbiter.WORKERS.values() if it.generation == self.generation]
        process.kind = DELIVERY if kinds.count(DELIVERY) < self.wanted[DELIVERY] else WEB

    def run(self) -> None:
        """Serve until SIGTERM."""
        migrate(self.config.database)
        Arbiter(self).run()
