"""`relay serve`, `relay web` and `relay worker` under gunicorn.

Gunicorn's master supervises both kinds of process: some of its workers answer HTTP, the others
deliver. One that dies is started again as the same kind; SIGTERM drains all of them; SIGHUP brings
a new configuration, if it is right. Nothing opens the database before the fork.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker

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
        self.bind = bind
        self.wanted = {
            WEB: config.server.processes if web else 0,
            DELIVERY: config.worker.processes if delivery else 0,
        }
        self.generation = 0
        super().__init__()

    def load_config(self) -> None:
        """Gunicorn's settings, from ours."""
        server = self.config.server
        settings = {
            "bind": (self.bind or server.bind) if self.wanted[WEB] else [],
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
        try:
            self.config = configuration.load(self.file)
            logs.configure(self.config.log_level)
            log.info("config.reloaded", extra={"file": str(self.file)})
        except ConfigError as error:
            log.error(  # noqa: TRY400
                "config.kept_old", extra={"file": str(self.file), "problems": error.message}
            )
        self.generation += 1
        self.do_load_config()

    def choose_kind(self, arbiter: Arbiter, process: Process) -> None:
        """A new process is of the kind that is missing among those of the same configuration."""
        process.generation = self.generation
        kinds = [it.kind for it in arbiter.WORKERS.values() if it.generation == self.generation]
        process.kind = DELIVERY if kinds.count(DELIVERY) < self.wanted[DELIVERY] else WEB

    def run(self) -> None:
        """Serve until SIGTERM."""
        migrate(self.config.database)
        Arbiter(self).run()
