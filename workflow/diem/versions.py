"""The versions of what numbers depend on: libraries, and this project's own code."""

import subprocess
from importlib import metadata
from pathlib import Path

__all__ = ["of_code", "versions"]


def versions() -> dict[str, str]:
    """Returns the versions of the libraries that a prior's numbers depend on."""
    return {name: metadata.version(name) for name in ("azula", "numpy", "torch")}


def of_code(digest: str) -> dict[str, str]:
    """Returns the part of a card that tells what code has made it.

    Arguments:
        digest: The digest of :func:`diem.jobs.code.code_digest`.

    Returns:
        ``code``, and in a clone ``commit``, which ends with ``-dirty`` if files were changed since.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {"code": digest}
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no git, or another user's folder
        return {"code": digest}
    return {"code": digest, "commit": told.strip()}
