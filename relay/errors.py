"""What can go wrong, each with a stable slug.

The slug (`reason`) is made for machines: it is the log field, the body of a refusal and the name
in a table. The message is made for people, says what to do, and never holds a secret, a signature
or a body.
"""

from dataclasses import dataclass


class RelayError(Exception):
    """Anything the relay refuses or cannot do, on purpose."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Problem:
    """One mistake in the configuration: where it is, and what to write instead."""

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        place = ", ".join(filter(None, (f"line {self.line}" if self.line else "", self.path)))
        return f"{place}: {self.message}" if place else self.message


class ConfigError(RelayError):
    """The configuration is wrong. Carries every mistake that was found, not only the first."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        super().__init__("bad_config", "\n".join(f"{file}: {problem}" for problem in problems))
        self.file = file
        self.problems = problems


class VerificationError(RelayError):
    """The request is not proved to be the provider's. It is refused and not acted on."""


class PayloadError(RelayError):
    """The body is the provider's, and yet cannot be read; `path` says where."""

    def __init__(self, reason: str, path: str, message: str) -> None:
        super().__init__(reason, f"{path}: {message}")
        self.path = path


class FetchError(RelayError):
    """The provider's API did not give what an event needs; `permanent` if asking again is no use."""

    def __init__(self, reason: str, message: str, *, permanent: bool = False) -> None:
        super().__init__(reason, message)
        self.permanent = permanent


class StoreUnavailableError(RelayError):
    """The database cannot be written now. Nothing was acknowledged; the provider shall try again."""
