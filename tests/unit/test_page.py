"""The page of a run: what came out in words, captions, tables, costs, and the page as a whole."""

import copy
import math
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from running import TINY

from diem.config.pages import page_parts
from diem.config.resolve import resolve
from diem.config.targets import alone, targets
from diem.errors import DiemError
from diem.evaluation.rows import CARD, write_rows
from diem.files.tables import write_csv
from diem.paper.heuristics.outcome import of_heuristics
from diem.paper.pairs import Pair
from diem.paper.restoration.outcome import of_restoration
from diem.report.page.captions import render
from diem.report.page.costs import cost_table, read_seconds
from diem.report.page.outcomes import Number, compared, of_experiment
from diem.report.page.tables import Cell, Table, read_table
from diem.report.page.writing import Run, gather, write_page
from diem.report.tables.writing import Readable, html
from diem.versions import commit

MARKS = "<script>alert('&')</script>"


# Captions


def test_a_caption_is_a_template_and_then_a_text():
    told = "The ``V`` of *{{ snakemake.wildcards.run }}*, seed {{ snakemake.config.seed }}."
    text = f"Title\n=====\n\n{told}"
    found = render(text, {"run": "base"}, {"seed": 7}, "a figure")

    assert found.title == "Title"
    assert re.sub("<[^>]+>", "", found.body) == "The V of base, seed 7."
    assert "<em>base</em>" in found.body


@pytest.mark.parametrize(("seeds", "told"), [([7], "seed 7."), ([3, 4], "seeds 3, 4.")])
def test_the_introduction_tells_all_seeds(seeds, told):
    text = (Path(__file__).parents[2] / "workflow/report/workflow.rst").read_text("utf-8")
    written = {key: value for key, value in TINY.items() if key != "seed"}
    config = resolve({**written, "seeds": seeds}, "tiny.yaml")
    for known in (config, {**config, "seeds": None}):  # what there is of one seed
        expected = told if known["seeds"] else f"seed {seeds[0]}."
        assert f"laps, {expected}" in render(text, {}, known, "the report").body


@pytest.mark.parametrize(
    "text", [MARKS, "{{ snakemake.wildcards.run }}", f".. raw:: html\n\n   {MARKS}"]
)
def test_captions_are_no_html(text):
    assert "<script" not in render(text, {"run": MARKS}, {}, "a figure").body


def test_mathematics_needs_nothing_from_outside():
    body = render(r":math:`\sigma_t`", {}, {}, "a figure").body

    assert "<math" in body
    assert "http" not in body.replace("http://www.w3.org/1998/Math/MathML", "")


@pytest.mark.parametrize("text", ["{{ snakemake.input.rows }}", "{{ nothing }}", "{% if %}"])
def test_an_expression_that_cannot_be_evaluated_is_told(text):
    with pytest.raises(DiemError, match=r"The caption of figures/mine\.png cannot be rendered"):
        render(text, {}, {}, "figures/mine.png")


# Tables


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    shown = Readable([["Run"], ["PSNR", "(dB) ↑"]], [[MARKS, "1.5"], ["b", "-"]], 1, ["a < b", "c"])
    (tmp_path / "a.html").write_text(html(shown), encoding="utf-8")

    table = read_table(tmp_path / "a.html")

    assert table.header == ["Run", "PSNR (dB) ↑"]
    assert table.body == [[Cell(MARKS), Cell("1.5")], [Cell("b"), Cell("-")]]
    assert table.notes == ["a < b", "c"]
    assert table.numeric == [False, True]


def test_what_is_bold_stays_so(tmp_path):
    text = html(Readable([["a"], ["b"]], [["x", "1"]], 1, ["note"]))
    (tmp_path / "a.html").write_text(text.replace("<td>1<", "<td><strong>1</strong><"))

    assert read_table(tmp_path / "a.html").body == [[Cell("x"), Cell("1", best=True)]]


@pytest.mark.parametrize("text", ["", "<table><tr><td>a</td></tr></table>", None])
def test_a_file_that_is_no_table_is_told(tmp_path, text):
    if text is not None:
        (tmp_path / "a.html").write_text(text)

    with pytest.raises(DiemError, match=r"a\.html: this is no table of this workflow"):
        read_table(tmp_path / "a.html")


