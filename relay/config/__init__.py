"""YAML + environment -> frozen dataclasses, or one ConfigError with every mistake in it."""

import os
from collections.abc import Mapping
from pathlib import Path

from relay.config.nouns import Config, Destination, Server, Source, Work
from relay.config.reader import Reader
from relay.errors import ConfigError, Problem
from relay.yamlfile import YamlFile

__all__ = ["DEFAULT_FILE", "Config", "Destination", "Server", "Source", "Work", "load"]

DEFAULT_FILE = "relay.yaml"


def load(file: str | Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration. Raises ConfigError with every mistake."""
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"this is not UTF-8 (at byte {error.start}); save it as UTF-8"
        raise ConfigError(str(file), [Problem("", msg)]) from None
    except OSError as error:
        hint = f"{error.strerror}; copy config.example.yaml to {DEFAULT_FILE} to begin"
        raise ConfigError(str(file), [Problem("", hint)]) from None
    found = YamlFile(text, os.environ if environ is None else environ)
    config = Reader(found).config() if found.is_readable else None
    if config is None:
        raise ConfigError(str(file), sorted(found.problems, key=lambda it: it.line or 0))
    return config
