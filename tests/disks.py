"""Disks that are full."""

import contextlib
import os
from pathlib import Path

FULL = "cannot be written: No space left on device."


def fill(folder, free=0):
    """Fills a disk, but for some bytes."""
    stat = os.statvfs(folder)
    with contextlib.suppress(OSError):  # the file itself takes space as well
        Path(folder, "filler").write_bytes(bytes(stat.f_bavail * stat.f_frsize - free))
