"""Changes the library's code in small ways, and counts the changes that a unit test refuses.

Of each file of :data:`ROOMS` it draws some mutants: another arithmetic operator or comparison,
another number, a condition without its `not`, `and` for `or`, a flipped boolean, a statement less.
Each runs, in a process of its own and in memory alone, the unit tests that ran the changed line
(of a module's or a class's own lines those that ran any of the file), the fastest first, until one
fails: so slow ones run where no fast one refuses it. A mutant that lives is a test that is missing,
or changes nothing that a test could see: why, is written into `mutations.json` by hand, and kept.

The first run writes down which tests run which lines, and takes as long as all unit tests do. All
of it goes on where it ended:

    python benchmarks/mutations.py --minutes 5

`--again` runs those that live once more, after tests of theirs were written. Tables and numbers
are written to `benchmarks/mutations.md` and `mutations.json`.
"""

import argparse
import ast
import contextlib
import copy
import importlib.machinery
import itertools
import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "workflow" / "diem"
ROOMS = ("operators", "diffusion", "em", "evaluation")
STATE = ROOT / "benchmarks" / "mutations.json"
COVERED = ROOT / "build" / "mutations"
"""Which tests run which lines, a file for each file of tests. Remove it after a change of code."""

FATES = COVERED / "fates.jsonl"
"""What became of mutants, a line for each, which several processes add to."""

USES = re.compile(rf"diem(\.| import )({'|'.join([*ROOMS, 'data'])})")
"""What a file of tests imports whose tests run lines of the rooms."""

SEED = 0
LIMIT = 180
"""A mutant has so many seconds."""

BUDGET = 60.0
"""The tests of a mutant take so many seconds at most, as they took without it."""

SWAPPED: dict[type, type] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult},
    **{ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is},
}


class Mutant(NamedTuple):
    """A change of a file.

    Attributes:
        file: The file, from the library's folder on.
        line: The line that is changed.
        before: What stands there,
        after: and what the mutant has in its place.
        place: The number of the changed node among those of the file,
        number: and of the change among those of the node.
        within: Whether the line is of a function, so that tests run it.
    """

    file: str
    line: int
    before: str
    after: str
    place: int
    number: int
    within: bool

    def tree(self) -> ast.Module:
        """Returns the changed file."""
        tree = _parsed(self.file)
        node = next(node for i, (node, _) in enumerate(_nodes(tree)) if i == self.place)
        _replace(tree, node, list(_changes(node))[self.number]())
        return ast.fix_missing_locations(tree)

    @property
    def key(self) -> str:
        """What tells the mutant from all others."""
        return f"{self.file}:{self.line} {self.before} -> {self.after}"


# Mutants


def mutants(file: str) -> list[Mutant]:
    """Returns all mutants of a file, in the order of its lines."""
    found: dict[str, Mutant] = {}
    for place, (node, within) in enumerate(_nodes(_parsed(file))):
        for number in range(len(list(_changes(node)))):
            new = list(_changes(copy.deepcopy(node)))[number]()
            mutant = Mutant(file, node.lineno, _shown(node), _shown(new), place, number, within)
            found.setdefault(mutant.key, mutant)
    return list(found.values())


def _parsed(file: str) -> ast.Module:
    return ast.parse((LIBRARY / file).read_text(encoding="utf-8"))


def _nodes(tree: ast.Module) -> Iterator[tuple[Any, bool]]:
    """Yields the nodes that can be changed, and whether they are within a function."""

    def walk(node: ast.AST, within: bool) -> Iterator[tuple[Any, bool]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        yield node, within
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
            return  # what is in an error's words is no behaviour
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return  # a guard for those who change the code
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("order", "quality"):
            return  # a place between neighbours, which many numbers are
        skipped = {"annotation", "returns", "decorator_list", "format_spec"}
        for name, value in ast.iter_fields(node):
            if name in skipped:
                continue
            inside = within or (isinstance(node, ast.FunctionDef) and name == "body")
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, inside)

    yield from walk(tree, False)


def _changes(node: Any) -> Iterator[Callable[[], ast.AST]]:
    """Yields functions that return what a node is replaced by."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPPED:
        yield lambda: _with(node, op=SWAPPED[type(node.op)]())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        yield lambda: _with(node, ops=[SWAPPED[type(node.ops[0])](), *node.ops[1:]])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield lambda: node.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda: _with(node, value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield lambda: _with(node, value=node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield lambda: _with(node, value=2 * node.value or 1.0)
    if _removable(node):
        yield lambda: ast.copy_location(ast.Pass(), node)


def _removable(node: ast.AST) -> bool:
    """Tells whether a statement can be left out without a name that is missing."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant | ast.Yield | ast.YieldFrom)
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Attribute | ast.Subscript)
    return isinstance(node, ast.AugAssign | ast.Raise)


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _replace(tree: ast.Module, node: ast.AST, new: ast.AST) -> None:
    """Puts a node in the place of another."""
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is node:
                setattr(parent, name, new)
            elif isinstance(value, list) and any(child is node for child in value):
                value[:] = [new if child is node else child for child in value]


