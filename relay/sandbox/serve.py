"""The sandbox as a process of its own: gunicorn, one process, several threads."""

import logging
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from relay.log import GunicornLog
from relay.sandbox.app import create_app
from relay.sandbox.options import Options

log = logging.getLogger("relay.sandbox")


class Sandbox(BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """Gunicorn, set up for the sandbox. One process, since the records are in its memory."""

    def __init__(self, bind: str, options: Options) -> None:
        self.bind = bind
        self.options = options
        super().__init__()

    def load_config(self) -> None:
        """Gunicorn's settings."""
        settings: dict[str, Any] = {
            "bind": self.bind,
            "worker_class": "gthread",
            "threads": 16,
            "keepalive": 75,
            "graceful_timeout": 2,
            "logger_class": GunicornLog,
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """In the worker, after the fork."""
        return create_app(self.options)


def serve(bind: str, options: Options) -> None:
    """Answer as DataFast would, until SIGTERM."""
    Sandbox(bind, options).run()