def test_a_table_with_a_missing_cell_is_told(tmp_path):
    text = html(Readable([["a"], ["b"]], [["x", "1"]], 1, ["note"]))
    (tmp_path / "a.html").write_text(text.replace("<td>1</td>", ""))

    with pytest.raises(DiemError, match="damaged"):
        read_table(tmp_path / "a.html")


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (["1", "-", "2.5 ± 0.1"], True),
        (["1.0e-06", "1,024", "-3"], True),
        (["-", "-"], False),
        (["1", "two"], False),
        (["1 (tie)"], False),
        ([], False),
    ],
)
def test_columns_of_numbers(cells, numeric):
    assert Table(["a"], [[Cell(text)] for text in cells]).numeric == [numeric]


# Outcomes


@pytest.mark.parametrize(
    ("one", "other", "better", "verdict"),
    [
        (Number(1.0, 0.1), Number(1.28, 0.1), "↓", "tie"),  # sqrt(2) * 0.1 * 2 = 0.283
        (Number(1.0, 0.1), Number(1.29, 0.1), "↓", "better"),
        (Number(1.0, 0.1), Number(1.29, 0.1), "↑", "worse"),
        (Number(1.0), Number(1.0 + 1e-9), "↑", "worse"),
        (Number(1.0), Number(1.0), "↓", "tie"),
        (Number(2.0, 0.5), Number(1.1), "↓", "tie"),
        # Of three seeds of one spread, Student's t of four degrees of freedom: 2.87, not 2.
        (Number(1.0, 0.1, 3), Number(1.40, 0.1, 3), "↓", "tie"),
        (Number(1.0, 0.1, 3), Number(1.41, 0.1, 3), "↓", "better"),
        # And of two, where the other's does not count, of one: 14.0.
        (Number(1.0, 0.1, 2), Number(2.39, 0.0, 2), "↓", "tie"),
        (Number(1.0, 0.1, 2), Number(2.40, 0.0, 2), "↓", "better"),
        (Number(float("nan"), 0.5), Number(1.1), "↑", "unknown"),
        (Number(float("inf")), Number(1.1), "↑", "better"),
    ],
)
def test_numbers_within_two_errors_of_their_difference_tie(one, other, better, verdict):
    assert compared(one, other, better) == verdict


def row(stage, run, lap, value, error="", **card):
    told = {"metric": "psnr", "subject": "posterior_mean", "observations": "half", **card}
    numbers = {"value": value, "standard_error": error, "lap": lap, "seed": 0}
    return {**dict.fromkeys(CARD, ""), "stage": stage, "run": run, **numbers, **told}


ROWS = [
    row("floor", "floor", 0, 10.0, 0.5),
    row("lap", "base", 1, 10.5, 0.5),
    row("lap", "base", 3, 15.0, 0.5),
    row("lap", "base", 3, 99.0, metric="residual_rms", subject="posterior"),
    row("lap", "base", 3, 88.0, 1.0, metric="calibration_coverage_90", subject="posterior"),
    row("ceiling", "base", 0, 20.0, 0.5),
]
ENTRY = {
    "evaluation": {"metrics": ["psnr", "residual", "calibration"]},
    "runs": {
        "base": {
            "observations": "half",
            "label": MARKS,
            "laps": 3,
            "m_step": {
                **{"steps": 1, "epochs": None, "first": 1, "final": 1, "final_decay": False},
                **{"drop_from": 1, "drop_outside": None, "warm_start": True},
            },
            "e_step": {"sampler": {}, "final": 1},
        }
    },
}


def texts(outcome):
    (line,) = outcome.table.body
    return dict(zip(outcome.table.header, [cell.text for cell in line], strict=True))


def outcome_of(folder, rows, chosen=None):
    write_rows(folder / "rows.csv", rows)
    if chosen is not None:
        write_csv(folder / "chosen.csv", pd.DataFrame(chosen))
    path = folder / "chosen.csv" if chosen is not None else None
    return of_experiment("tiny", ENTRY, folder / "rows.csv", path)


