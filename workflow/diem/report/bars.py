"""The progress bars in the logs of jobs, read back: how far a job is, or what it took."""

import re

__all__ = ["last_bar"]

BAR = re.compile(
    r"(?P<count>\d+)(?:/(?P<total>\d+))? ?(?P<unit>[^\[\]|/]*)\[(?P<clock>[\d:]+)"
    r"(?:<(?P<left>[^,]*))?,\s*(?P<speed>(?P<rate>[\d.]+)?(?P<slow>s/)?[^,\]]*)"
)
"""What a bar says: how many, of how many, in which time, in which time more, how fast."""


def last_bar(log: str) -> re.Match[str] | None:
    """Returns what the last bar of a log says, see :data:`BAR`; nothing if there is none."""
    bars = list(BAR.finditer(log))
    return bars[-1] if bars else None
