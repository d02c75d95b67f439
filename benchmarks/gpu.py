"""Proves and measures the project on a machine with a GPU, part by part, in a quarter of an hour.

    python benchmarks/gpu.py                      # all parts; `make gpu` does the same
    python benchmarks/gpu.py engine memory        # these alone
    python benchmarks/gpu.py --device cpu --tiny  # tries the parts themselves, without a GPU

Each part is a process of its own with a limit of time: neither its failure nor its crash stops the
others. On a GPU the parts that prove something run side by side, and then those that measure,
alone. Rows are printed as they come. ``gpu.json`` and ``gpu.md`` are written after every row; with
the same command a part that has succeeded on the same GPU is not run again, unless it is named.

It needs no network, and of packages PyTorch, NumPy, SciPy and h5py; the others may come from a
folder of wheels that the variable DIEM_WHEELS names, which ``make gpu-wheels`` fills. A part that
lacks a package is skipped, and says which.
"""

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROW = "\x1e"
"""What a part's line begins with that is a row, as JSON."""
LIBRARY = ("torch", "numpy", "h5py", "scipy", "azula", "einops", "pydantic", "safetensors", "tqdm")
WORKFLOW = (*LIBRARY, "snakemake", "yaml", "pandas", "tabulate")


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Arguments:
        seconds: Its limit of time.
        needs: The packages that it cannot do without.
        alone: Whether nothing else may run meanwhile.
    """

    seconds: float
    needs: Sequence[str] = LIBRARY
    alone: bool = False


PARTS = {
    "machine": Part(60),
    "chain": Part(200, WORKFLOW),
    "library": Part(150),
    "precision": Part(200),
    "memory": Part(60),
    "resume": Part(120),
    "ddp": Part(90),
    "engine": Part(330, alone=True),
    "graphs": Part(300, alone=True),
}
"""By name, in the order in which they begin."""


def main() -> int:
    """Runs the parts that are wanted; returns 1 if any of them failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="all sizes are the smallest")
    parser.add_argument("--minutes", type=float, default=17, help="the limit of all together")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--run", nargs=2, metavar=("PART", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_part(options.run[0], options.device, options.tiny, Path(options.run[1]))
        return 0
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"no part is named {unknown[0]!r}: there are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="diem-gpu-") as folder:
        use_wheels(Path(folder) / "wheels")
        return Runner(options, Path(folder)).run()


def use_wheels(folder: Path) -> None:
    """Unpacks the wheels of DIEM_WHEELS, and lets this process and its parts import them."""
    paths = [ROOT / "workflow", ROOT / "benchmarks"]
    wheels = os.environ.get("DIEM_WHEELS")
    if wheels:
        found = sorted(Path(wheels).glob("*.whl"))
        print(f"{len(found)} wheels of {wheels}", flush=True)
        for wheel in found:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        paths.insert(0, folder)
    sys.path[:0] = map(str, paths)
    others = filter(None, [os.environ.get("PYTHONPATH")])
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, paths), *others])


def missing(part: Part) -> list[str]:
    """Returns the packages that a part needs and that are not there."""
    return [name for name in part.needs if importlib.util.find_spec(name) is None]