def _shown(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def drawn(count: int) -> list[Mutant]:
    """Returns `count` mutants of each file at most, the first of every file first."""
    shuffled = []
    for room in ROOMS:
        for path in sorted((LIBRARY / room).rglob("*.py")):
            file = path.relative_to(LIBRARY).as_posix()
            every = mutants(file)
            random.Random(f"{SEED}/{file}").shuffle(every)
            shuffled.append(every[:count])
    rounds = itertools.zip_longest(*shuffled)
    return [mutant for some in rounds for mutant in some if mutant is not None]


# Tests


def cover(until: float) -> bool:
    """Writes down which lines each unit test runs; returns whether all files of tests are done."""
    COVERED.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "tests" / "unit").glob("test_*.py")):
        output = COVERED / f"{path.stem}.json"
        if output.exists() or not USES.search(path.read_text(encoding="utf-8")):
            continue
        if time.monotonic() > until:
            return False
        status = forked(lambda path=path, output=output: _covered(path, output), 10 * LIMIT)
        print(f"{path.name}: ended with {status}", flush=True)
    return True


def _covered(path: Path, output: Path) -> int:
    import coverage
    import pytest

    measured = coverage.Coverage(
        data_file=None, source=[str(LIBRARY)], config_file=False, messages=False
    )
    seconds: Counter[str] = Counter()

    class Contexts:
        def pytest_runtest_setup(self, item: Any) -> None:
            measured.switch_context(item.nodeid)

        def pytest_runtest_logreport(self, report: Any) -> None:
            seconds[report.nodeid] += report.duration
            if report.outcome != "passed":
                del seconds[report.nodeid]

    measured.start()
    arguments = ["-q", "-p", "no:cacheprovider", "-m", "not slurm", str(path)]
    pytest.main(arguments, plugins=[Contexts()])
    measured.stop()
    data, tests = measured.get_data(), {}
    for test in sorted(seconds):
        data.set_query_context(test)
        lines = {
            Path(file).relative_to(LIBRARY).as_posix(): sorted(data.lines(file) or [])
            for file in data.measured_files()
        }
        tests[test] = {"seconds": seconds[test], "lines": {k: v for k, v in lines.items() if v}}
    output.write_text(json.dumps(tests), encoding="utf-8")
    return 0