def test_an_outcome_has_first_last_floor_ceiling_and_coverage(tmp_path):
    found = outcome_of(tmp_path, ROWS)

    assert texts(found) == {
        "Run": MARKS,
        "90 % intervals hold (%)": "88.0 ± 1.0",
        "Gaussian (floor)": "10.0 ± 0.5",
        "First lap": "10.5 ± 0.5",
        "Last lap": "15.0 ± 0.5",
        "Clean data (ceiling)": "20.0 ± 0.5",
        "First to last": "better",
    }
    assert "goes from 10.5 ± 0.5 in lap 1 to 15.0 ± 0.5 in lap 3, and is better" in found.headline
    assert "the last lap's prior is better than the Gaussian prior (10.0 ± 0.5)" in found.headline
    (strip,) = found.strips
    assert [(mark.kind, mark.place) for mark in strip] == [
        *(("floor", 0.0), ("lap", 0.05), ("lap", 0.5), ("ceiling", 1.0)),
    ]


def test_the_chosen_lap_is_told_with_its_ties(tmp_path):
    verdicts = {0: "tie", 1: "chosen", 3: "tie"}
    chosen = [{"run": "base", "lap": lap, "verdict": told} for lap, told in verdicts.items()]
    found = outcome_of(tmp_path, ROWS, chosen)

    told = texts(found)
    assert told["Lap to use"] == "1 (tie: Gaussian, 3)"
    assert told["Chosen lap"] == "10.5 ± 0.5"
    assert "chosen lap's prior ties with the Gaussian prior" in found.headline
    assert found.strips[0][-1][:2] == ("chosen", 0.05)
    assert "90 % intervals hold (%)" not in told  # of lap 1 there is none


def test_a_gaussian_that_is_chosen_is_told(tmp_path):
    verdicts = {0: "chosen", 1: "", 3: ""}
    chosen = [{"run": "base", "lap": lap, "verdict": told} for lap, told in verdicts.items()]

    found = outcome_of(tmp_path, ROWS, chosen)

    assert texts(found)["Lap to use"] == "Gaussian"
    # Beside itself it would be a tie.
    assert found.headline.endswith("and is better; the Gaussian prior (10.0 ± 0.5) is chosen.")


def test_of_several_runs_a_gaussian_that_is_chosen_is_no_tie(tmp_path, monkeypatch):
    monkeypatch.setitem(ENTRY["runs"], "other", {**ENTRY["runs"]["base"], "label": "other"})
    rows = [*ROWS, row("lap", "other", 3, 10.9, 0.5)]
    chosen = [
        {"run": run, "lap": lap, "verdict": "chosen" if lap == best else ""}
        for run, best in (("base", 3), ("other", 0))
        for lap in (0, 3)
    ]

    assert outcome_of(tmp_path, rows, chosen).headline.endswith(
        "the prior of the chosen lap is better than the Gaussian prior in 1, the Gaussian prior"
        " itself in 1 of 2 runs."
    )


def test_what_is_not_there_is_left_out(tmp_path):
    found = outcome_of(tmp_path, [each for each in ROWS if each["stage"] == "lap"][1:])

    assert list(texts(found)) == ["Run", "90 % intervals hold (%)", "Last lap"]
    assert "is 15.0 ± 0.5 in lap 3." in found.headline
    assert "Gaussian" not in found.headline
    assert found.strips == [[]]


def test_without_a_metric_of_quality_there_is_no_outcome(tmp_path):
    assert (
        outcome_of(tmp_path, [row("lap", "base", 1, 1.0, metric="some", subject="prior")]) is None
    )


def test_a_metric_without_errors_says_so(tmp_path):
    rows = [
        row("lap", "base", lap, 1.0, metric="sliced_wasserstein", subject="prior") for lap in (1, 3)
    ]

    (_, told) = outcome_of(tmp_path, rows).table.notes
    assert "has no standard error" in told


