"""Reading a configuration's file, more strictly than YAML asks."""

from pathlib import Path
from typing import Any

import yaml

from diem.errors import DiemError

__all__ = ["read_config"]

MERGE = "tag:yaml.org,2002:merge"


class _Strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A loader that refuses a key that stands twice, of which YAML takes the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag == MERGE or not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in seen:
                raise DiemError(
                    f"the key {key.value!r} stands twice, in the lines {seen[key.value]} and {line}"
                )
            seen[key.value] = line
        return super().construct_mapping(node, deep)


MOST = 100_000
"""A configuration has fewer entries; aliases within aliases can stand for billions."""


def _count(value: Any, known: dict[int, int | None]) -> int:
    """Returns how many entries a value holds, with those that aliases repeat.

    Arguments:
        value: The value.
        known: The counts of collections by identity, none for those that are being counted.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) in known:
        found = known[id(value)]
        if found is None:
            raise DiemError("an alias in it stands for what it stands in")
        return found
    known[id(value)] = None
    inner = value.values() if isinstance(value, dict) else value
    known[id(value)] = count = 1 + sum(_count(child, known) for child in inner)
    return count


def read_config(path: str | Path) -> dict[str, Any]:
    """Returns what a configuration's file says.

    Arguments:
        path: A YAML file.

    Raises:
        DiemError: If it cannot be read, is no YAML, no mapping, or has a key twice.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            loader = _Strict(file)
            config = loader.get_single_data()
        if _count(config, {}) > MOST:
            raise DiemError(f"it holds more than {MOST:,} entries")
    except OSError as error:
        raise DiemError(f"{path}: {error.strerror}.") from None
    except DiemError as error:
        raise DiemError(f"{path}: {error}.") from None
    except RecursionError:
        raise DiemError(f"{path}: it is nested too deeply.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise DiemError(f"{path}: this is no YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(config, dict):
        raise DiemError(f"{path}: a configuration is a mapping of keys.")
    return config
