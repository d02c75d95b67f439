"""Tables say each number, what made it, and nothing else."""

import io
import re

import pandas as pd
import pytest

from diem.evaluation.metrics import METRICS as KIND
from diem.evaluation.metrics import Fidelity
from diem.evaluation.rows import provenance, read_rows, write_rows
from diem.report.tables.experiment import readable_summary, summary
from diem.report.tables.labels import METRICS, heading_of
from diem.report.tables.writing import best_cells, html, latex, markdown, rounded

CARD = {
    "experiment": "digits",
    "subject": "prior",
    "split": "none",
    "samples": "2048",
    "reference": "clean test",
    "reference_samples": "450",
    "extractor": "",
    "extractor_digest": "",
    "extractor_accuracy": "",
    "sampler": "ddpm",
    "sampler_steps": "64",
    "denoiser_evaluations": "65",
    "optimizer_steps": "2560",
    "standard_error": "",
    "seed": "7",
    "diem": "0.1.0",
    "torch": "2.13.0",
}
FEATURES = {"extractor": "cnn32", "extractor_digest": "88fa86d0", "extractor_accuracy": "0.9955555"}
RUNS = {
    "fast": {"label": "MMPS", "covariance": "tweedie"},
    "slow": {"label": "slow_run", "covariance": "cov_t"},
}
FLOOR = {"run": "floor", "stage": "floor", "lap": 0, "sampler": "exact", "optimizer_steps": "0"}
CEILING = {"run": "ceiling", "stage": "ceiling", "lap": 0}
PRECISE = 0.1 + 0.2


@pytest.fixture
def rows():
    """Two sets of observations; run fast has two laps, and the ceiling lacks a metric."""
    rows = []

    def add(observations, metric, value, **card):
        row = {**CARD, "observations": observations, "metric": metric, "value": value, **card}
        rows.append(row)

    for observations in ("b_half", "a_few"):
        add(observations, "frechet_distance", 12.345, **FLOOR, **FEATURES)
        add(observations, "psnr", 10.0, **FLOOR, subject="posterior_mean")
    for observations in ("b_half", "a_few"):
        add(observations, "frechet_distance", 0.5, **CEILING, **FEATURES)
    for run, observations, laps in (("slow", "b_half", (1,)), ("fast", "b_half", (1, 9))):
        for lap in laps:
            made = {"run": run, "stage": "lap", "lap": lap}
            add(observations, "psnr", 20.0 + lap, **made, subject="posterior_mean")
            add(observations, "frechet_distance", PRECISE * lap, **made, **FEATURES)
            add(observations, "frechet_distance", 77.0, **made, **FEATURES, subject="e_step")
    return pd.DataFrame(rows)


FRECHET = "Frechet distance (cnn32 features) of prior samples"
PSNR = "PSNR (dB) of posterior means"


def test_rows_survive_files(rows, tmp_path):
    rows["value"] = [PRECISE / 3**i for i in range(len(rows))]
    for name, part in (("one", rows[:4]), ("two", rows[4:])):
        write_rows(tmp_path / name, part)

    read = read_rows([tmp_path / "one", tmp_path / "two"])

    assert read["value"].tolist() == rows["value"].tolist()  # to the last bit
    text = read.to_csv(index=False)
    assert text == rows.to_csv(index=False)


def test_a_row_for_each_floor_last_lap_and_ceiling(rows):
    table = summary(rows, RUNS)

    key = ["observations", "stage", "label", "covariance", "lap"]
    assert list(table[key].itertuples(index=False, name=None)) == [
        ("b_half", "floor", "floor", "", 0),
        ("b_half", "lap", "slow_run", "cov_t", 1),
        ("b_half", "lap", "MMPS", "tweedie", 9),
        ("b_half", "ceiling", "ceiling", "", 0),
        ("a_few", "floor", "floor", "", 0),
        ("a_few", "ceiling", "ceiling", "", 0),
    ]
    assert not (table == 77.0).any().any()  # the E-step's samples


def test_a_column_names_the_extractor_of_its_own_metric(rows):
    one = rows[(rows["metric"] == "frechet_distance") & (rows["subject"] == "prior")]
    rows = pd.concat([rows, one.assign(metric="fid", extractor="inception")])

    names = [name for name in summary(rows, RUNS) if name.endswith(" of prior samples")]

    assert FRECHET in names
    assert "FID (inception) of prior samples" in names


