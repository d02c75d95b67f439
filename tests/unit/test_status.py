"""How far a workflow is, by its results and logs; and its losses as events of TensorBoard."""

import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest

from diem import cli
from diem.errors import DiemError
from diem.evaluation.rows import CARD, write_rows
from diem.jobs.results import MARK, held, hold
from diem.report.status import status

BARS = "\r".join(
    [
        "  0%|          | 0/384 [00:00<?, ? step/s]",
        " 17%|#6        | 64/384 [00:03<00:17, 18.71 step/s, loss=0.6286]",
        " 33%|###3      | 128/384 [00:07<00:13, 18.50 step/s, loss=0.6301]",
    ]
)
DONE = "\r100%|##########| 384/384 [00:21<00:00, 17.61 step/s, loss=0.6177]\n"


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    (folder / "logs" / "digits" / "half").mkdir(parents=True)
    (folder / MARK).touch()
    for name, text in (("lap_03_m_step", BARS), ("lap_02_m_step", BARS + DONE), ("table", "")):
        (folder / "logs" / "digits" / "half" / f"{name}.log").write_text(text)
    for name, laps in (("half", ("01", "02_final")), ("box", ("01",))):
        for lap in laps:
            path = folder / "digits" / "runs" / name / f"lap_{lap}"
            path.mkdir(parents=True)
            if name == "half":
                (path / "prior.safetensors").touch()
                (path / "losses.csv").write_text(
                    "step,loss,validation_loss,learning_rate\n"
                    f"64,0.5,0.7,0.1\n128,0.{lap[1]},0.6,0.05\n"
                )
    row = dict.fromkeys(CARD, "") | {"experiment": "digits", "run": "half", "lap": 1}
    rows = [
        {**row, "subject": "e_step", "metric": "prediction", "value": 9.0},
        {**row, "subject": "prior", "metric": "psnr", "value": 20.0},
        {**row, "subject": "posterior", "metric": "prediction", "value": 0.25},
    ]
    write_rows(folder / "digits" / "runs" / "half" / "lap_01" / "metrics.csv", rows)
    return folder


def test_runs_and_unfinished_jobs_are_told(results):
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}

    told = list(status(results))

    label = "Prediction of hidden observations (CRPS, data units)"
    assert told == [
        f"{results}: no workflow is writing here.",
        "digits/box: no lap is finished.",
        f"digits/half: 2 laps, loss 0.2 (0.6 in validation), {label} 0.25 after lap 1.",
        "digits/half/lap_03_m_step: 128 of 384, not finished",
    ]
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before


def test_a_workflow_that_is_writing_is_told(results, capsys):
    with hold(results):
        assert held(results)
        assert cli.main(["status", str(results)]) == 0
    told = capsys.readouterr().out

    assert not held(results)
    assert f"{results}: a workflow is writing." in told
    assert "digits/half/lap_03_m_step: 128 of 384, 00:13 left (18.50 step/s)" in told


@pytest.mark.parametrize("name", [".", "nowhere"])
def test_another_folder_is_refused(tmp_path, name):
    with pytest.raises(DiemError, match=r"this is no folder of results: it has no \.diem\.lock"):
        list(status(tmp_path / name))


# TensorBoard


class Writer:
    """Stands for the package's writer, which the tests do without."""

    written: ClassVar[dict[str, dict]] = {}

    def __init__(self, folder):
        self.scalars = self.written[folder] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def add_scalar(self, name, value, step, time=None):
        assert step not in self.scalars.setdefault(name, {})
        self.scalars[name][step] = value


@pytest.fixture
def written(monkeypatch):
    Writer.written.clear()
    package = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", package)
    return Writer.written


def test_losses_are_by_step_over_the_laps_and_metrics_by_lap(results, written, capsys):
    row = dict.fromkeys(CARD, "") | {"experiment": "digits", "observations": "o", "lap": 0}
    row |= {"subject": "prior", "metric": "psnr", "value": 9.0}
    floor = results / "digits" / "observations" / "o" / "floor"
    floor.mkdir(parents=True)
    write_rows(floor / "metrics.csv", [row])
    half = results / "digits" / "runs" / "half" / "lap_01" / "metrics.csv"
    write_rows(half, [row | {"run": "half", "lap": 1, "value": 20.0}])

    assert cli.main(["tensorboard", str(results)]) == 0

    folder = f"{results}/tensorboard"
    told = f"{folder}: losses and metrics of 2 runs (digits/box, digits/half).\n"
    assert capsys.readouterr().out == told
    assert written == {
        f"{folder}/digits/box": {},
        f"{folder}/digits/half": {
            "loss/training": {64: 0.5, 128: 0.1, 192: 0.5, 256: 0.2},
            "loss/validation": {64: 0.7, 128: 0.6, 192: 0.7, 256: 0.6},
            "loss/learning_rate": {64: 0.1, 128: 0.05, 192: 0.1, 256: 0.05},
            "prior/psnr": {0: 9.0, 1: 20.0},
        },
    }


def test_earlier_events_are_replaced_and_nothing_else(results, written, tmp_path):
    folder = tmp_path / "events" / "digits" / "box"
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1.host").touch()
    (folder / "notes.txt").touch()

    assert cli.main(["tensorboard", str(results), "-o", str(tmp_path / "events")]) == 0

    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_package_that_is_missing_is_told(results, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)

    assert cli.main(["tensorboard", str(results)]) == 1

    assert capsys.readouterr().err == (
        "Error: Event files are written by the package tensorboard, which is not installed: pip"
        " install tensorboard.\n"
    )
