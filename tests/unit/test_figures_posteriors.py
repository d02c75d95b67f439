"""The figure of posteriors, of images, complex images and vectors."""

import numpy as np
import pytest

from diem.report.posteriors import posteriors


def shown(shape, seen="y", count=5, samples=4):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, samples, *shape))
    y = np.where(rng.random((count, *shape)) < 0.5, np.nan, x.mean(axis=1))
    return {"x": x, "mean": x.mean(axis=1), "sd": x.std(axis=1, ddof=1), seen: y}


def note(figure):
    return " ".join(figure._supxlabel.get_text().split())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 6), (2, 8, 8)])
def test_images_have_a_row_for_each_thing(shape):
    figure = posteriors(shown(shape), "night")

    (ax,) = figure.axes
    rows = [label.get_text().replace("\n", " ") for label in ax.get_yticklabels()]
    samples = [f"sample {k}" for k in (1, 2, 3)]
    assert rows == ["observed", "posterior mean", "standard deviation", *samples]
    assert figure._suptitle.get_text().startswith("night: ")
    assert "of 4 samples" in note(figure)
    assert "Orange was not observed" in note(figure)


def test_the_grey_scale_is_told():
    arrays = shown((1, 8, 8))
    arrays["mean"] = np.linspace(10, 20, arrays["mean"].size).reshape(arrays["mean"].shape)
    arrays["sd"][:] = 0.25

    text = note(posteriors(arrays, "night"))
    assert "from 10 (black) to 20 (white)" in text
    assert "from 0 to 0.25" in text


def test_the_adjoint_stands_for_observations_of_another_shape():
    arrays = shown((1, 8, 8), "adjoint")
    arrays["adjoint"] = np.nan_to_num(arrays["adjoint"])
    figure = posteriors(arrays, "night")

    assert figure.axes[0].get_yticklabels()[0].get_text().startswith("adjoint")
    assert "Orange" not in note(figure)


def test_columns_with_a_scale_each_share_an_axis():
    plain, arrays = shown((3,)), shown((3,))
    offset, scale = np.array([1013.0, 0.6, 5.0]), np.array([1000.0, 0.01, 2.0])
    arrays = {k: scale * v + (0 if k == "sd" else offset) for k, v in arrays.items()}
    figure = posteriors(arrays | {"offset": offset, "scale": scale}, "night")

    *_, mean, seen = figure.axes[0].lines
    np.testing.assert_allclose(mean.get_ydata(), plain["mean"][0])
    np.testing.assert_allclose(seen.get_ydata(), plain["y"][0])
    assert figure.axes[0].get_ylabel() == "(value - offset) / scale"


@pytest.mark.parametrize("seen", ["y", "adjoint"])
@pytest.mark.parametrize("shape", [(5,), (4, 3), (40, 2, 2)])
def test_other_events_are_curves(shape, seen):
    figure = posteriors(shown(shape, seen), "night")

    assert len(figure.axes) == 4
    mean = figure.axes[0].lines[4]  # after four samples
    np.testing.assert_array_equal(mean.get_ydata(), shown(shape)["mean"][0].ravel())
    assert ("crosses" in note(figure)) == (seen == "y")
