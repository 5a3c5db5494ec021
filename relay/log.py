"""JSON logs: one line a stage, with ids. Never a body, a secret, a signature or an e-mail address."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_encode = json.JSONEncoder(default=str, ensure_ascii=False).encode
# What every log record has; all else was handed in with `extra` and belongs to the line.
_PLAIN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event (the message), and the ids that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _PLAIN}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return _encode(line)


def configure(level: str) -> None:
    """Send everything to stderr in JSON, from `level` up."""
    # What no line of ours shows need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - the documented switch
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("alembic", "urllib3", "werkzeug"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class GunicornLog:
    """Gunicorn's log lines in our own format; no access log, since each stage logs itself."""

    def __init__(self, cfg: object) -> None:
        self.cfg = cfg
        self.error_log = logging.getLogger("relay.gunicorn")
        self.debug = self.error_log.debug
        self.info = self.error_log.info
        self.warning = self.error_log.warning
        self.error = self.error_log.error
        self.critical = self.error_log.critical
        self.exception = self.error_log.exception
        self.log = self.error_log.log

    def setup(self, cfg: object) -> None:
        """Nothing to set up."""
        self.cfg = cfg

    def access(self, *_: object) -> None:
        """None."""

    def reopen_files(self) -> None:
        """There are none."""

    def close_on_exec(self) -> None:
        """See reopen_files."""
