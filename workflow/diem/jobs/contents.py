"""What a file of the user's holds: a digest by which it is known in another place."""

import contextlib
import hashlib
import json
from pathlib import Path

from diem.errors import DiemError
from diem.files.atomic import atomic

__all__ = ["MEMORY", "known_digest"]

MEMORY = Path(".snakemake/diem/contents.json")
"""Where the digests are kept, with the sizes and times of the files, in the working folder."""


def known_digest(path: str | Path) -> str:
    """Returns the digest of a file's bytes, nothing if it cannot be read.

    It is remembered for as long as the file's size and time of change are the same: large files
    take seconds, and Snakemake asks at every start and in every job.

    Arguments:
        path: The file.
    """
    memory: dict[str, list] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = json.loads(MEMORY.read_text(encoding="utf-8"))
        memory = {name: each for name, each in found.items() if isinstance(each, list)}
    try:
        now, key = Path(path).stat(), str(Path(path).resolve())
        state = [now.st_size, now.st_mtime_ns]
        if key in memory and memory[key][:2] == state:
            return memory[key][2]
        memory[key] = [*state, _digest(path)]
    except OSError:
        return ""
    # Where it cannot be written, the digest is made again at the next start.
    with contextlib.suppress(DiemError, OSError), atomic(MEMORY) as new:
        new.write_text(json.dumps(memory), encoding="utf-8")
    return memory[key][2]


def _digest(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
