"""Figures of many runs and of long names: nothing is cut, covered, or mistaken for another."""

import itertools

import pandas as pd
import pytest
from matplotlib.figure import Figure

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
