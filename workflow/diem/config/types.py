"""The types of keys that several sections of the configuration share."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from diem.components import Integer, Noise, short

PATTERN = "^[A-Za-z0-9][A-Za-z0-9_-]*$"
"""What names of entries look like: they are parts of the names of files."""

FORMULA = "=+-@"
"""What spreadsheets take for the beginning of a formula, in a cell of a CSV file."""


def _label(value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"{{place}} is {value!r}, and must be one line without control characters")
    if value[0] in FORMULA:
        raise ValueError(
            f"{{place}} is {short(value)}, and spreadsheets take what begins with {value[0]!r} for"
            " a formula"
        )
    return value


LONGEST = 100
"""The most characters of a name of an entry: names of files end at 255 bytes, of which endings and
those of temporary files take some."""

Name = Annotated[str, StringConstraints(pattern=PATTERN, max_length=LONGEST)]
Text = Annotated[str, StringConstraints(min_length=1)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_label)]
Lap = Annotated[Integer, Field(ge=1, le=999)]
SigmaY = Noise | Annotated[list[Noise], Field(min_length=1)]


def unique(values: list[Any]) -> list[Any]:
    """Refuses a list that repeats a value."""
    if len({*map(str, values)}) < len(values):
        raise ValueError(f"{{place}} is {short(values)}, and must be a list without repetitions")
    return values
