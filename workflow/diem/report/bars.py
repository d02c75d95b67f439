"""The progress bars in the logs of jobs, read back: how far a job is, or what it took."""

import os
import re
from pathlib import Path

__all__ = ["bar_of", "last_bar", "told_bar"]

TAIL = 4096
"""The bytes at a log's end that are looked at."""

BAR = re.compile(
    r"(?P<count>\d+)(?:/(?P<total>\d+))? ?(?P<unit>[^\[\]|/]*)\[(?P<clock>[\d:]+)"
    r"(?:<(?P<left>[^,]*))?,\s*(?P<speed>(?P<rate>[\d.]+)?(?P<slow>s/)?[^,\]]*)"
)
"""What a bar says: how many, of how many, in which time, in which time more, how fast."""


def last_bar(log: str) -> re.Match[str] | None:
    """Returns what the last bar of a log says, see :data:`BAR`; nothing if there is none."""
    bars = list(BAR.finditer(log))
    return bars[-1] if bars else None


def bar_of(log: str | Path) -> re.Match[str] | None:
    """Returns what the last bar at the end of a log file says, if it has not come to its end.

    Arguments:
        log: The file, which need not be there yet.
    """
    try:
        with Path(log).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    bar = last_bar(text)
    unfinished = bar is not None and bar["total"] and int(bar["count"]) < int(bar["total"])
    return bar if unfinished else None


def told_bar(bar: re.Match[str], running: bool = True) -> str:
    """Returns what a bar says in words: how much is done, and the time left while it is running."""
    told = f"{int(bar['count']):,} of {int(bar['total']):,}"
    return f"{told}, {bar['left']} left ({bar['speed'].strip()})" if running else told
