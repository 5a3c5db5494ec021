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


class YamlFile:
    """The data of a YAML text, the line of each path, and what was wrong with it."""

    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self.data: Any = None
        self._environ = environ
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            self.data = self._read(root, ()) if root else {}
        except yaml.YAMLError as error:
            self._refuse_syntax(error)

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def problem(self, path: Path, message: str) -> None:
        """Note a mistake at `path`."""
        self.problems.append(Problem(show(path), message, self.line(path)))

    def _read(self, node: yaml.Node, path: Path) -> Any:  # noqa: ANN401 - any YAML
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(item, (*path, i)) for i, item in enumerate(node.value)]
        if "${" in node.value:
            return _VARIABLE.sub(lambda match: self._from_environ(match, path), node.value)
        return yaml.SafeLoader("").construct_object(node)

    def _read_mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            self.lines[*path, key] = key_node.start_mark.line + 1
            if key in found:
                self.problem((*path, key), "this key is here twice; keep one")
            found[key] = self._read(value_node, (*path, key))
        return found

    def _from_environ(self, match: re.Match[str], path: Path) -> str:
        name, default = match.groups()
        value = self._environ.get(name)
        if value:
            return value
        if default is None:
            self.problem(path, f"the environment variable {name} is not set; set it and try again")
            return match.group()
        return default

    def _refuse_syntax(self, error: yaml.YAMLError) -> None:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "it cannot be read"
        line = mark.line + 1 if mark else None
        self.problems.append(Problem("", f"this is not YAML: {what}", line))


def show(path: Path) -> str:
    """`sources.mollie.secrets[0]`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
    return text.lstrip(".")
