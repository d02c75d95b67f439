"""Figures of many runs and of long names: nothing is cut, covered, or mistaken for another."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_figures import CARD

from diem.evaluation.metrics import Label
from diem.paper.heuristics.figures import divergence_by_sigma
from diem.paper.restoration.figures import restoration_metrics
from diem.report.drawing.coverage import Line, coverages
from diem.report.drawing.images import Heading, image_rows
from diem.report.drawing.laps import by_lap, line_styles
from diem.report.drawing.style import annotate, fitted, shortened, styled, text_width
from diem.report.figures import Losses, Source
from diem.report.figures.base import figure_named

LONG = "run_with_a_rather_long_name_{}"


@styled
def annotated(title, note, **settings):
    figure = Figure(figsize=(7, 3), dpi=200)  # that of files
    figure.subplots()
    annotate(figure, title, note, **settings)
    figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("text", ["wide words " * 30, "W" * 150, r"costs \$5 or \$6 " * 20])
def test_titles_and_notes_stay_within_the_figure(text):
    figure = annotated(text, text, beside=1.0)
    for part, right in ((figure._suptitle, 6.0), (figure._supxlabel, 7.0)):
        box = part.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= right * figure.dpi
        assert "\n" in part.get_text()
        assert part._preprocess_math(part.get_text())[1] is False
    assert figure.get_figheight() > 3


def test_a_short_title_takes_no_more_room():
    figure = annotated("digits: samples", "note")
    assert figure._suptitle.get_text() == "digits: samples"
    assert figure.get_figheight() == 3


@styled
def test_text_is_broken_where_it_must():
    assert fitted("one two", 9.0, 8) == "one two"
    assert fitted("one two", text_width("one tw", 8), 8) == "one\ntwo"
    assert fitted("", 1.0, 8) == ""
    assert text_width(" ", 8) == 0.0  # a label may be blank


def test_what_is_left_out_of_a_name_is_its_middle():
    assert shortened("tweedie", 7) == "tweedie"
    assert shortened(LONG.format(11), 12) == "run_wi…me_11"
    assert shortened(r"a\$bbbbbb\$c", 5) == r"a\$…\$c"


def apart(texts) -> bool:
    """Tells whether no two texts of a drawn figure overlap, and all lie within it."""
    boxes = [text.get_window_extent() for text in texts]
    within = all(
        box.x0 >= 0 and box.x1 <= text.get_figure(root=True).bbox.x1
        for box, text in zip(boxes, texts, strict=True)
    )
    return within and not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("runs", [["tweedie", "box", "cov_t", "cov_x"], map(LONG.format, range(5))])
def test_headings_that_tell_of_overfitting_stand_apart(runs):
    curve = pd.DataFrame(
        {"step": [64, 128, 192], "loss": [1.0, 0.8, 0.7], "validation_loss": [1.0, 0.9, 0.95]}
    )
    labels = dict.fromkeys(runs, "a label")
    losses = [Losses(run, lap, curve) for run in labels for lap in range(1, 9)]

    figure = figure_named("losses").draw(Source("digits", labels, losses=losses))
    figure.set_dpi(200)
    figure.draw_without_rendering()

    axes = figure.axes[: len(labels)]
    assert apart([ax._left_title for ax in axes])
    for run, ax in zip(labels, axes, strict=True):
        heading = ax.get_title(loc="left").replace("\n", " ")
        assert heading.startswith(run[:15])
        assert heading.endswith(
            "8 of 8 laps overfit: lap 1 ends 6 % above its lowest validation loss"
        )


METRICS = ("sliced_wasserstein", "distance_to_manifold", "sinkhorn_divergence")


def rows_of(runs, ceilings=1, metrics=METRICS) -> pd.DataFrame:
    """Rows of runs of one set of observations, of which the first have ceilings."""
    found = [("floor", "floor", 0, 2.0)]
    found += [(run, "ceiling", 0, 0.5 + 0.01 * i) for i, run in enumerate(runs[:ceilings])]
    found += [
        (run, "lap", lap, 1.8 / lap + 0.1 * i) for i, run in enumerate(runs) for lap in (1, 2)
    ]
    names = ("run", "stage", "lap", "value")
    shared = {**CARD, "observations": "half", "extractor": ""}
    rows = [{**shared, **dict(zip(names, row, strict=True))} for row in found]
    return pd.concat([pd.DataFrame(rows).assign(metric=metric) for metric in metrics])


def shown(rows, runs, **settings):
    figure = by_lap(rows, METRICS, {run: run for run in runs}, "title", {}, **settings)
    figure.set_dpi(200)
    figure.draw_without_rendering()
    return figure


def legend_of(figure):
    (part,) = figure.subfigs
    (legend,) = part.legends
    return legend


def look(line) -> tuple:
    return line.get_color(), line.get_marker(), str(line._unscaled_dash_pattern)


@pytest.mark.parametrize(
    ("count", "ceilings", "name"),
    [(1, 1, "n" * 26), (12, 12, "{}"), (8, 2, LONG), (3, 3, "w" * 90)],
)
def test_many_or_long_names_stand_in_a_legend_below(count, ceilings, name):
    runs = [f"{i}_{name.format(i)}" for i in range(count)]
    figure = shown(rows_of(runs, ceilings), runs, ceilings={"half": {r: f"of {r}" for r in runs}})

    legend = legend_of(figure)
    texts = {shortened(text, 60) for run in runs for text in (run, f"of {run}")}
    bounds = {shortened(f"of {run}", 60) for run in runs[ceilings:]}
    assert {text.get_text() for text in legend.get_texts()} == (texts | {"floor"}) - bounds
    assert apart(legend.get_texts())
    looks = [look(line) for line in legend.get_lines()]
    assert len(set(looks)) == len(looks)
    # Nothing of it is on the panels, which keep their width, or on the note.
    box = legend.get_window_extent()
    assert figure._supxlabel.get_window_extent().y1 < box.y0
    for ax in figure.axes:
        assert box.y1 < ax.xaxis.label.get_window_extent().y0
        assert ax.get_window_extent().width > 0.2 * figure.bbox.width
        assert not ax.texts
        assert {look(line) for line in ax.lines if line.get_markersize() < 10} == set(looks)


def test_few_and_short_names_stand_beside_their_lines():
    figure = shown(rows_of(["tweedie", "cov_x"]), ["tweedie", "cov_x"])
    assert not figure.subfigs
    for ax in figure.axes:
        assert {text.get_text() for text in ax.texts} == {"tweedie", "cov_x", "floor", "ceiling"}


def test_no_two_labels_look_alike():
    styles = line_styles({str(i): str(i) for i in range(20)})
    assert len({tuple(map(str, style.values())) for style in styles.values()}) == 20


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_last_value_that_is_not_finite_leaves_name_and_tick(value):
    rows = rows_of(["tweedie", "cov_x"])
    last = (rows["run"] == "cov_x") & (rows["lap"] == 2) & (rows["metric"] == METRICS[0])
    rows.loc[last, "value"] = value
    rows.loc[rows["metric"] == METRICS[1], "value"] = value

    lost, nothing, _ = shown(rows, ["tweedie", "cov_x"]).axes

    texts = {text.get_text(): text.get_position()[1] for text in lost.texts}
    assert set(texts) == {"tweedie", "cov_x", "floor", "ceiling"}
    assert all(0 < y < 1.2 for y in texts.values())
    assert lost.get_yscale() == "linear"
    for ax in (lost, nothing):
        assert ax.get_xlim()[1] >= 2
        assert 2 in ax.get_xticks()


def test_each_subject_of_a_metric_has_its_line():
    one = rows_of(["a"], metrics=["mine"]).assign(subject="posterior")
    mean = one.assign(subject="posterior_mean", value=one["value"] + 4)
    rows = pd.concat([one, mean]).sort_values(["stage", "lap"], kind="stable")

    known = {"mine": Label("Mine", "dB", "↑")}
    figure = by_lap(rows, ["mine"], {"a": "a"}, "title", {}, known)

    (ax,) = figure.axes
    posterior, means = [line for line in ax.lines if line.get_marker() == "o"][:2]
    np.testing.assert_array_equal(posterior.get_xydata(), [[0, 2], [1, 1.8], [2, 0.9]])
    np.testing.assert_array_equal(means.get_xydata(), [[0, 6], [1, 5.8], [2, 4.9]])
    rings = [line.get_xydata()[0].tolist() for line in ax.lines if line.get_markersize() == 10]
    assert rings == [[0, 2], [0, 6]]
    subjects = ("posterior samples", "posterior means")
    names = {f"{name}, {subject}" for name in ("a", "floor", "ceiling") for subject in subjects}
    assert {text.get_text() for text in ax.texts} == names


@pytest.mark.parametrize(("count", "sets"), [(12, 1), (2, 3)])
def test_many_or_long_names_are_not_on_the_coverages(count, sets):
    u = np.random.default_rng(0).uniform(size=64)
    found = {"single values": u[:, None], "sum of all values": u, "distance to another truth": u}
    names = [LONG.format(i) for i in range(count)]
    lines = [Line(f"set {i}", "lap", name, found) for i in range(sets) for name in names]

    figure = coverages(lines, "title")
    figure.set_dpi(200)
    figure.draw_without_rendering()

    legend = legend_of(figure)
    assert [text.get_text() for text in legend.get_texts()] == names
    looks = [look(line) for line in legend.get_lines()]
    assert len(set(looks)) == count
    for ax in figure.axes:
        assert ax.get_legend() is None
        assert [look(line) for line in ax.lines[1:]] == looks
        assert not legend.get_window_extent().overlaps(ax.get_tightbbox())
    assert apart([ax.title for ax in figure.axes])


def test_titles_of_many_panels_of_images_stand_apart():
    images = np.zeros((4, 1, 8, 8))
    names = [f"missing_{i}0, tweedie with a long label" for i in range(6)]
    panels = {name: {Heading(0, "row"): images} for name in names}

    figure = image_rows(panels, "six sets", "note")
    figure.set_dpi(200)
    figure.draw_without_rendering()

    assert apart([ax.title for ax in figure.axes])
    assert [ax.get_title().replace("\n", " ") for ax in figure.axes] == list(panels)
    assert figure.axes[0].get_window_extent().width > 0.9 * 200


def divergences(sigmas) -> pd.DataFrame:
    """A table of divergences, of which some published ones are lower than all of ours."""
    rows = [
        {"sigma": sigma, "covariance": covariance, "median": median, "published": published}
        for sigma in sigmas
        for covariance, median, published in (
            *(("exact", 0.02, np.nan), ("tweedie", 0.5, 0.004)),
            *(("cov_x", 1.0, 2.0), ("zeros", 1.1, 900.0)),
        )
    ]
    table = pd.DataFrame(rows)
    quartiles = {"lower_quartile": 0.8 * table["median"], "upper_quartile": 1.5 * table["median"]}
    card = "16,384 samples of 1,048,576 of the prior; " * 5
    return table.assign(**quartiles, card=card, source="a paper")


@pytest.mark.parametrize("sigmas", [(0.1,), (0.01, 0.1, 1.0)])
def test_all_divergences_are_drawn_whatever_the_number_of_levels(sigmas):
    figure = divergence_by_sigma(divergences(sigmas), "curves")
    figure.set_dpi(200)
    figure.draw_without_rendering()

    (ax,) = figure.axes
    bottom, top = ax.get_ylim()
    assert bottom < 0.004
    assert top > 900
    assert apart([figure._supxlabel])
    drawn = [y for line in ax.lines if line.get_marker() in "_" for y in line.get_ydata()]
    assert {0.02, 0.5, 1.0, 1.1} <= set(drawn)
    if len(sigmas) == 1:
        bars = [bar.get_segments()[0][:, 1] for bar in ax.collections]
        np.testing.assert_allclose(bars, [[0.4, 0.75], [0.8, 1.5], [0.88, 1.65]])
        places = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "_"]
        assert len(set(places)) == 3


def restored(steps, iterations=(1, 3)) -> pd.DataFrame:
    """Rows of a comparison of posterior samplers, of which one has several entries."""
    methods = {"dps": {"name": "dps"}}
    methods |= {f"mmps_{n}": {"name": "mmps", "iterations": n} for n in iterations}
    prior = {"name": "a prior", "data": "faces"}
    rows = [
        {
            **{**CARD, "extractor": "", "run": run, "observations": task, "sampler_steps": str(n)},
            **{"metric": "psnr", "value": 20.0 + i, "standard_error": "0.5"},
            "settings": json.dumps({"prior": prior, "method": method}),
        }
        for task in ("inpainting_of_a_large_box", "phase_retrieval", "blur", "super", "random")
        for i, (run, method) in enumerate(methods.items())
        for n in steps
    ]
    return pd.DataFrame(rows)


def test_a_single_number_of_steps_has_bars_side_by_side():
    figure = restoration_metrics(restored([10]), "faces")
    figure.set_dpi(200)
    figure.draw_without_rendering()

    assert apart([ax.title for ax in figure.axes])
    assert "Bars: one standard error." in figure._supxlabel.get_text()
    for ax in figure.axes:
        low, high = ax.get_xlim()
        places = [line.get_xdata()[0] for line in ax.lines]
        assert low < places[0] < places[1] < places[2] < high
        assert places[1] == pytest.approx(10)
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["10"]
        bars = [bar.get_segments()[0][:, 1] for bar in ax.collections]
        np.testing.assert_allclose(bars, [[19.5, 20.5], [20.5, 21.5], [21.5, 22.5]])
        marks = {(line.get_color(), line.get_fillstyle()) for line in ax.lines}
        assert len(marks) == 3


@pytest.mark.parametrize("steps", [[10], [10, 100]])
def test_many_entries_of_a_method_do_not_look_alike(steps):
    ax = restoration_metrics(restored(steps, range(1, 7)), "faces").axes[0]
    lines = [line for line in ax.lines if line.get_label().startswith("MMPS")]
    assert len(lines) == 6
    assert len({line.get_fillstyle() for line in lines}) == 6
    if len(steps) > 1:
        assert len({str(line._unscaled_dash_pattern) for line in lines}) == 6
