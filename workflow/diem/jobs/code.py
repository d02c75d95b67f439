"""What numbers depend on of the code: a digest that comments and docstrings do not change."""

import ast
import contextlib
import functools
import hashlib
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from diem.components import KINDS, PATH, own_folders
from diem.errors import DiemError
from diem.files.atomic import atomic

__all__ = ["code_digest", "own_digest", "remember", "strings", "without_words"]

LIBRARY = Path(__file__).parents[1]


def code_digest(script: str | Path, settings: Iterable[Any] = ()) -> str:
    """Returns the digest of a script, of all that it imports of the library, and of components.

    Components are found by their names as a program runs, so that no import tells of them: those
    count whose names stand in the settings. So a new metric changes no digest of those who do not
    ask for it.

    Arguments:
        script: The script's file.
        settings: Its settings (JSON), which name components: built-in ones, and ``module:Class``
            of the user's own, of which their file alone counts.
    """
    found = {Path(script)}
    for name in set(strings(settings)):
        found |= _own(name) if ":" in name else _built_in(name)
    return _digest(frozenset(found))


def own_digest(settings: Iterable[Any]) -> str:
    """Returns the digest of the user's own components that settings name, as in a job's."""
    names = {name for name in strings(settings) if ":" in name}
    return _digest(frozenset(file for name in names for file in _own(name)))


@functools.cache
def _digest(files: frozenset[Path]) -> str:
    """Returns the digest of files and of all that they import of the library."""
    digests = (_read(path).digest for path in sorted(_reached(files), key=_name))
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def strings(value: Any) -> Iterator[str]:
    """Yields every text in a JSON value, keys of objects too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings([*value.keys(), *value.values()])
    elif isinstance(value, Iterable):
        for child in value:
            yield from strings(child)


def without_words(source: str) -> str:
    """Returns source code without comments, docstrings and layout, the same by any Python."""
    statements: list[list[str]] = [[]]
    only_strings = True
    for kind, text, (_, column) in _parts(source):
        if kind == tokenize.NEWLINE:
            # A statement that is a string has no effect: it says what stands around it.
            if only_strings:
                statements.pop()
            statements.append([])
            only_strings = True
        elif kind not in LAYOUT:
            statements[-1] += [text] if statements[-1] else [" " * column + text]
            only_strings &= kind == tokenize.STRING
    return "\n".join(" ".join(each) for each in statements if each)


LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def _parts(source: str) -> Iterator[tuple[int, str, tuple[int, int]]]:
    """Yields kind, text and place of each token; f-strings are whole, as before Python 3.12."""
    lines = source.splitlines(keepends=True)
    opened: list[tuple[int, int]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = tokenize.tok_name[token.type]
        if name == "FSTRING_START":
            opened.append(token.start)
        elif name == "FSTRING_END":
            begin = opened.pop()
            if not opened:
                yield tokenize.NAME, _between(lines, begin, token.end), begin
        elif not opened:
            kind = token.type
            if (
                kind == tokenize.STRING
                and "f" in token.string.partition(token.string[-1])[0].lower()
            ):
                kind = tokenize.NAME
            yield kind, token.string, token.start


def _between(lines: list[str], begin: tuple[int, int], end: tuple[int, int]) -> str:
    found = lines[begin[0] - 1 : end[0]]
    found[-1] = found[-1][: end[1]]
    found[0] = found[0][begin[1] :]
    return "".join(found)


class Read(NamedTuple):
    """What was read in a file of code.

    Attributes:
        state: The file's time of change and size, by which it is known again.
        digest: The digest of its code.
        imported: The library's files that it imports, in functions too.
    """

    state: tuple[int, int]
    digest: str
    imported: tuple[str, ...]


KNOWN: dict[str, Read] = {}
"""What was read, by path."""


def remember(file: Path) -> None:
    """Reads the library's code, of which a file tells what has not changed since the last time.

    It costs a second otherwise, at every start of Snakemake. Where the file cannot be written, it
    goes on costing that.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        kept = json.loads(file.read_text(encoding="utf-8"))
        KNOWN.update({path: Read(tuple(a), b, tuple(c)) for path, (a, b, c) in kept.items()})
    before = dict(KNOWN)
    for path in LIBRARY.rglob("*.py"):
        _read(path)
    if before != KNOWN:
        with contextlib.suppress(DiemError), atomic(file) as new:
            new.write_text(json.dumps(KNOWN), encoding="utf-8")


def _read(path: Path) -> Read:
    """Returns what stands in a file of code."""
    now = path.stat()
    state, key = (now.st_mtime_ns, now.st_size), str(path)
    if key not in KNOWN or KNOWN[key].state != state:
        content, imported = path.read_bytes(), tuple[str, ...]()
        # What is no program counts as it is: who imports it tells what is wrong with it.
        with contextlib.suppress(SyntaxError, ValueError, tokenize.TokenError):
            source = content.decode("utf-8")
            content, imported = without_words(source).encode(), tuple(_imported(source))
        digest = hashlib.sha256(_name(path).encode() + b"\n" + content).hexdigest()
        KNOWN[key] = Read(state, digest, imported)
    return KNOWN[key]


def _name(path: Path) -> str:
    """Returns what a file is called wherever the library lies."""
    inside = path.is_relative_to(LIBRARY)
    return path.relative_to(LIBRARY).as_posix() if inside else path.name


def _reached(paths: Iterable[Path]) -> set[Path]:
    """Returns files and all files of the library that they import, directly or not."""
    found: set[Path] = set()
    waiting = [*paths]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += map(Path, _read(file).imported)
    return found


def _imported(source: str) -> Iterator[str]:
    """Yields the files of the library that source code imports, in functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    for name in sorted(names):
        first, *parts = name.split(".")
        if first == LIBRARY.name:
            place = LIBRARY.joinpath(*parts)
            for file in (place / "__init__.py", place.with_suffix(".py")):
                if file.is_file():
                    yield str(file)


@functools.cache
def _built_in(name: str) -> frozenset[Path]:
    """Returns the files of the built-in components of a name, of every kind."""
    if not name.isidentifier():  # settings hold longer texts too
        return frozenset()
    folders = {LIBRARY.joinpath(*kind.package.split(".")[1:]) for kind in KINDS}
    files = (folder / f"{name}.py" for folder in folders)
    return frozenset(file for file in files if file.is_file())


def _own(name: str) -> set[Path]:
    """Returns the file of a component of the user's own, if it is one that can be found."""
    if not re.fullmatch(PATH, name):
        return set()
    parts = name.partition(":")[0].split(".")
    for place in (Path(folder).joinpath(*parts) for folder in [*sys.path, *own_folders()]):
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                return {file}
    return set()
