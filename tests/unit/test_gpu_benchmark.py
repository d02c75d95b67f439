"""The benchmark for GPUs, tried on the CPU: its parts, its limits, and what it writes."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import util
from pathlib import Path

import importing
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def imported(path, monkeypatch):
    """Imports the benchmark, and leaves the import path as it is."""
    spec = util.spec_from_file_location("benchmark_gpu", path)
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    return module


def run(output, *arguments):
    command = [sys.executable, str(FOLDER / "gpu.py"), "--device", "cpu", "--tiny"]
    return subprocess.run(
        [*command, "--output", str(output), *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        ("machine", "chain"),
        ("library",),
        ("memory", "resume"),
        ("precision", "ddp"),
        ("engine", "graphs"),
    ],
)
def test_all_parts_succeed_at_a_tiny_size(tmp_path, parts):
    result = run(tmp_path, "--minutes", "20", *parts)
    assert result.returncode == 0, result.stdout + result.stderr
    made = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["CPU"]
    assert list(made) == list(parts)
    for part in parts:
        assert made[part]["rows"]
        assert f"### {part}\n\nDone, " in (tmp_path / "gpu.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_without_a_gpu_that_is_said(tmp_path):
    command = [sys.executable, str(FOLDER / "gpu.py"), "--output", str(tmp_path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: there is no GPU here")


PROGRAM = """
import time
from functools import partial

def cases(setup):
    yield "good", lambda: {"value": 1.5, "text": "a | b"}
    yield "bad", lambda: 1 / 0
    yield "late", lambda: time.sleep(60)
"""


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """Runs a part of its own, in a copy of the benchmark."""
    shutil.copy(FOLDER / "gpu.py", tmp_path)
    gpu = imported(tmp_path / "gpu.py", monkeypatch)
    (tmp_path / "gpu_parts").mkdir()
    (tmp_path / "gpu_parts/__init__.py").touch()
    (tmp_path / "gpu_parts/own.py").write_text(PROGRAM, encoding="utf-8")
    shutil.copy(FOLDER / "gpu_parts/setup.py", tmp_path / "gpu_parts")
    parts = {"own": gpu.Part(30.0), "lacking": gpu.Part(1.0, ("no_such_package",))}
    monkeypatch.setattr(gpu, "PARTS", parts)

    def make(**options):
        known = {"parts": [], "device": "cpu", "tiny": True, "minutes": 1.0, "output": tmp_path}
        folder = tmp_path / f"work_{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return gpu.Runner(argparse.Namespace(**{**known, **options}), folder)

    return make


@pytest.mark.slow
def test_a_part_that_fails_stops_no_other_and_is_run_again(runner, tmp_path, monkeypatch):
    assert runner().run() == 1
    made = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["CPU"]
    assert made["lacking"] == {
        **{"state": "skipped", "why": "no_such_package missing", "seconds": 0.0, "rows": []}
    }
    good, bad, late = made["own"]["rows"]
    assert good["values"] == {"value": 1.5, "text": "a | b"}
    assert bad["error"] == "ZeroDivisionError: division by zero"
    assert late == {"case": "the rest", "error": "the limit of 30 s"}
    assert made["own"]["state"] == "failed"
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| good | 1.5 | a / b |" in page
    assert "| bad | ZeroDivisionError: division by zero |" in page

    text = PROGRAM.replace("1 / 0", "{}").replace("60", "0").replace("time.sleep(0)", "{}")
    (tmp_path / "gpu_parts/own.py").write_text(text, encoding="utf-8")
    assert runner().run() == 0
    done = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["CPU"]["own"]
    assert done["state"] == "done"
    (tmp_path / "gpu_parts/own.py").write_text("1 / 0", encoding="utf-8")
    assert runner().run() == 0  # what has succeeded is not run again ...
    assert runner(parts=["own"], minutes=0.0).run() == 0  # ... unless it is named; no time is left
    why = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["CPU"]["own"]["why"]
    assert why == "no time is left"


def test_wheels_are_unpacked_where_parts_find_them(tmp_path, monkeypatch):
    gpu = imported(FOLDER / "gpu.py", monkeypatch)
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels/own_package-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("own_package/__init__.py", "VALUE = 3")
    monkeypatch.setenv("DIEM_WHEELS", str(tmp_path / "wheels"))
    gpu.use_wheels(tmp_path / "unpacked")
    assert sys.path[0] == str(tmp_path / "unpacked")
    assert os.environ["PYTHONPATH"].startswith(f"{tmp_path}/unpacked{os.pathsep}")
    assert not gpu.missing(gpu.Part(1.0, ("own_package",)))


def test_every_wheel_has_a_version():
    wheels = importing.imported(FOLDER / "gpu_wheels.py")
    pins = wheels.pins()
    assert len(pins) == len(set(wheels.NAMES))
    assert all("==" in pin for pin in pins)
