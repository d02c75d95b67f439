"""The versions of what numbers depend on: libraries, and this project's own code."""

import subprocess
from importlib import metadata
from pathlib import Path

__all__ = ["commit", "of_code", "versions"]


def versions() -> dict[str, str]:
    """Returns the versions of the libraries that a prior's numbers depend on."""
    return {name: metadata.version(name) for name in ("azula", "numpy", "torch")}


def of_code(digest: str) -> dict[str, str]:
    """Returns the part of a card that tells what code has made it.

    Arguments:
        digest: The digest of :func:`diem.jobs.code.code_digest`.

    Returns:
        ``code``, and in a clone ``commit``, see :func:`commit`.
    """
    found = commit()
    return {"code": digest} if found is None else {"code": digest, "commit": found}


def commit(root: Path | None = None) -> str | None:
    """Returns the commit that a clone is at, with ``-dirty`` if files were changed since.

    Arguments:
        root: The folder of the clone; by default this project's own.

    Returns:
        The commit; nothing if the folder is no clone, or git cannot tell.
    """
    root = Path(__file__).parents[2] if root is None else root
    if not (root / ".git").exists():  # git would tell the commit of a clone around it
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no git, or another user's folder
        return None
    return found.strip() or None
