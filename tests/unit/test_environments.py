"""The environments hold the versions that the tests run with, and one list of them."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ENVS = ROOT / "envs"


def pins(name):
    lines = (ENVS / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_requirement_is_pinned_once():
    requirements = pins("requirements.txt") + pins("slurm.txt")
    assert all(re.fullmatch(r"==[^=*,]+", str(r.specifier)) for r in requirements)
    names = [r.name.lower() for r in requirements]
    assert len(names) == len(set(names))


def test_the_tests_run_with_the_pins():
    """Packages of the tests' own machine may be missing: those that are there are the pinned."""
    differ = {}
    for requirement in pins("requirements.txt") + pins("slurm.txt"):
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            continue
        if not requirement.specifier.contains(found.partition("+")[0], prereleases=True):
            differ[requirement.name] = found
    assert not differ


def test_the_ranges_of_the_package_hold_the_pins():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {r.name.lower(): r for r in pins("requirements.txt") + pins("slurm.txt")}
    ranges = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        ranges += extra
    for text in ranges:
        wanted = Requirement(text)
        (pin,) = pinned[wanted.name.lower()].specifier
        assert wanted.specifier.contains(pin.version, prereleases=True), text


def test_conda_installs_the_pins_of_pip():
    """Snakemake copies this file alone, so that it can name no other."""
    environment = yaml.safe_load((ENVS / "diem.yaml").read_text(encoding="utf-8"))
    (from_pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert [Requirement(line) for line in from_pip] == pins("requirements.txt")
    assert "python =3.11" in environment["dependencies"]


def test_every_rule_has_the_environment():
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for name in re.findall(r"envs/(\S+?)\"", path.read_text(encoding="utf-8")):
            assert (ENVS / name).is_file(), path


@pytest.mark.parametrize("name", ["requirements.txt", "slurm.txt"])
def test_the_container_installs_the_pins_of_pip(name):
    recipe = (ENVS / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in recipe.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "FROM python:3.11-slim"
    copied = next(line for line in lines if line.startswith("COPY envs/"))
    assert f"envs/{name}" in copied
    installed = next(line for line in lines if "--requirement" in line)
    assert f"--requirement envs/{name}" in installed
    assert lines.index(copied) < lines.index(installed)
    # Nothing is installed but the pins and diem itself.
    for call in re.findall(r"pip install([^&;]*)", recipe.partition("FROM")[2]):
        assert "envs/" in call or "--no-deps --editable ." in call, call