def test_several_runs_are_counted(tmp_path, monkeypatch):
    monkeypatch.setitem(ENTRY["runs"], "other", {**ENTRY["runs"]["base"], "label": "other"})
    odd = {**ENTRY["runs"]["base"], "label": "odd", "observations": "third"}
    monkeypatch.setitem(ENTRY["runs"], "odd", odd)
    monkeypatch.setitem(ENTRY["runs"], "lost", {**ENTRY["runs"]["base"], "label": "lost"})
    others = [row("lap", "other", 3, 10.9, 0.5), row("lap", "odd", 3, 9.0, observations="third")]

    found = outcome_of(tmp_path, [*ROWS, *others])

    assert "better than the Gaussian prior in 1, a tie with the Gaussian prior in 1, not to be" in (
        found.headline
    )
    assert found.headline.endswith("compared with the Gaussian prior in 1 of 3 runs.")
    assert [line[0].text for line in found.table.body] == [
        *(f"{MARKS}, half", "other, half", "odd, third"),
    ]
    assert len(found.strips) == 3


def test_several_seeds_are_one_mean(tmp_path):
    rows = [
        {**each, "seed": seed, "value": each["value"] + 2 * seed}
        for seed in (0, 1)
        for each in ROWS
    ]

    found = outcome_of(tmp_path, rows)

    assert texts(found)["Last lap"] == "16.0 ± 1.0"  # of 15 and 17: sqrt(2) / sqrt(2)
    assert "±: one standard error of the mean over the seeds 0, 1." in found.table.notes


def test_heuristics_count_what_lies_within_the_noise(tmp_path):
    medians = [
        *((0.1, "exact", 0.5), (0.1, "tweedie", 1.0), (0.1, "cov_x", 1.4), (0.1, "zeros", 9.0)),
        *((1.0, "exact", 0.1), (1.0, "tweedie", 1.0), (1.0, "cov_x", 1.4), (1.0, "zeros", 0.9001)),
    ]
    table = pd.DataFrame(medians, columns=["sigma", "covariance", "median"])
    write_csv(tmp_path / "a.csv", table)

    told = of_heuristics("curves", tmp_path / "a.csv").headline
    assert "tweedie at 2, cov_x at 1, zeros at 1 of 2 noise levels" in told


def test_restorations_tell_the_best_method_of_each_task(tmp_path):
    rows = [
        {
            **row("", method, 0, value, 0.1, observations="some_task", sampler_steps=steps),
            "settings": f'{{"method": {{"name": "{method}"}}}}',
        }
        for steps, values in ((10, (20.0, 25.0)), (100, (24.9, 25.0)))
        for method, value in zip(("dps", "mmps"), values, strict=True)
    ]
    write_rows(tmp_path / "rows.csv", rows)

    found = of_restoration("patches", {"metrics": ["psnr"]}, tmp_path / "rows.csv")
    mmps = next(iter(re.findall(r"MMPS(?: \(\d+\))?", found.headline)))
    assert found.headline.endswith(f"{mmps} in 2, DPS in 1 of 2 cases.")
    (line,) = found.table.body
    told = [f"{mmps} 25.00 ± 0.10", f"{mmps} 25.00 ± 0.10 (tie: DPS)"]
    assert [cell.text for cell in line] == ["some task", *told]


def test_a_method_that_lost_an_image_is_not_the_best(tmp_path):
    rows = [
        {
            **row("", name, 0, value, "", observations="box", sampler_steps=10),
            "settings": f'{{"method": {{"name": "{name}"}}}}',
        }
        for name, value in (("dps", math.nan), ("mmps", 25.0), ("pgdm", 20.0))
    ]
    write_rows(tmp_path / "rows.csv", rows)

    told = of_restoration("patches", {"metrics": ["psnr"]}, tmp_path / "rows.csv").headline

    assert re.search(r"PSNR \(dB\), or a tie with it: MMPS(?: \(\d+\))? in 1 of 1 cases\.$", told)


# Costs


