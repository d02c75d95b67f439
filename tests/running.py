"""Runs of the real workflow in a folder of their own: as a user starts them, or in one process."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import one_process
import yaml

ROOT = Path(__file__).parents[1]

TINY = {
    "seed": 3,
    "device": "cpu",
    "checkpoint_seconds": 0,
    "experiments": {
        "tiny": {
            "data": {
                "name": "manifold",
                "train": 192,
                "validation": 40,
                "test": 64,
                "dimensions": 5,
            },
            "observations": {
                "plain": {"operator": {"name": "projection", "rows": 2}, "sigma_y": 0.05}
            },
            "network": {"name": "mlp", "hidden": [32], "embedding": 16},
            "schedule": {"sigma_min": 0.01, "sigma_max": 10.0},
            "gaussian": {"rank": 3, "iterations": 4},
            "laps": 2,
            "e_step": {"sampler": {"steps": 4}, "block": 50, "repeats": 2},
            "m_step": {"steps": 100, "batch": 64, "learning_rate": 0.001},
            "evaluation": {
                "laps": [1],
                "samples": 64,
                "sampler": {"name": "ddim", "steps": 4},
                "metrics": ["sliced_wasserstein", "distance_to_manifold", "psnr", "residual"],
                "test_observations": 8,
                "posterior_samples": 2,
            },
            "runs": {"base": {"observations": "plain"}},
        }
    },
}


def every_kind(section: str, name: str) -> dict:
    """Returns a configuration with one entry of tests/every_kind.yaml."""
    path = Path(__file__).with_name("every_kind.yaml")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    rest = {key: config[key] for key in ("seed", "device", "checkpoint_seconds")}
    return {**rest, section: {name: config[section][name]}}


def copy_of_repository(folder: Path) -> None:
    """Copies what git knows, and what is new, into a folder."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)


class Workflow:
    """A folder with a config, and the command that runs it.

    Arguments:
        folder: The folder.
        profile: The name of the workflow's profile,
        options: and what of it is set otherwise.
    """

    def __init__(self, folder: Path, profile: str = "default", options: tuple[str, ...] = ()):
        self.folder, self.profile, self.options = folder, profile, options
        self.config = copy.deepcopy(TINY)

    @property
    def experiment(self) -> dict:
        return self.config["experiments"]["tiny"]

    def configfile(self) -> Path:
        path = self.folder / "tiny.yaml"
        path.write_text(yaml.safe_dump(self.config), encoding="utf-8")
        return path

    def make(self, *targets: str) -> str:
        """Makes results without Snakemake's processes, and returns what was printed.

        It is quicker than :meth:`run` by seconds a job. What depends on processes, on Snakemake's
        records or on what a user sees of errors needs :meth:`run`.
        """
        status, printed = one_process.make(self.folder, self.configfile(), targets)
        assert status == 0, printed
        return printed

    def command(self, *arguments: str) -> list[str]:
        path = self.configfile()
        return [
            *(sys.executable, "-m", "snakemake", "--configfile", str(path), "--cores", "2"),
            *("--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder)),
            *("--workflow-profile", str(ROOT / "workflow" / "profiles" / self.profile)),
            *self.options,
            *arguments,
        ]

    def start(self, *arguments: str) -> subprocess.Popen:
        with (self.folder / "stderr.txt").open("w") as log:
            return subprocess.Popen(
                self.command(*arguments), stdout=log, stderr=log, start_new_session=True
            )

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=900,
            env=os.environ,
            check=False,
        )

    def lap(self, lap: int, name: str) -> str:
        return f"results/tiny/runs/base/lap_{lap:02d}/{name}"

    def path(self, name: str) -> Path:
        return self.folder / name