class Runner:
    """Runs parts, gathers their rows and writes them.

    Arguments:
        options: The options of the command.
        folder: A folder for what the parts write.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.processes: list[subprocess.Popen] = []
        self.path = options.output / "gpu.json"
        self.document: dict[str, Any] = {}
        if self.path.is_file():
            self.document = json.loads(self.path.read_text(encoding="utf-8"))
        self.device = device_name(options.device)
        self.made = self.document.setdefault(self.device, {})

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return 60 * self.options.minutes - (time.monotonic() - self.began)

    def run(self) -> int:
        """Runs the parts, and returns 1 if any failed."""
        wanted = [name for name in PARTS if name in (self.options.parts or PARTS)]
        if not self.options.parts:
            wanted = [name for name in wanted if not succeeded(self.made.get(name))]
        beside = self.options.device == "cuda"
        together = [name for name in wanted if not PARTS[name].alone and beside]
        others = [name for name in wanted if name not in together]
        print(f"{self.device}: {', '.join(wanted)}", flush=True)
        try:
            with ThreadPoolExecutor(max_workers=max(len(together), 1)) as pool:
                try:
                    list(pool.map(self.part, together))
                except BaseException:
                    self.end()  # the threads wait for them
                    raise
            for name in others:
                self.part(name)
        finally:
            self.end()
            self.write()
        failed = [name for name in wanted if self.made[name]["state"] == "failed"]
        print(f"{self.path.with_suffix('.md')} after {time.monotonic() - self.began:.0f} s.")
        if failed:
            print(f"Failed: {', '.join(failed)}.")
        return bool(failed)

    def end(self) -> None:
        """Ends what still runs."""
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def part(self, name: str) -> None:
        """Runs one part, and keeps its rows."""
        part, began = PARTS[name], time.monotonic()
        made: dict[str, Any] = {"state": "running", "seconds": 0.0, "rows": []}
        with self.lock:
            self.made[name] = made
        limit = min(part.seconds, self.left)
        lacking = missing(part)
        if lacking or limit < 5:
            why = f"{', '.join(lacking)} missing" if lacking else "no time is left"
            made.update(state="skipped", why=why)
            print(f"[{name}] skipped: {why}", flush=True)
            self.write()
            return
        folder = self.folder / name
        folder.mkdir()
        command = [sys.executable, "-u", __file__, "--device", self.options.device]
        command += ["--tiny"] if self.options.tiny else []
        process = subprocess.Popen(
            [*command, "--run", name, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.processes.append(process)
        late = threading.Event()

        def end() -> None:
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit, end)
        timer.start()
        assert process.stdout is not None
        for text in process.stdout:
            if text.startswith(ROW):
                row = json.loads(text.removeprefix(ROW))
                with self.lock:
                    made["rows"].append(row)
                print(f"[{name}] {told(row)}", flush=True)
                self.write()
            else:
                print(f"[{name}]   {text}", end="", flush=True)
        code = process.wait()
        timer.cancel()
        if late.is_set():
            made["rows"].append({"case": "the rest", "error": f"the limit of {limit:.0f} s"})
        elif code != 0:
            made["rows"].append({"case": "the rest", "error": f"the process ended with {code}"})
        failed = any("error" in row for row in made["rows"])
        made.update(state="failed" if failed else "done", seconds=time.monotonic() - began)
        print(f"[{name}] {made['state']} after {made['seconds']:.0f} s", flush=True)
        self.write()

    def write(self) -> None:
        """Writes all rows, and the page."""
        with self.lock:
            self.options.output.mkdir(parents=True, exist_ok=True)
            texts = {".json": json.dumps(self.document, indent=1) + "\n"}
            texts[".md"] = page(self.document)
            for suffix, text in texts.items():
                new = self.path.with_suffix(f"{suffix}.new")
                new.write_text(text, encoding="utf-8")
                new.replace(self.path.with_suffix(suffix))


def succeeded(made: Mapping[str, Any] | None) -> bool:
    """Tells whether a part need not be run again."""
    return made is not None and made["state"] == "done"


def device_name(device: str) -> str:
    """Returns the name of the device, by a process of its own: it must hold no GPU."""
    if device == "cpu":
        return "CPU"
    code = "import torch; print(torch.cuda.get_device_name())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"Error: there is no GPU here ({result.stderr.strip().splitlines()[-1]}).")
    return result.stdout.strip().splitlines()[-1]


# What runs in the process of a part


def run_part(name: str, device: str, tiny: bool, folder: Path) -> None:
    """Runs the cases of a part, each of which prints its row."""
    import torch
    from gpu_parts.setup import Setup

    if device == "cpu":
        torch.set_num_threads(1)
    setup = Setup(
        torch.device("cuda", 0) if device == "cuda" else torch.device("cpu"), tiny, folder
    )
    for case, call in _cases(name, setup):
        began = time.monotonic()
        row: dict[str, Any] = {"case": case}
        try:
            row["values"] = call()
        except Exception as problem:
            traceback.print_exc(limit=-6)
            row["error"] = f"{type(problem).__name__}: {problem}"[:2000]
        row["seconds"] = time.monotonic() - began
        print(f"{ROW}{json.dumps(row, default=str)}", flush=True)


def _cases(name: str, setup: Any) -> Iterator[tuple[str, Any]]:
    """Yields the cases of a part; what fails between them is a case that fails."""
    try:
        yield from importlib.import_module(f"gpu_parts.{name}").cases(setup)
    except Exception as problem:
        failure = problem

        def call() -> None:
            raise failure

        yield "the part itself", call


# What is told


def told(row: Mapping[str, Any]) -> str:
    """Returns a row on one line."""
    outcome = row.get("error") or "; ".join(
        f"{key} {number(value)}" for key, value in (row.get("values") or {}).items()
    )
    state = "FAILED " if "error" in row else ""
    return f"{row['case']}: {state}{outcome} ({row.get('seconds', 0):.1f} s)"


def number(value: Any) -> str:
    """Returns a value as text."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {number(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(number, value))
    return "" if value is None else str(value)


def page(document: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the tables of all machines as a page."""
    parts = [
        "# On a GPU",
        "Made by `benchmarks/gpu.py`, at whose head stands how; what each part does stands at the"
        " head of its module in `benchmarks/gpu_parts`.",
    ]
    for device, made in document.items():
        parts.append(f"## {device}")
        for name, entry in made.items():
            why = f": {entry['why']}" if "why" in entry else f", {entry['seconds']:.0f} s"
            parts.append(f"### {name}\n\n{entry['state'].capitalize()}{why}.")
            parts += tables(entry["rows"])
    return "\n\n".join(parts) + "\n"


def tables(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns tables of rows; those that have the same values share one."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row.get("values", {"error": ""})), []).append(row)
    made = []
    for names, some in found.items():
        head = ["case", *names, "seconds"]
        lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
        for row in some:
            values = row.get("values", {"error": row.get("error", "")})
            cells = [row["case"], *(number(values[name]) for name in names)]
            cells.append(f"{row.get('seconds', 0):.1f}")
            text = " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells)
            lines.append(f"| {text} |")
        made.append("\n".join(lines))
    return made


if __name__ == "__main__":
    sys.exit(main())
