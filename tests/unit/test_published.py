"""Published numbers stand beside our own as they are written, and ours say what made them."""

from pathlib import Path

import pandas as pd
import pytest

from diem.errors import DiemError
from diem.paper import published
from diem.report.tables.writing import html, latex, markdown

FOLDER = Path(__file__).parents[2] / "workflow" / "published"
CIFAR10 = FOLDER / "cifar10.csv"

CARD = {
    "observations": "some",
    "stage": "lap",
    "subject": "prior",
    "split": "none",
    "samples": "64",
    "extractor": "inception-v3-compat",
    "extractor_digest": "6726825d0af5f729",
    "extractor_accuracy": "",
    "sampler": "ddim",
    "sampler_steps": "4",
    "denoiser_evaluations": "5",
    "optimizer_steps": "200",
    "seed": "7",
    "diem": "0.1.0",
    "torch": "2.13.0",
}
RUNS = {
    "quarter": {"heuristic": "tweedie", "corruption": 0.25},
    "most": {"heuristic": "tweedie", "corruption": 0.75},
    "most_cov_t": {"heuristic": "cov_t", "corruption": 0.75},
    "tenth": {"heuristic": "tweedie", "corruption": 0.1},
}


def metric_rows(runs=RUNS, metrics=("fid", "inception_score")):
    """Rows of two laps of each run, of a floor, and of the samples that a lap was trained on."""
    rows = []
    for i, run in enumerate(runs):
        for lap in (1, 2):
            for metric in metrics:
                reference = ("clean train", "48") if metric == "fid" else ("", "")
                made = dict(zip(("reference", "reference_samples"), reference, strict=True))
                value = 100 * i + 10 * lap + (metric == "fid") / 3
                row = {**CARD, **made, "run": run, "lap": lap, "metric": metric, "value": value}
                rows += [row, {**row, "subject": "e_step", "value": -1.0}]
        rows.append({**rows[-2], "stage": "floor", "run": "floor", "lap": 0, "value": -2.0})
    return pd.DataFrame(rows)


@pytest.fixture
def table():
    return published.with_published(metric_rows(), RUNS, CIFAR10)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.csv")), ids=lambda path: path.name)
def test_every_published_number_has_a_source(path):
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)

    assert len(rows) > 0
    assert (rows["source"] != "").all()


def test_published_numbers_are_as_they_are_written(table):
    given = pd.read_csv(CIFAR10, dtype=str, keep_default_na=False)

    theirs = table[table["method"] != "ours"]

    for column in ("method", "heuristic", "fid", "inception_score", "fd_dinov2", "source"):
        assert theirs[column].tolist() == given[column].tolist()
    assert theirs["corruption"].tolist() == given["corruption"].map(float).tolist()
    assert (theirs[["run", "lap", "samples"]] == "").all(axis=None)


def test_our_last_laps_follow_what_they_are_compared_with(table):
    order = [(row["method"], row["run"]) for row in table.to_dict("records")]

    assert order == [
        ("DiEM", ""),
        ("ours", "quarter"),
        ("DiEM", ""),
        ("DiEM", ""),
        ("ours", "most"),
        ("DiEM", ""),
        ("DiEM", ""),
        ("ours", "most_cov_t"),
        *[("AmbientDiffusion", "")] * 3,
        ("ours", "tenth"),
    ]
    ours = table[table["run"] == "most"].iloc[0]
    assert (ours["fid"], ours["inception_score"]) == (120 + 1 / 3, 120.0)
    assert (ours["lap"], ours["samples"], ours["corruption"]) == (2, 64, 0.75)


def test_our_numbers_say_what_made_them(table):
    source = table[table["run"] == "most"]["source"].iloc[0]

    for words in (
        "FID: 64 samples, ddim with 4 steps (5 denoiser evaluations), against clean train (48)",
        "Inception score: 64 samples",
        "extractor inception-v3-compat (6726825d0af5f729)",
        "200 optimizer steps, seed 7, diem 0.1.0, PyTorch 2.13.0",
    ):
        assert words in source


def test_a_table_for_the_eye(table):
    readable = published.readable_published(table)
    lines = markdown(readable).splitlines()

    assert "| DiEM | tweedie | 75% | - | - | 13.18 | 644 | 8.14 |" in lines
    assert "| ours, most | tweedie | 75% | 2 | 64 | 120 | - | 120 |" in lines
    assert "| AmbientDiffusion | - | 60% | - | - | 28.88 | - | 6.88 |" in lines
    assert f"- {published.WARNING}" in lines
    notes = [note for note in readable.notes if note.startswith("AmbientDiffusion")]
    assert len(notes) == 1  # one source, said once
    for text in (latex(readable), html(readable)):
        assert "AmbientDiffusion" in text
        assert "118.69" in text


def test_one_metric_of_two():
    table = published.with_published(metric_rows(metrics=["fid"]), RUNS, CIFAR10)

    ours = table[table["run"] == "most"].iloc[0]
    assert ours["fid"] == 120 + 1 / 3
    assert ours["inception_score"] == ""
    assert published.readable_published(table).body[4][-3:] == ["120", "-", "-"]


def test_observations_without_a_rate_of_missing_pixels():
    runs = {"run": {"heuristic": "tweedie", "corruption": None}}

    table = published.with_published(metric_rows(runs), runs, CIFAR10)

    assert table["run"].tolist()[-1] == "run"
    assert published.readable_published(table).body[-1][:3] == ["ours, run", "tweedie", "-"]


def test_nothing_to_compare():
    told = r"published: .*cifar10\.csv has fid, fd_dinov2, inception_score"
    with pytest.raises(DiemError, match=told):
        published.with_published(metric_rows(metrics=["psnr"]), RUNS, CIFAR10)
