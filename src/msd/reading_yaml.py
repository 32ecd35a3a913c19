"""YAML that people write, read as carefully as JSON: each key once, no tags, no aliases that grow without end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from msd.reading import MAX_DEPTH, YAML_BYTES, Broken, Kind, fitted, plain, read_text

MAX_NODES = 200_000
"""Values that a text may stand for, those that its aliases repeat counted again."""


def read_yaml(path: Path, kind: Kind) -> Any:
    """The one YAML document of a file, as JSON could say it. Raises the kind's error."""
    text = read_text(path, kind, YAML_BYTES)
    try:
        return parse_yaml(text)
    except Broken as cause:
        raise kind.unreadable(path, str(cause), " as YAML") from cause


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for. Raises Broken."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return plain(loader.construct_document(node))
    except yaml.MarkedYAMLError as error:
        line = f" on line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Broken(f"{fitted(str(error.problem).removeprefix('but '), 120)}{line}") from error
    except yaml.YAMLError as error:
        raise Broken("it holds a character that YAML does not allow") from error
    except Broken:
        raise
    except ValueError as error:  # a 99th month, a number of thousands of digits
        raise Broken("it holds a date or a number that there is not") from error


class _Loader(yaml.SafeLoader):
    """YAML whose mappings have each key once (PyYAML would silently take the last), and whose depth is bounded."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Broken("it is nested too deeply")
        event = self.peek_event()
        if getattr(event, "tag", None) not in (None, "!"):
            raise yaml.MarkedYAMLError(problem="tags (!) are not allowed", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a list or a mapping", problem_mark=key.start_mark)
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(name)
        return node


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Values that `node` stands for and how deep they go, before anything is built from it. Raises Broken."""
    if not isinstance(node, yaml.CollectionNode):
        return 1, 1
    if id(node) not in known:
        known[id(node)] = None
        pairs = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        measures = [_measure(one, known) for one in pairs]
        size = 1 + sum(size for size, _ in measures)
        depth = 1 + max((depth for _, depth in measures), default=0)
        if size > MAX_NODES or depth > MAX_DEPTH:
            raise Broken("its aliases repeat too much")
        known[id(node)] = size, depth
    measure = known[id(node)]
    if measure is None:
        raise Broken("an alias in it stands for itself")
    return measure