def test_the_csv_has_every_digit_and_every_card(rows):
    text = summary(rows, RUNS).to_csv(index=False)
    read = pd.read_csv(io.StringIO(text), dtype=str)

    last = read[read["run"] == "fast"].iloc[0]
    assert float(last[FRECHET]) == PRECISE * 9
    assert last["optimizer_steps"] == "2560"
    assert last["seed"] == "7"
    for words in ("2,048 samples", "ddpm with 64 steps", "65 denoiser evaluations", "cnn32"):
        assert words in last[f"card of {FRECHET}"]
    assert "0.9956" in last[f"card of {FRECHET}"]
    assert "cnn32" not in last[f"card of {PSNR}"]
    assert "drawn exactly" in read.loc[0, f"card of {FRECHET}"]


def test_a_missing_metric_is_no_number(rows):
    table = summary(rows, RUNS)
    ceiling = table[table["stage"] == "ceiling"].iloc[0]

    assert pd.isna(ceiling[PSNR])
    assert readable_summary(rows, RUNS).body[3][-1] == "-"


def test_a_card_without_a_size_or_with_a_split():
    row = {**CARD, "split": "test", "reference": "exact curve", "reference_samples": ""}

    said = provenance(row)

    assert said == (
        "2,048 samples (test split), ddpm with 64 steps (65 denoiser evaluations),"
        " against exact curve"
    )


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown(rows):
    lines = markdown(readable_summary(rows, RUNS)).splitlines()
    table = [cells(line) for line in lines if line.startswith("|")]

    assert table[0] == [
        *("Observations", "Prior", "Covariance", "Lap", "Optimizer steps"),
        "Frechet distance (features) ↓",
        "PSNR (dB) ↑",
    ]
    assert table[2] == ["b_half", "floor (fitted Gaussian)", "-", "-", "0", "12.3", "10.0"]
    assert table[4] == ["b_half", "MMPS", "tweedie", "9", "2,560", "2.70", "**29.0**"]
    assert {len(row) for row in table} == {7}
    assert lines[-1] == "- Seed 7, diem 0.1.0, PyTorch 2.13.0."


def test_notes_tell_a_card_once_and_whose_it_is(rows):
    bold, first, second, _ = readable_summary(rows, RUNS).notes

    assert bold.startswith("Bold: ")

    assert first.startswith(f"{FRECHET}: floor: 2,048 samples, drawn exactly")
    assert "; slow_run, MMPS, ceiling: 2,048 samples, ddpm" in first
    assert first.count("ddpm") == 1
    assert second.startswith(f"{PSNR}: ")
    alike = pd.concat([rows, rows[rows["metric"] == "psnr"].assign(subject="posterior")])
    assert len(readable_summary(alike, RUNS).notes) == 4


def test_markdown_cells_keep_their_columns(rows):
    runs = {**RUNS, "fast": {"label": "a|b", "covariance": "tweedie"}}

    lines = markdown(readable_summary(rows, runs)).splitlines()

    assert cells(lines[4])[1] == r"a\|b"
    assert len(cells(lines[4])) == 7


def test_latex(rows):
    text = latex(readable_summary(rows, RUNS))
    before, inside = text.split(r"\toprule")
    inside, after = inside.split(r"\bottomrule")

    assert before.strip() == r"\begin{tabular}{lllrrrr}"
    assert r"b\_half & slow\_run & cov\_t & 1 & 2,560 & \textbf{0.300} & 21.0 \\" in inside
    assert r"\shortstack[r]{PSNR\\(dB) $\uparrow$}" in inside
    assert inside.count(r"\midrule") == 2  # below the header, and between the observations
    for line in inside.splitlines():
        if line.endswith(r"\\") and "shortstack" not in line:
            assert line.count("&") == 6
    assert re.search(r"(?<!\\)[_%#]", text) is None
    assert "↑" not in text
    assert "drawn exactly" in after


