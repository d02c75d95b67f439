"""Runs a tutorial as a reader would, and writes what it printed and drew back into it.

    python docs/tutorials.py docs/tutorial_operator.md

A code block that begins with ``# name.ext`` is a file that the reader writes. The lines of a
``console`` block that begin with ``$`` are commands, and the others what they print. A picture of
the tutorial is a file of this name that the commands drew. The tests run the tutorials too.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")


def run(tutorial: Path, folder: Path) -> str:
    """Runs a tutorial in an empty folder, and returns its text with what was printed.

    Arguments:
        tutorial: The Markdown file.
        folder: The folder, which gets links to the repository's own.

    Raises:
        RuntimeError: If a command fails.
    """
    for name in ("Snakefile", "workflow", "profiles", "examples"):
        (folder / name).symlink_to(ROOT / name)
    commands = folder / ".bin"
    commands.mkdir()
    diem = commands / "diem"
    diem.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m diem "$@"\n')
    diem.chmod(0o755)
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])

    def replaced(block: re.Match) -> str:
        kind, text = block[1], block[2]
        named = re.match(r"# (\S+\.\w+)\n", text)
        if kind == "console":
            text = "".join(
                f"$ {command}\n{_printed(command, folder, path)}"
                for command in re.findall(r"^\$ (.+)$", text, re.MULTILINE)
            )
        elif named:
            (folder / named[1]).write_text(text, encoding="utf-8")
        return f"```{kind}\n{text}```"

    return BLOCK.sub(replaced, tutorial.read_text(encoding="utf-8"))


def _printed(command: str, folder: Path, path: str) -> str:
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"$ {command}\n{result.stdout}")
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    return "".join(f"{line}\n" for line in lines)


def pictures(text: str) -> list[str]:
    """Returns the pictures of a tutorial, relative to it."""
    return PICTURE.findall(text)


def main() -> None:
    """Updates the tutorials that are named."""
    for name in sys.argv[1:]:
        tutorial = Path(name)
        with tempfile.TemporaryDirectory() as folder:
            text = run(tutorial, Path(folder))
            for picture in pictures(text):
                target = tutorial.parent / picture
                target.parent.mkdir(exist_ok=True)
                (drawn,) = Path(folder).rglob(target.name)
                shutil.copyfile(drawn, target)
        tutorial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