@pytest.mark.parametrize(
    ("log", "seconds"),
    [
        ("100%|####| 256/256 [00:02<00:00, 88.92 step/s, loss=0.9]", 256 / 88.92),
        (
            "\r 50%|##   | 1/8 [00:09<00:01, 1 a/s]\r100%|####| 8/8 [01:10<00:00,  8.75s/ step]",
            70.0,
        ),
        (
            "38 level [00:27,  1.25 level/s]\r40 noise level [00:30,  1.31 noise level/s]",
            40 / 1.31,
        ),
        ("100%|####| 8/8 [1:00:05<00:00, 100.00 step/s]", 3605.0),  # it went on from pieces
        ("0 iteration [00:00, ? iteration/s]", 0.0),
        ("2026-01-01 00:00:00 nothing to count", None),
    ],
)
def test_seconds_of_a_progress_bar(log, seconds):
    found = read_seconds(log)

    assert found == (seconds if seconds is None else pytest.approx(seconds))


def test_costs_are_summed_by_stage_and_run(tmp_path):
    config = {"experiments": {"a": {}}, "heuristics": {}, "restoration": {"b": {}}, "posterior": {}}
    config["seeds"] = [0, 1]
    bar = "100%|####| 8/8 [00:04<00:00,  2.00 step/s]"
    for name in (
        *("a/base/lap_01_m_step", "a/base/lap_02_final_m_step", "a/base/lap_01_e_step_1-of-2"),
        *("a/base/lap_01_e_step_2-of-2", "other/base/lap_01_m_step", "a/table"),
        *("a-seed1/base/lap_01_m_step", "a-seed2/base/lap_01_m_step"),
        *("restoration/b/mmps_3", "restoration/b/prior", "restoration/b/clean_data"),
    ):
        path = tmp_path / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(bar)
    (tmp_path / "a/half_gaussian_prior.log").write_text("no bar")

    lines = [[cell.text for cell in line] for line in cost_table(tmp_path, config).body]

    assert lines == [
        ["a", "E-steps", "base", "2", "8.0"],
        ["a", "M-steps", "base", "2", "8.0"],
        ["a-seed1", "M-steps", "base", "1", "4.0"],
        ["b", "prior", "-", "1", "4.0"],
        ["b", "restored images", "mmps_3", "1", "4.0"],
        ["all", "-", "-", "7", "28.0"],
    ]
    assert cost_table(tmp_path / "none", config) is None


# The page


@pytest.fixture
def config():
    """Two experiments, heuristics, and posterior samples of a file."""
    entry = copy.deepcopy(TINY["experiments"]["tiny"]) | {"figures": ["divergence"]}
    entry["runs"]["base"]["label"] = MARKS
    posterior = {"prior": "prior.safetensors", "observations": "new.h5", "samples": 2}
    given = {
        "experiments": {"second": entry, "first": entry},
        "heuristics": {"curves": {}},
        "posterior": {"sky": posterior},
    }
    return resolve(given, "some.yaml")


@pytest.fixture
def captions(tmp_path):
    """The captions of a figure and a table of an experiment, and of what is of all."""
    (tmp_path / "caption.rst").write_text("What ``{{ snakemake.wildcards }}`` shows < that.")
    (tmp_path / "plain.rst").write_text("All of it.")
    named, plain = tmp_path / "caption.rst", tmp_path / "plain.rst"
    return {
        "results/figures/{experiment}_divergence.png": ("figure: divergence", named),
        "results/tables/{experiment}.csv": ("table", named),
        "results/tables/{experiment}.html": ("table", named),
        "results/figures/heuristics_{heuristics}_coil.png": ("{heuristics}: figure: a_coil", named),
        "results/figures/posterior_{posterior}.png": ("figure: posterior of {posterior}", named),
        "results/tables/paper_vs_ours.html": ("every number", plain),
        "results/tables/hyperparameters.html": ("settings", plain),
    }