class Tests:
    """Which tests run which lines."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, dict[str, set[int]]] = {}
        for path in sorted(COVERED.glob("*.json")):
            for test, found in json.loads(path.read_text(encoding="utf-8")).items():
                self.seconds[test] = found["seconds"]
                for file, lines in found["lines"].items():
                    self.lines.setdefault(file, {})[test] = set(lines)

    def of(self, mutant: Mutant) -> list[str]:
        """Returns the tests of a mutant, the fastest first.

        The others of their files come last: what a fixture or a cache keeps, the first test of a
        file runs for all. Of a module's or a class's own lines any may be the one that tells, most
        likely of the file whose tests run the module the most.
        """
        every = found = self.lines.get(mutant.file, {})
        # Of a statement of several lines, those with constants alone are not traced.
        for line in range(mutant.line, max(mutant.line - 10, 0), -1) if mutant.within else ():
            found = {test: lines for test, lines in every.items() if line in lines}
            if found:
                break
        ran = Counter(_file_of(test) for test in found)

        def place(test: str) -> tuple[float, float]:
            return test not in found if mutant.within else -ran[_file_of(test)], self.seconds[test]

        near = [test for test in self.seconds if _file_of(test) in ran]
        chosen, total = [], 0.0
        for test in sorted(near, key=place):
            if not chosen or total + self.seconds[test] <= BUDGET:
                chosen.append(test)
                total += self.seconds[test]
        return chosen if mutant.within else [*chosen, "tests/unit/test_reference.py"]


def _file_of(test: str) -> str:
    return test.partition("::")[0]


# Runs


def forked(work: Callable[[], int], limit: float) -> int | None:
    """Runs work in a fork of this process and returns its status; none if it took too long."""
    child = os.fork()
    if child == 0:
        os.setsid()
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
        status = 70
        with contextlib.suppress(BaseException):
            status = work()
        os._exit(status)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


class _Chosen:
    """Has pytest run some tests, in their order."""

    def __init__(self, tests: list[str]) -> None:
        self.place = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [i for i in items if self.place.keys() & {i.nodeid, i.nodeid.split("::")[0]}]
        items.sort(key=lambda item: self.place.get(item.nodeid, len(self.place)))


def fate(mutant: Mutant, tests: list[str]) -> str:
    """Returns what became of a mutant: `refused`, `too long`, `lives`, or `untested`."""
    if not tests:
        return "untested"

    def work() -> int:
        import pytest

        path = str(LIBRARY / mutant.file)
        get_code = importlib.machinery.SourceFileLoader.get_code

        def changed(self: Any, name: str) -> Any:
            if self.path != path:
                return get_code(self, name)
            return compile(mutant.tree(), path, "exec")

        importlib.machinery.SourceFileLoader.get_code = changed  # type: ignore[method-assign]
        files = dict.fromkeys(_file_of(test) for test in tests)
        # Else pytest itself would load files of the library that are called *_test.py.
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", *files]
        return int(pytest.main(arguments, plugins=[_Chosen(tests)]))

    status = forked(work, LIMIT)
    if status in (4, 5, 70):  # pytest's usage error, nothing collected, and a defect here
        raise RuntimeError(f"{mutant.key}: its tests cannot be run ({status}).")
    return "too long" if status is None else "lives" if status == 0 else "refused"


def prepare() -> None:
    """Imports what every fork needs: everything but the library."""
    sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests"), str(ROOT / "tests" / "unit")]
    os.chdir(ROOT)
    import azula.denoise
    import azula.sample
    import h5py
    import matplotlib.figure
    import pandas
    import pydantic
    import pytest
    import scipy.linalg
    import torch

    torch.set_num_threads(1)
    assert not any(name.split(".")[0] == "diem" for name in sys.modules)
    del azula, h5py, matplotlib, pandas, pydantic, pytest, scipy


def run(count: int, minutes: float, again: bool, part: int, parts: int) -> None:
    """Runs the mutants that were not run, and writes what became of each."""
    until = time.monotonic() + 60 * minutes
    prepare()
    if not cover(until):
        print("The tests' lines are not all known: run it once more.")
        return
    tests, known, chosen = Tests(), _known(), drawn(count)
    for mutant in chosen[part::parts]:
        before = known.get(mutant.key)
        if before is not None and not (again and before["fate"] != "refused"):
            continue
        if time.monotonic() > until:
            break
        started, its = time.monotonic(), tests.of(mutant)
        ended = fate(mutant, its)
        row = {"fate": ended, "tests": len(its), "seconds": round(time.monotonic() - started, 1)}
        if before is not None and "reason" in before and ended == before["fate"]:
            row["reason"] = before["reason"]
        print(f"{ended:8} {row['seconds']:5} s  {mutant.key}", flush=True)
        with FATES.open("a", encoding="utf-8") as file:
            file.write(json.dumps({mutant.key: row}) + "\n")
    known = _known()
    results = {mutant.key: known[mutant.key] for mutant in chosen if mutant.key in known}
    content = {"seed": SEED, "a file": count, "drawn": len(chosen), "mutants": results}
    STATE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    STATE.with_suffix(".md").write_text(table(count, len(chosen), results), encoding="utf-8")


def _known() -> dict[str, dict[str, Any]]:
    """Returns what became of mutants, by their keys; reasons are those of the written file."""
    written = json.loads(STATE.read_text(encoding="utf-8"))["mutants"] if STATE.exists() else {}
    known = dict(written)
    for line in FATES.read_text(encoding="utf-8").splitlines() if FATES.exists() else []:
        known |= json.loads(line)
    for key, row in written.items():
        if "reason" in row and known[key]["fate"] == row["fate"]:
            known[key]["reason"] = row["reason"]
    return known


def table(count: int, total: int, results: dict[str, dict[str, Any]]) -> str:
    """Returns the document: what dies in each room, and what lives, and why."""
    living = [
        [key, result["fate"], result.get("reason", "")]
        for key, result in sorted(results.items())
        if result["fate"] != "refused"
    ]
    rows = []
    for room in (*ROOMS, ""):  # the last is of all
        ran = [result for key, result in results.items() if key.startswith(room)]
        refused = sum(result["fate"] == "refused" for result in ran)
        explained = sum("reason" in result for result in ran)
        share = f"{100 * refused / len(ran):.0f} %" if ran else "-"
        rows.append([room or "all", len(ran), refused, share, explained])
    head = ["room", "mutants", "refused", "of all", "live for a reason"]
    text = [
        "# Mutants",
        f"Made by `python benchmarks/mutations.py --count {count}`: {len(results)} of the {total}"
        f" mutants that were drawn, at most {count} of each file by the seed {SEED}, each against"
        f" the unit tests that run its line, as far as those take {BUDGET:.0f} seconds together,"
        " the fastest first.",
        tabulate(rows, head, tablefmt="github"),
        "## Those that are not refused",
        *(f"- `{key}` ({fate}): {reason or 'a test is missing'}." for key, fate, reason in living),
    ]
    return "\n\n".join(text) + "\n"


def main() -> None:
    """Runs mutants for some minutes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=4, help="mutants of each file (4)")
    parser.add_argument("--minutes", type=float, default=5, help="how long to go on (5)")
    parser.add_argument("--again", action="store_true", help="run those that live once more")
    parser.add_argument(
        "--part",
        type=int,
        nargs=2,
        default=(0, 1),
        metavar=("I", "N"),
        help="run every Nth mutant from the Ith on, beside other processes",
    )
    arguments = parser.parse_args()
    run(arguments.count, arguments.minutes, arguments.again, *arguments.part)


if __name__ == "__main__":
    main()
