"""Files of other programs, which are looked into before this process opens them."""

import subprocess
import sys
from functools import cache
from pathlib import Path

from diem.errors import DiemError
from diem.files import probe

__all__ = ["check_foreign"]

WAIT = 60
"""Seconds for a file on a slow disk; what computes for ever ends after :data:`probe.SECONDS`."""


def check_foreign(path: str | Path, links: bool = False) -> None:
    """Looks into an HDF5 file in a process of its own, if it is there and can be read at all.

    Arguments:
        path: The file.
        links: Whether it may read other files: by links, external storage or virtual data sets.

    Raises:
        DiemError: If HDF5 does not come to an end or crashes on it, if it reads other files and
            may not, or if it declares more than it can hold.
    """
    if Path(path).is_file():
        status = Path(path).stat()
        reason = _looked(str(path), status.st_size, status.st_mtime_ns, links)
        if reason:
            raise DiemError(f"{path}: {reason}.")


@cache
def _looked(path: str, size: int, changed: int, links: bool) -> str | None:
    command = [sys.executable, "-P", probe.__file__, path, *(["--links"] if links else [])]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=WAIT, errors="replace", check=False
        )
    except subprocess.TimeoutExpired:
        return f"HDF5 did not open this file within {WAIT} s (is it damaged, or its disk gone?)"
    if result.returncode < 0:
        return "this file is damaged: HDF5 does not come to an end, or crashes, on its structures"
    reason = result.stdout.strip()
    if reason and not links and ("other file" in reason or "another file" in reason):
        reason += ": copy the values into this file, or allow it (links, --links)"
    return reason or None
