"""Shows that a change of the code changes no number: every prior, array and table, bit for bit.

    python tests/unchanged.py main
    make unchanged BASE=main

It makes the results of tests/every_kind.yaml twice, by the code of a commit and by the code here,
each in one process, and tells what differs. It takes some minutes, and ends with 0 if nothing does.
The code here is copied first: it may be changed meanwhile.
"""

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import yaml
from running import copy_of_repository
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
CONFIG = Path(__file__).with_name("every_kind.yaml")
OTHER_TEXT = ("hyperparameters.csv", "paper_vs_ours.csv", "estimate.csv")
"""Tables of settings and of measured times, which are no results."""
OTHER_COLUMNS = ("diem", "source", "settings", "digest")
"""Columns that tell of the code and of the configuration."""
RENAMED = {"samplers": "restoration"}
"""Sections of the configuration by the names that they had once."""


def contents(path: Path) -> Mapping[str, np.ndarray]:
    """Returns what is to be the same of a file, in pieces that have names."""
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        tensors.pop("sha256", None)
        return tensors
    if path.suffix == ".h5":
        arrays = {}

        def take(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                arrays[name] = np.asarray(item[()])

        with h5py.File(path) as file:
            file.visititems(take)
        return arrays
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table = table[sorted(set(table.columns) - set(OTHER_COLUMNS))]
    # Versions and digests of files stand in some texts.
    table = table.replace({r"diem [0-9.]+": "diem", r"\([0-9a-f]{16}\)": ""}, regex=True)
    table = table.sort_values(list(table.columns))
    return {column: table[column].to_numpy(dtype=str) for column in table.columns}


def results(folder: Path) -> dict[str, Path]:
    """Returns the priors, arrays and tables of a folder by their names of today."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if ".resume" in name or ".diem/" in name or path.name in OTHER_TEXT:
            continue
        if path.suffix in (".safetensors", ".h5", ".csv"):
            for old, new in RENAMED.items():
                name = re.sub(rf"(^|/){old}(?=[_/])", rf"\1{new}", name)
            found[name] = path
    return found


def differences(one: Path, other: Path) -> Iterator[str]:
    """Tells what differs between two files of results."""
    before, after = contents(one), contents(other)
    for name in sorted(before.keys() | after.keys()):
        if name not in after or name not in before:
            yield f"{name} is only {'before' if name in before else 'after'}"
            continue
        a, b = before[name], after[name]
        if a.dtype.kind != b.dtype.kind or a.shape != b.shape:
            yield f"{name} was {a.dtype} {a.shape}, is {b.dtype} {b.shape}"
        elif a.tobytes() != b.tobytes():
            kind = "" if a.dtype.kind not in "fc" else f", by up to {np.nanmax(abs(a - b)):.3g}"
            yield f"{name} differs in {np.sum(a != b)} of {a.size} values{kind}"


def write_sky(path: Path) -> None:
    """Writes observations of a user's own, as the example's telescope makes them."""
    rng = np.random.default_rng(0)
    count, size = 240, 8
    waves = 2 * np.pi * np.arange(size) / size
    phase = rng.uniform(0, 2 * np.pi, (2, count, 1))
    rows, columns = np.sin(waves + phase)
    y = rows[:, None, :, None] * columns[:, None, None, :]
    alive = rng.random(y.shape) < 0.7
    sigma_y = rng.uniform(0.05, 0.1, count)
    y = alive * (y + sigma_y[:, None, None, None] * rng.standard_normal(y.shape))
    with h5py.File(path, "w") as file:
        file.attrs["event_shape"] = y.shape[1:]
        file["train/y"] = y.astype(np.float32)
        file["train/operator/alive"] = alive
        file["train/operator/width"] = rng.uniform(0.4, 0.8, count).astype(np.float32)
        file["train/sigma_y"] = sigma_y.astype(np.float32)


def start(code: Path, folder: Path) -> subprocess.Popen:
    """Starts to make the results of the configuration by the code of a folder."""
    folder.mkdir()
    known = yaml.safe_load((code / "config/config.yaml").read_text(encoding="utf-8"))
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    for old, new in RENAMED.items():
        if old in known:
            config[old] = config.pop(new)
    (folder / "every_kind.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    shutil.copy(code / "examples/telescope.py", folder)
    write_sky(folder / "sky.h5")
    command = [
        *(sys.executable, str(ROOT / "workflow/debug.py"), "--all"),
        *("--snakefile", str(code / "workflow/Snakefile")),
        *("--configfile", str(folder / "every_kind.yaml"), "--directory", str(folder)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "printed.txt").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def compare(before: Path, after: Path) -> bool:
    """Prints what differs between two folders of results, and returns whether nothing does."""
    old, new = results(before), results(after)
    same = 0
    for name in sorted(old.keys() | new.keys()):
        if name not in new or name not in old:
            print(f"{name} is only {'before' if name in old else 'after'}")
            continue
        told = list(differences(old[name], new[name]))
        same += not told
        for sentence in told:
            print(f"{name}: {sentence}")
    print(f"{same} of {len(old)} results are the same.")
    return same == len(old) == len(new) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("base", help="the commit to compare with")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        git = ["git", "-C", str(ROOT), "archive", "--format", "tar", options.base]
        archive = subprocess.run(git, stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder / "base", filter="tar")
        copy_of_repository(folder / "here")
        runs = {"before": start(folder / "base", folder / "before")}
        runs["after"] = start(folder / "here", folder / "after")
        try:
            for name, run in runs.items():
                if run.wait():
                    print((folder / name / "printed.txt").read_text(encoding="utf-8"))
                    sys.exit(f"The results of {name} could not be made, see above.")
        finally:
            for run in runs.values():
                run.kill()
        sys.exit(not compare(folder / "before/results", folder / "after/results"))


if __name__ == "__main__":
    main()
