"""The installed package without the repository: the workflow and the command in any folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from running import TINY, copy_of_repository

pytestmark = pytest.mark.slow


def run(*command, folder, **environment):
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with nothing but the package, as pip installs it from its wheel."""
    folder = tmp_path_factory.mktemp("installed")
    copy_of_repository(folder / "source")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    alone = ("--no-index", "--no-deps")
    run(*pip, "wheel", *alone, "--no-build-isolation", "./source", folder=folder)
    (wheel,) = folder.glob("diem_priors-*.whl")
    run(*pip, "install", *alone, "--target", str(folder / "site"), str(wheel), folder=folder)
    shutil.rmtree(folder / "source")
    return folder / "site"


@pytest.fixture
def diem(installed, tmp_path):
    """Returns a function that runs the installed command in an empty folder."""
    # Before the repository, which the tests' own environment has installed.
    return lambda *arguments: run(
        *(sys.executable, "-m", "diem", *arguments), folder=tmp_path, PYTHONPATH=str(installed)
    )


def test_the_demo_is_planned_in_an_empty_folder(diem, installed, tmp_path):
    printed = diem("run", "--cores", "1", "--dry-run")
    for name in ("manifold", "digits", "mri", "photographs", "paper_vs_ours"):
        assert name in printed
    assert str(installed / "diem_workflow/config/config.yaml") in printed
    assert not (tmp_path / "results").exists()


def test_a_configuration_of_ones_own_runs(diem, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    prior = "results/tiny/observations/plain/gaussian.safetensors"
    diem("run", "--cores", "1", "--configfile", "mine.yaml", "--", prior)
    assert (tmp_path / prior).is_file()
    printed = diem("estimate", "mine.yaml")
    assert "M-steps" in printed


def test_the_folders_configuration_comes_before_the_demo(diem, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    printed = diem("run", "--cores", "1", "--dry-run")
    assert "tiny" in printed
    assert "manifold_evolution" not in printed


def test_the_wheel_lists_what_a_run_needs(installed):
    root = Path(__file__).parents[2]
    for folder in ("config", "envs", "workflow"):
        for path in (root / folder).rglob("*"):
            name = path.relative_to(root)
            library = name.parts[:2] == ("workflow", "diem")
            if path.is_file() and "__pycache__" not in name.parts and path.suffix != ".pyc":
                if name.parts[0] == "workflow" and any(p.endswith(".egg-info") for p in name.parts):
                    continue
                place = name.relative_to("workflow") if library else Path("diem_workflow", name)
                assert (installed / place).is_file(), name