def test_parts_follow_the_configuration_and_what_is_made(config, captions):
    parts = page_parts(config, [Pair("heuristics", "curves", "curves")], captions)

    names = [(part["section"], part["name"]) for part in parts]
    assert names == [
        *(("experiments", "second"), ("experiments", "first"), ("heuristics", "curves")),
        *(("posterior", "sky"), ("paper", "")),
    ]
    made = {
        name: [each["path"] for each in p["shown"]]
        for (_, name), p in zip(names, parts, strict=True)
    }
    assert made["second"] == [
        "figures/second_divergence.png",
        "tables/second.html",
    ]
    assert {f"results/{path}" for path in made["first"]} < set(targets(config, []))
    assert [each["title"] for each in parts[2]["shown"]] == ["A coil"]
    assert [each["title"] for each in parts[3]["shown"]] == ["Posterior of sky"]
    assert made[""] == ["tables/paper_vs_ours.html", "tables/hyperparameters.html"]


def test_a_part_alone_has_nothing_of_the_others(config, captions):
    (part,) = page_parts(alone(config, "first"), [], captions)

    assert (part["name"], part["wildcards"]) == ("first", {"experiment": "first"})


@pytest.fixture
def written(config, captions, tmp_path, monkeypatch):
    """Returns a function that writes the page, of the experiments alone."""
    monkeypatch.chdir(tmp_path)
    config["heuristics"] = config["posterior"] = {}
    for name in ("second", "first"):
        drawn = tmp_path / f"results/figures/{name}_divergence.png"
        drawn.parent.mkdir(parents=True, exist_ok=True)
        Figure(figsize=(3, 2), dpi=192).savefig(drawn)
        table = tmp_path / f"results/tables/{name}.html"
        table.parent.mkdir(exist_ok=True)
        table.write_text(html(Readable([["Run"]], [[MARKS]], 1, [MARKS])), encoding="utf-8")
    table.with_suffix(".csv").write_text("")

    def write(name="index.html", costs=None):
        path = tmp_path / "results" / name
        parts = [
            gather(p, config, tmp_path / "results", path) for p in page_parts(config, [], captions)
        ]
        run = Run(config, "some.yaml", None, "Priors\n======\n\nText.", {"torch": "2"})
        write_page(path, run, parts, [], costs)
        return path.read_text(encoding="utf-8")

    return write


def test_a_page_shows_figures_tables_and_captions_and_escapes_all(written):
    text = written()

    assert "<title>Priors</title>" in text
    assert "2 experiments (second, first) of some.yaml, seed 0" in text
    assert text.index('<section id="experiments-second"') < text.index('id="experiments-first"')
    assert text.count("data:image/png;base64,") == 2
    assert 'width="288" height="192"' in text
    assert "experiment=&#x27;first&#x27;" in text.replace("&#39;", "&#x27;")
    assert text.count("<script>") == 1  # its own
    assert "alert" in text
    assert '<a href="tables/first.csv">CSV</a>' in text
    assert "second.csv" not in text
    assert 'id="costs"' not in text
    assert '<html lang="en">' in text


def test_every_anchor_of_a_page_is_there_once(written):
    text = written(costs=Table(["a"], [[Cell("1")]]))

    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    anchors = set(re.findall(r'href="#([^"]+)"', text))
    assert {"outcomes", "costs", "settings", "experiments-first", "tables-first"} < anchors
    assert anchors <= set(ids)


def test_a_page_is_the_same_bytes_and_links_from_where_it_lies(written, tmp_path):
    assert written() == written()
    (tmp_path / "results/pages").mkdir()
    assert '<a href="../tables/first.csv">CSV</a>' in written("pages/first.html")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n"])
def test_a_picture_that_is_none_is_told(written, content, tmp_path):
    (tmp_path / "results/figures/first_divergence.png").write_bytes(content)

    with pytest.raises(DiemError, match=r"first_divergence\.png: this is no PNG image"):
        written()
    assert not (tmp_path / "results/index.html").exists()


def test_a_commit_is_that_of_the_clone_itself(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert commit(tmp_path) is None
    git("init")
    assert commit(tmp_path) is None  # there is none yet
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/file").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    assert commit(tmp_path) == git("rev-parse", "HEAD")[:12]
    (tmp_path / "inside/file").write_text("2")
    assert commit(tmp_path) == git("rev-parse", "HEAD")[:12] + "-dirty"
    assert commit(tmp_path / "inside") is None
