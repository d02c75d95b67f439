"""The one exception that a user is meant to read."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator

__all__ = ["DiemError", "nearest", "placed"]


class DiemError(Exception):
    """A problem with the user's input, told in one sentence that names the file and the key.

    Scripts and commands print its message without a traceback and exit with a non-zero code.
    Anything else that is raised is a defect of diem and keeps its traceback.
    """


FORMER = {"samplers": "restoration"}
"""Keys of the configuration that have another name now."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint to end a sentence about an unknown name with.

    Arguments:
        name: What the user wrote.
        known: What would have been understood.
    """
    known = [str(k) for k in known]
    if FORMER.get(name) in known:
        return f" (did you mean {FORMER[name]!r}?)"
    close = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(sorted(known))})"


@contextlib.contextmanager
def placed(place: str) -> Iterator[None]:
    """Puts a place before the sentence of an error that is raised inside.

    Arguments:
        place: What the sentence begins with, such as the key before the one that it names.
    """
    try:
        yield
    except DiemError as error:
        raise DiemError(f"{place}{error}") from None