def test_the_best_is_bold_and_so_is_what_could_be_as_good():
    table = pd.DataFrame(
        {
            "loss": [1.0, 1.1, 2.0, 0.1, None, 3.0],
            "standard error of loss": [0.1, 0.1, 0.1, 0.1, None, 0.1],
            "score": [5.0, 4.0, 5.0, 9.0, 1.0, 2.0],
            "lap": [1, 2, 3, 4, 5, 6],
        }
    )
    groups = ["a", "a", "a", None, "a", "alone"]

    found = best_cells(table, groups, {3: ("loss", "↓"), 4: ("score", "↑"), 5: ("lap", "")})

    assert found == {(0, 3), (1, 3), (0, 4), (2, 4)}


def test_latex_of_special_characters(rows):
    runs = {**RUNS, "fast": {"label": r"50% & \alpha_1 {x}^~ #$", "covariance": "tweedie"}}

    text = latex(readable_summary(rows, runs))

    expected = r"50\% \& \textbackslash{}alpha\_1 \{x\}\textasciicircum{}\textasciitilde{} \#\$"
    assert expected in text


def test_html_is_a_page_with_escaped_text(rows):
    runs = {**RUNS, "fast": {"label": "<b>", "covariance": "tweedie"}}

    text = html(readable_summary(rows, runs))

    assert text.startswith("<!doctype html>")
    assert "&lt;b&gt;" in text
    assert text.count("<b>") == 2
    assert "<b>0.300</b>" in text
    assert text.count("<tr") == (1 + 6) + (1 + 4)  # the table and its notes, with headers


def test_columns_follow_one_order_and_an_unknown_metric_names_itself(rows):
    new = rows[rows["metric"] == "psnr"].assign(metric="new_metric")

    names = list(summary(pd.concat([new, rows]), RUNS).columns)

    wanted = [FRECHET, PSNR, "new metric of posterior means"]
    assert [name for name in names if name in wanted] == wanted


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (12345.6, "12,346"),
        (999.7, "1,000"),
        (123.4, "123"),
        (12.345, "12.3"),
        (0.0, "0.00"),
        (0.00002345, "2.35e-05"),
        (-0.1234, "-0.123"),
        (None, "-"),
        (float("nan"), "-"),
    ],
)
def test_rounding(value, expected):
    assert rounded(value) == expected


@pytest.mark.parametrize("metric", METRICS)
def test_a_heading_has_four_words_at_most_with_the_unit(metric):
    """Signs such as % and arrows are no words; the name and unit in full are in the notes."""
    fidelity = metric in {
        name for m in KIND.all().values() if issubclass(m, Fidelity) for name in m.labels
    }
    heading = " ".join(heading_of(metric, last="of means" if fidelity else ""))

    assert len(re.findall(r"\S*\w\S*", heading)) <= 4, heading
    assert ("(" in heading) == bool(METRICS[metric].unit) or "{extractor}" in METRICS[metric].unit


def test_columns_of_one_metric_are_told_apart_by_their_subject(rows):
    both = pd.concat([rows, rows[rows["metric"] == "psnr"].assign(subject="posterior")])

    header = readable_summary(both, RUNS).header

    assert header[-2:] == [["PSNR", "(dB)", "of means ↑"], ["PSNR", "(dB)", "of samples ↑"]]
    assert readable_summary(both, RUNS).notes[2].startswith(PSNR)


def test_a_metric_of_the_users_own_has_its_label(rows, tmp_path, monkeypatch):
    (tmp_path / "own_metric.py").write_text(
        "from diem.evaluation.metrics import Label, Metric\n"
        "class Own(Metric):\n"
        "    name, subject = 'own', 'samples'\n"
        "    labels = {'own': Label('My number', 'apples', '↑')}\n"
        "    def measure(self, *arguments): return []\n"
    )
    monkeypatch.setenv("DIEM_PATH", str(tmp_path))
    both = pd.concat([rows, rows[rows["metric"] == "psnr"].assign(metric="own")])
    metrics = ["frechet_distance", {"name": "own_metric:Own"}]

    assert "My number (apples) of posterior means" in summary(both, RUNS, metrics)
    header = readable_summary(both, RUNS, metrics).header
    assert ["My number", "(apples) ↑"] in header
    assert "own of posterior means" in summary(both, RUNS)
