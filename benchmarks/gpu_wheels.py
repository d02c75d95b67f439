"""Fills a folder with the wheels that benchmarks/gpu.py needs beside PyTorch, NumPy and h5py.

    python benchmarks/gpu_wheels.py build/gpu-wheels

They are those of envs/requirements.txt for Python 3.12 on Linux (x86-64), without what they need in
turn: the list is whole. The folder stays under 40 MiB, so that it can be copied to any machine.
"""

import argparse
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT_MIB = 40
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
NAMES = (
    # the library
    *("annotated-types", "azula", "einops", "pandas", "pillow", "pot", "pydantic", "pydantic-core"),
    *("python-dateutil", "pyyaml", "safetensors", "tabulate", "tqdm", "typing-extensions"),
    "typing-inspection",
    # Snakemake
    *("argparse-dataclass", "certifi", "charset-normalizer", "conda-inject", "configargparse"),
    *("docutils", "dpath", "gitdb", "gitpython", "greenlet", "humanfriendly", "idna", "immutables"),
    *("jinja2", "markupsafe", "packaging", "platformdirs", "psutil", "pulp", "requests"),
    *("smart-open", "smmap", "snakemake", "snakemake-interface-common"),
    *("snakemake-interface-executor-plugins", "snakemake-interface-logger-plugins"),
    *("snakemake-interface-report-plugins", "snakemake-interface-scheduler-plugins"),
    *("snakemake-interface-storage-plugins", "sqlalchemy", "sqlmodel", "tenacity", "throttler"),
    *("urllib3", "wrapt", "yte"),
    # tests/gpu
    *("iniconfig", "pluggy", "pygments", "pytest"),
)
OTHER_PINS = {"pot": "pot==0.9.5"}
"""Versions that are not those of envs/requirements.txt: later wheels of POT have 30 MiB."""

LEFT_OUT = {"pulp": r"pulp/solverdir/"}
"""Parts of wheels that are left out: no program that solves anything is run."""


def main() -> None:
    """Fills the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build/gpu-wheels")
    parser.add_argument("--python", default="3.12", help="the version of Python there (3.12)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for old in options.folder.glob("*.whl"):
        old.unlink()
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary=:all:", "--no-deps", "--python-version", options.python),
        *(text for platform in PLATFORMS for text in ("--platform", platform)),
        *("--dest", str(options.folder), *pins()),
    ]
    if subprocess.run(command, check=False).returncode:
        sys.exit("Error: pip could not download the wheels, see above.")
    for name, pattern in LEFT_OUT.items():
        for wheel in options.folder.glob(f"{name}-*.whl"):
            leave_out(wheel, pattern)
    sizes = [wheel.stat().st_size for wheel in options.folder.glob("*.whl")]
    total = sum(sizes) / 2**20
    print(f"{options.folder}: {len(sizes)} wheels, {total:.1f} MiB")
    if total > LIMIT_MIB:
        sys.exit(f"Error: that is more than {LIMIT_MIB} MiB.")


def pins() -> list[str]:
    """Returns the wheels' names with their versions.

    Raises:
        SystemExit: If envs/requirements.txt lacks one.
    """
    text = (ROOT / "envs/requirements.txt").read_text(encoding="utf-8")
    known = {line.partition("==")[0]: line for line in text.splitlines() if "==" in line}
    known |= OTHER_PINS
    if unknown := [name for name in NAMES if name not in known]:
        sys.exit(f"Error: envs/requirements.txt lacks {', '.join(unknown)}.")
    return [known[name] for name in NAMES]


def leave_out(wheel: Path, pattern: str) -> None:
    """Writes a wheel again without the files whose names begin with a pattern."""
    new = wheel.with_suffix(".new")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in old.infolist():
            if not re.match(pattern, entry.filename):
                archive.writestr(entry, old.read(entry))
    new.replace(wheel)


if __name__ == "__main__":
    main()
