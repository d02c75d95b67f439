"""The types of keys that several sections of the configuration share."""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from diem.components import Integer, Positive, short

PATTERN = "^[A-Za-z0-9][A-Za-z0-9_-]*$"
"""What names of entries look like: they are parts of the names of files."""

Name = Annotated[str, StringConstraints(pattern=PATTERN)]
Text = Annotated[str, StringConstraints(min_length=1)]
Lap = Annotated[Integer, Field(ge=1, le=999)]
SigmaY = Positive | Annotated[list[Positive], Field(min_length=1)]


def unique(values: list[Any]) -> list[Any]:
    """Refuses a list that repeats a value."""
    if len({*map(str, values)}) < len(values):
        raise ValueError(f"{{place}} is {short(values)}, and must be a list without repetitions")
    return values
