"""What is wrong with a configuration, in one sentence."""

import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from diem.errors import nearest

__all__ = ["short", "tell"]


def short(value: Any) -> str:
    """Returns a value as it is told in a sentence: on one line, and cut if it is long."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    if len(text) > 60:
        text = f"{text[:57]}..."
    return repr(text) if isinstance(value, str) else text


TYPES = {
    "int_type": "integer",
    "int_from_float": "integer",
    "int_parsing": "integer",
    "float_type": "number",
    "float_parsing": "number",
    "string_type": "string",
    "bool_type": "boolean",
    "bool_parsing": "boolean",
    "list_type": "array",
    "tuple_type": "array",
    "dict_type": "object",
    "mapping_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
    "none_required": "null",
}
"""JSON's names of the types that pydantic's errors ask for."""

DEMANDS = {
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "string_too_short": "a name that is not empty",
    "string_too_long": "at most {max_length} characters long",
    "string_pattern_mismatch": "a name like {pattern}",
    "literal_error": "one of {expected}",
}
"""What pydantic's errors ask for, in words."""


def tell(error: ValidationError, model: type[BaseModel], where: str, source: Any) -> str:
    """Returns what is wrong first of all, in one sentence without its full stop.

    A validator's own ``ValueError`` is told as it is, with the place for ``{place}``.

    Arguments:
        error: What pydantic found.
        model: The model that the source was validated by.
        where: The place of the source in the configuration; empty for the whole.
        source: What was validated, from which the path that the user knows is told.
    """
    found: dict[tuple, list[Any]] = {}
    for each in error.errors(include_url=False):
        absent = each["type"] in ("missing", "extra_forbidden")
        found.setdefault(_path(each["loc"], source, absent), []).append(each)
    # What is wrong deepest is what the user wrote wrong; the others follow from it.
    path, errors = max(found.items(), key=lambda item: len(item[0]))
    place = ".".join([*filter(None, [where]), *(short(str(part))[1:-1] for part in path)])
    kind, value = errors[0]["type"], errors[0]["input"]
    for each in errors:
        if each["type"] == "value_error":
            return str(each["ctx"]["error"]).replace("{place}", place)
    if kind == "extra_forbidden":
        return f"{place} is unknown{nearest(str(path[-1]), _keys(model, path[:-1]))}"
    if kind == "missing":
        parent, _, key = place.rpartition(".")
        return f"{parent or 'the configuration'} lacks the key {key!r}"
    place = place or "the configuration"
    demands = [each for each in errors if each["type"] not in TYPES]
    types = dict.fromkeys(TYPES[each["type"]] for each in errors if each["type"] in TYPES)
    if types and all(each["type"] == "literal_error" for each in demands):
        kinds = " or ".join([*types, *(each["ctx"]["expected"] for each in demands)])
        return f"{place} is {short(value)}, where a value of type {kinds} is needed"
    asked = demands[0]
    if asked["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", asked["ctx"]["expected"])
        return f"{place} is {short(value)}, which is unknown{nearest(str(value), known)}"
    if asked["type"] not in DEMANDS:
        said = " ".join(asked["msg"].split()).removeprefix("Input should be ")
        return f"{place} is {short(value)}, where {said} is needed"
    demand = DEMANDS[asked["type"]].format(**asked.get("ctx", {}))
    return f"{place} is {short(value)}, and must be {demand}"


def _path(
    location: tuple[int | str, ...], source: Any, absent: bool = False
) -> tuple[int | str, ...]:
    """Returns the part of an error's place that the source has: pydantic adds the types of unions.

    Arguments:
        location: The place that pydantic tells.
        source: What was validated.
        absent: Whether the last key need not be there.
    """
    path: list[int | str] = []
    for number, part in enumerate(location):
        inside = isinstance(source, Mapping) and part in source
        if inside or (isinstance(source, list) and isinstance(part, int) and part < len(source)):
            source = source[part]
            path.append(part)
        elif absent and number == len(location) - 1:
            path.append(part)
    return tuple(path)


def _keys(model: Any, path: tuple[int | str, ...]) -> list[str]:
    """Returns the keys that a model knows at a place within it."""
    for part in path:
        fields = getattr(model, "model_fields", {})
        annotation = fields[part].annotation if part in fields else model
        model = _inner(annotation)
    return list(getattr(model, "model_fields", {}))


def _inner(annotation: Any) -> Any:
    """Returns the model in an annotation such as ``dict[str, Model]`` or ``Model | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_inner(argument) for argument in get_args(annotation))
    return next((model for model in inner if model is not None), None)
