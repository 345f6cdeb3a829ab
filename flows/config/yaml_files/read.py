"""Reading YAML files that users edit, within limits: a few hundred bytes of YAML can stand for gigabytes."""

from pathlib import Path
from typing import Any

import yaml

from flows.config.yaml_files.traps import Lookup, explain, traps_in, value_at

_LARGEST = 4 * 2**20  # bytes of a file
_MOST = 100_000  # values in a file, those that aliases repeat included
_REASON = "aliases that repeat too much, or nesting that is too deep"


class YamlError(ValueError):
    """The text is not YAML, is larger than any configuration, or says something that nobody means; a line for each."""


def read_yaml(path: Path) -> tuple[Any, Lookup]:
    """Return what a YAML file holds, and a function that says how a value stands in the file.

    Raises:
        OSError: it cannot be read.
        YamlError: it is not YAML in UTF-8, is larger than any configuration, repeats a key, or has a date, a time or a
            number with a leading zero without quotes.
    """
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise YamlError(f"a file of at most {_LARGEST} bytes expected; this is no configuration")
    loader = None
    try:
        loader = yaml.SafeLoader(data.decode())
        node = loader.get_single_node()
        if node is None:
            return None, lambda _: None
        if _size(node, {}) > _MOST:
            raise YamlError(f"at most {_MOST} values expected, those that aliases repeat included")
        if traps := [*traps_in(node)]:
            raise YamlError("\n".join(traps))
        return loader.construct_document(node), lambda steps: value_at(node, steps)
    except RecursionError as error:
        raise YamlError(f"not YAML: {_REASON}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date that does not exist, thousands of digits
        raise error if isinstance(error, YamlError) else YamlError(f"not YAML: {explain(error)}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values below a node, each as often as it stands there."""
    if id(node) in known:
        if not known[id(node)]:
            raise YamlError("an alias inside of what it stands for")
        return known[id(node)]
    known[id(node)] = 0
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    known[id(node)] = 1 + sum(_size(part, known) for part in inner)
    return known[id(node)]
