"""A YAML file in which every value knows its line, and `${NAME}` stands for the environment.

`${NAME}` must be set; `${NAME:-default}` need not. The environment is put in after the YAML is
read, so a value from it can never change the file's structure.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from relay.errors import Problem

Path = tuple[str | int, ...]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_MOST_VALUES = 20_000
_DEEPEST = 50

# YAML's own words, and what mostly is behind them.
_HINTS = {
    r"'\t'": "indent with blanks, not with tabs",
    "mapping values are not allowed": "check the indentation, and put text that holds ': ' in quotes",
    "could not find expected ':'": "a line lacks its colon, or is indented too little",
    "expected <block end>": "check the indentation of this line and the one above",
    "found unexpected end of stream": "a quotation mark is not closed",
    "but found another document": "keep one document, without a line of ---",
    "cannot start any token": "put text that begins with this character in quotes",
    "undefined alias": "put text that begins with * in quotes",
}


class YamlFile:
    """The data of a YAML text, the line of each path, and what was wrong with it."""

    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self.data: Any = None
        self.is_readable = False
        self._environ = environ
        self._given_up: set[Path] = set()
        self._values = 0
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            self.data = self._read(root, ()) if root else {}
            self.is_readable = True
        except yaml.YAMLError as error:
            self._refuse_syntax(error)
        except RecursionError:
            self.problems.append(Problem("", "this is nested too deep to be read"))

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def problem(self, path: Path, message: str) -> None:
        """Note a mistake at `path`."""
        if path not in self._given_up:
            self.problems.append(Problem(show(path), message, self.line(path)))

    def give_up(self, path: Path) -> None:
        """The value at `path` cannot be had, and it is said why: whatever else is wrong with it is not."""
        self._given_up.add(path)

    def _read(self, node: yaml.Node, path: Path) -> Any:  # noqa: ANN401 - any YAML
        self.lines.setdefault(path, node.start_mark.line + 1)
        self._values += 1
        if self._values > _MOST_VALUES or len(path) > _DEEPEST:
            msg = "it is too deep, too long, or an alias (*) in it repeats itself"
            raise yaml.MarkedYAMLError(problem=msg, problem_mark=node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(item, (*path, i)) for i, item in enumerate(node.value)]
        if "${" in node.value:
            return self._filled_in(node.value, path)
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (ValueError, KeyError, AttributeError, OverflowError):
            # `2026-99-99` looks like a date, and `!!int x` like a number.
            return node.value

    def _read_mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag.endswith(":merge"):
                what = (
                    "a merge (<<) is not read" if key_node.value == "<<" else "a key is plain text"
                )
                self.problems.append(Problem(show(path), f"{what}; write each setting out", line))
                continue
            key = str(key_node.value)
            self.lines[*path, key] = line
            if key in found:
                self.problem((*path, key), "this key is here twice; keep one")
            found[key] = self._read(value_node, (*path, key))
        return found

    def _filled_in(self, text: str, path: Path) -> str:
        if "${" in _VARIABLE.sub("", text):
            self.problem(path, "write ${NAME} or ${NAME:-default}; NAME is letters, digits and _")
            self.give_up(path)
        return _VARIABLE.sub(lambda match: self._from_environ(match, path), text)

    def _from_environ(self, match: re.Match[str], path: Path) -> str:
        name, default = match.groups()
        value = self._environ.get(name)
        if value:
            return value
        if default is None:
            state = "empty" if value == "" else "not set"
            msg = f"the environment variable {name} is {state}; set it and try again"
            self.problem(path, msg)
            self.give_up(path)
            return match.group()
        return default

    def _refuse_syntax(self, error: yaml.YAMLError) -> None:
        mark = getattr(error, "problem_mark", None)
        what = str(getattr(error, "problem", None) or getattr(error, "reason", "it cannot be read"))
        hint = next((hint for words, hint in _HINTS.items() if words in what), "")
        line = mark.line + 1 if mark else None
        msg = f"this is not YAML: {what}" + (f"; {hint}" if hint else "")
        self.problems.append(Problem("", msg, line))


def show(path: Path) -> str:
    """`sources.mollie.secrets[0]`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
    return text.lstrip(".")
