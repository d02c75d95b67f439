"""Figures show what they are given, where a reader looks for it."""

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

from diem.errors import DiemError
from diem.files import hdf5
from diem.report.drawing import laps
from diem.report.drawing.images import Heading, image_rows
from diem.report.drawing.laps import by_lap
from diem.report.drawing.marginals import color_norm, pair_density
from diem.report.drawing.style import MISSING, save
from diem.report.figures import Evaluation, Source
from diem.report.figures.base import figure_named

CARD = {
    "experiment": "digits",
    "subject": "prior",
    "metric": "frechet_distance",
    "split": "none",
    "samples": "2048",
    "reference": "clean test",
    "reference_samples": "450",
    "extractor": "cnn32",
    "extractor_digest": "88fa86d0",
    "extractor_accuracy": "0.9955",
    "standard_error": "",
    "sampler": "ddpm",
    "sampler_steps": "64",
    "denoiser_evaluations": "65",
    "optimizer_steps": "100",
    "seed": "7",
}
LABELS = {"a": "tweedie", "b": "tweedie", "c": "cov_t"}


def metric_rows(**changes) -> pd.DataFrame:
    """Rows of two sets of observations: run a sees the first, runs b and c the second."""
    rows = []
    for observations, floor in (("missing_50", 8.0), ("missing_75", 16.0)):
        rows.append(("floor", observations, "floor", 0, floor))
        rows.append(("ceiling", observations, "ceiling", 0, 0.5))
    for run, observations, last in (
        ("a", "missing_50", 1.0),
        ("b", "missing_75", 2.0),
        ("c", "missing_75", 2.1),
    ):
        # Not in the order of the laps, which a figure must not rely on.
        rows += [(run, observations, "lap", 4, last), (run, observations, "lap", 1, 2 * last)]
    names = ("run", "observations", "stage", "lap", "value")
    return pd.DataFrame([{**CARD, **dict(zip(names, row, strict=True)), **changes} for row in rows])


def drawn_by(name, source):
    return figure_named(name).draw(source)


def lines(ax, marker: bool):
    return [line for line in ax.lines if (line.get_marker() not in ("", "None")) == marker]


def note(figure) -> str:
    return " ".join(figure._supxlabel.get_text().split())


@pytest.mark.slow
def test_distance_has_a_panel_for_each_set_of_observations():
    figure = drawn_by("distance", Source("digits", LABELS, rows=metric_rows()))
    first, second = figure.axes

    assert [ax.get_title() for ax in figure.axes] == ["missing_50", "missing_75"]
    assert first.get_ylabel() == "Frechet distance\n(cnn32 features) ↓"
    assert [len(lines(ax, marker=True)) for ax in figure.axes] == [1, 2]
    assert first.get_ylim() == second.get_ylim()
    for ax, floor in ((first, 8.0), (second, 16.0)):
        assert [line.get_ydata()[0] for line in lines(ax, marker=False)] == [floor, 0.5]


@pytest.mark.slow
def test_a_run_starts_at_its_floor_and_goes_through_its_laps_in_order():
    figure = drawn_by("distance", Source("digits", LABELS, rows=metric_rows()))
    tweedie, cov_t = lines(figure.axes[1], marker=True)

    np.testing.assert_array_equal(tweedie.get_xydata(), [[0, 16], [1, 4], [4, 2]])
    np.testing.assert_array_equal(cov_t.get_xydata(), [[0, 16], [1, 4.2], [4, 2.1]])
    assert list(figure.axes[1].get_xticks()) == [4, 1, 0]


@pytest.mark.slow
def test_names_stand_beside_their_lines_and_not_on_each_other():
    figure = drawn_by("distance", Source("digits", LABELS, rows=metric_rows()))
    first, second = figure.axes
    texts = {text.get_text(): text for text in second.texts}

    assert set(texts) == {"floor", "ceiling", "tweedie", "cov_t"}
    assert {text.get_text() for text in first.texts} == {"floor", "ceiling", "tweedie"}
    figure.draw_without_rendering()
    boxes = sorted(text.get_window_extent().y0 for text in second.texts)
    height = second.texts[0].get_window_extent().height
    assert np.diff(boxes).min() > 0.7 * height
    for line, label in zip(lines(second, marker=True), ("tweedie", "cov_t"), strict=True):
        assert texts[label].get_color() == line.get_color()
    # The same label looks the same in every panel.
    assert lines(first, marker=True)[0].get_color() == texts["tweedie"].get_color()


@pytest.mark.slow
def test_distance_shows_fid_and_inception_score_with_what_is_better():
    one = metric_rows()
    one = one[one["observations"] == "missing_50"].assign(extractor="inception", reference="")
    fid = one.assign(metric="fid")
    score = one.assign(metric="inception_score", value=2 + one["value"] / 100)

    figure = drawn_by("distance", Source("cifar10", LABELS, rows=pd.concat([score, fid])))

    labels = [ax.get_ylabel() for ax in figure.axes]
    assert labels == ["FID\n(inception) ↓", "Inception score\n(inception, 10 splits) ↑"]
    # No Inception score is less than 1.
    assert figure.axes[1].get_ylim()[0] == 1


def test_the_note_says_what_made_the_numbers():
    said = note(drawn_by("distance", Source("digits", LABELS, rows=metric_rows())))

    for words in ("2,048 samples", "ddpm with 64 steps", "clean test (450)", "0.9955", "Seed 7"):
        assert words in said
    assert "FID" not in said


@pytest.mark.slow
def test_samples_of_the_e_step_are_not_drawn():
    rows = pd.concat([metric_rows(), metric_rows(subject="e_step", value=99.0)])

    figure = drawn_by("distance", Source("digits", LABELS, rows=rows))

    assert not any(99 in line.get_ydata() for ax in figure.axes for line in ax.lines)


@pytest.mark.slow
def test_divergence_has_a_panel_for_each_metric_that_is_there():
    one = metric_rows()
    one = one[one["observations"] == "missing_50"]
    wide = one.assign(metric="sinkhorn_divergence", extractor="")
    narrow = one.assign(metric="distance_to_manifold", extractor="", value=3 + one["value"] / 8)

    figure = drawn_by("divergence", Source("manifold", LABELS, rows=pd.concat([narrow, wide])))

    labels = [ax.get_ylabel() for ax in figure.axes]
    assert labels == [
        "Sinkhorn divergence\n(squared data units) ↓",
        "Distance to the manifold\n(data units) ↓",
    ]
    assert [ax.get_yscale() for ax in figure.axes] == ["log", "linear"]


def test_values_that_are_not_positive_have_a_linear_axis():
    rows = metric_rows()
    rows.loc[rows["stage"] == "ceiling", "value"] = -0.1

    ax = drawn_by("distance", Source("digits", LABELS, rows=rows)).axes[0]

    assert ax.get_yscale() == "linear"
    assert ax.get_ylim()[0] <= -0.1


@pytest.mark.slow
def test_all_panels_of_a_row_show_all_values():
    rows = pd.concat([metric_rows(), metric_rows(metric="sliced_wasserstein", extractor="")])
    rows["value"] = 10 + rows["value"]

    figure = by_lap(rows, ("frechet_distance", "sliced_wasserstein"), LABELS, "title")

    assert [ax.get_ylim()[1] > 26 for ax in figure.axes] == [True] * 4


def test_missing_metrics_are_told():
    with pytest.raises(DiemError, match=r"evaluation\.metrics with frechet_distance"):
        drawn_by("distance", Source("digits", LABELS, rows=metric_rows(metric="psnr")))


def test_numbers_of_many_laps_do_not_run_into_each_other():
    assert laps.lap_ticks({0, 1, 2, 4, 8, 16, 32}) == [32, 16, 8, 4, 2, 0]
    assert laps.lap_ticks({0, 1, 2, 4, 7, 10}) == [10, 7, 4, 2, 1, 0]


def test_spread_moves_no_more_than_it_must():
    assert laps._spread([0.0, 1.0, 2.0], gap=0.5) == [0, 1, 2]
    np.testing.assert_allclose(laps._spread([0.0, 1.0, 1.0], gap=0.5), [0, 0.75, 1.25])
    values = sorted(np.random.default_rng(0).uniform(size=9))
    moved = laps._spread(values, gap=0.2)
    assert np.diff(moved).min() > 0.2 - 1e-9
    assert np.mean(moved) == pytest.approx(np.mean(values))


def drawn(ax) -> tuple[float, float]:
    """Returns where the one bin of a histogram that is not empty is drawn."""
    image = ax.images[0]
    ((row, column),) = np.argwhere(~np.ma.getmaskarray(image.get_array()))
    left, right, bottom, top = image.get_extent()
    assert image.origin == "lower"
    size = image.get_array().shape
    x = left + (column + 0.5) * (right - left) / size[1]
    return x, bottom + (row + 0.5) * (top - bottom) / size[0]


POINT = np.tile([[-2.0, -1.0, 0.5, 1.5, 2.5]], (10, 1))


def vectors(stage, lap, x):
    return Evaluation("projections", "a", stage, lap, {"prior/x": x})


def test_evolution_goes_from_the_gaussian_to_the_truth():
    parts = [vectors("floor", 0, POINT), vectors("lap", 1, POINT), vectors("lap", 8, POINT + 0.2)]

    figure = drawn_by("evolution", Source("manifold", LABELS, truth=POINT, evaluations=parts))
    axes = np.reshape(figure.axes, (3, 4))

    titles = [ax.get_title() for ax in axes[0]]
    assert titles == ["Gaussian\n(lap 0)", "lap 1", "lap 8", "truth"]
    for i in range(3):
        assert axes[i, 0].get_ylabel() == f"$x_{i + 2}$ against $x_{i + 1}$"
        assert drawn(axes[i, 3]) == pytest.approx(POINT[0, i : i + 2], abs=3 / 64)
        assert drawn(axes[i, 2]) == pytest.approx(POINT[0, i : i + 2] + 0.2, abs=3 / 64)
        limits = {image.norm.vmax for ax in axes[i] for image in ax.images}
        assert len(limits) == 1
    assert "10 prior samples" in note(figure)


def test_evolution_of_vectors_of_two_values_has_one_pair():
    parts = [vectors("lap", 1, POINT[:, :2])]

    figure = drawn_by("evolution", Source("m", LABELS, truth=POINT[:, :2], evaluations=parts))

    assert len(figure.axes) == 2


def test_mass_in_few_bins_is_as_dark_as_elsewhere():
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], size=(2000, 4)) + 0.01 * rng.standard_normal((2000, 4))
    for x in (signs, POINT):
        densities = [pair_density(x, 0, 1), pair_density(x, 1, 2)]
        norm = color_norm(densities)
        assert all(norm(density.max()) > 0.9 for density in densities)
    nothing = pair_density(np.full((10, 2), 9.0), 0, 1)  # beyond all bins
    assert color_norm([nothing])(nothing).max() == 0


def test_the_colours_of_ordinary_densities_end_at_a_share_of_all_bins():
    density = pair_density(np.random.default_rng(0).standard_normal((5000, 2)), 0, 1)
    assert color_norm([density]).vmax == np.quantile(density, 0.998)


@pytest.mark.slow
def test_corner_has_pairs_below_the_diagonal_and_coordinates_on_it():
    figure = drawn_by(
        "corner_model",
        Source("manifold", LABELS, truth=POINT, evaluations=[vectors("lap", 8, POINT)]),
    )
    axes = np.reshape(figure.axes, (5, 5))

    assert "after lap 8" in figure.get_suptitle()
    for (i, j), ax in np.ndenumerate(axes):
        assert ax.axison == (j <= i)
        if j < i:
            assert drawn(ax) == pytest.approx((POINT[0, j], POINT[0, i]), abs=3 / 64)
        if j == i:
            assert len(ax.patches) == 2  # model and truth
        if j <= i:
            assert ax.get_xlim() == (-3, 3)


@pytest.mark.slow
def test_corner_of_the_truth_is_the_truth_alone():
    figure = drawn_by("corner_truth", Source("manifold", LABELS, truth=POINT))

    assert len(figure.axes[0].patches) == 1
    assert not figure.axes[1].texts


@pytest.mark.slow
def test_marginals_of_parts_are_those_of_the_whole(monkeypatch):
    x, truth = np.random.default_rng(0).standard_normal((2, 500, 3))

    def shown():
        source = Source("m", LABELS, truth=truth, evaluations=[vectors("lap", 8, x)])
        pictures, edges = [], []
        for figure in (drawn_by("evolution", source), drawn_by("corner_model", source)):
            pictures += [image.get_array() for ax in figure.axes for image in ax.images]
            edges += [patch.get_xy() for ax in figure.axes for patch in ax.patches]
        return pictures, edges

    whole = shown()
    monkeypatch.setattr(hdf5, "PART_BYTES", 7 * x[:1].nbytes)
    for one, other in zip(whole, shown(), strict=True):
        assert len(one) > 4
        for a, b in zip(one, other, strict=True):
            assert np.ma.allequal(a, b)
    heights = whole[1][0][:, 1]
    expected, _ = np.histogram(x[:, 0], np.linspace(-3, 3, 65), density=True)
    assert np.isin(expected, heights).all()


@pytest.mark.parametrize("shape", [(10, 1), (10, 1, 8, 8)])
def test_marginals_need_vectors(shape):
    with pytest.raises(DiemError, match="vectors"):
        drawn_by("corner_truth", Source("digits", LABELS, truth=np.zeros(shape)))


def cell(figure, block: int, row: int, column: int) -> np.ndarray:
    """Returns the colour in the middle of an image, as it is drawn."""
    ax = figure.axes[block]
    picture = ax.images[0].get_array()
    rows, columns = len(figure.axes[0].get_yticks()), round(ax.images[0].get_extent()[1])
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    return np.asarray(picture[row * height + height // 2, column * width + width // 2])


def test_grey_values_and_missing_pixels():
    images = np.full((3, 1, 8, 8), -2.0)
    images[1], images[2] = 5.0, np.nan  # beyond the range, and missing

    figure = image_rows({"block": {Heading(0, "row"): images}}, "title", "note")

    np.testing.assert_allclose(cell(figure, 0, 0, 0), 0)
    np.testing.assert_allclose(cell(figure, 0, 0, 1), 1)
    np.testing.assert_allclose(cell(figure, 0, 0, 2), MISSING)
    assert len(set(MISSING)) == 3


def test_colour_images_keep_their_colours():
    images = np.full((2, 3, 16, 16), -2.0)
    images[:, 1] = 2.0

    figure = image_rows({"block": {Heading(0, "row"): images}}, "title", "note")

    np.testing.assert_allclose(cell(figure, 0, 0, 1), (0, 1, 0))


def test_images_have_one_channel_or_three():
    with pytest.raises(DiemError, match="one channel or three"):
        image_rows({"block": {Heading(0, "row"): np.zeros((2, 2, 8, 8))}}, "title", "note")


def constant(value: float, count: int = 12) -> np.ndarray:
    return np.full((count, 1, 8, 8), value)


def test_prior_has_a_block_for_each_set_of_observations():
    """Runs of different laps: rows stay in order, and what a block lacks stays white."""
    parts = []
    for observations, run, numbers in (("half", "a", (1, 8)), ("quarter", "c", (1, 2))):
        parts.append(Evaluation(observations, "floor", "floor", 0, {"prior/x": constant(0)}))
        parts += [
            Evaluation(observations, run, "lap", lap, {"prior/x": constant(lap / 8)})
            for lap in numbers
        ]
        parts.append(Evaluation(observations, "ceiling", "ceiling", 0, {"prior/x": constant(-1)}))

    figure = drawn_by("prior", Source("digits", LABELS, evaluations=parts))

    assert [ax.get_title() for ax in figure.axes] == ["half, tweedie", "quarter, cov_t"]
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["Gaussian\n(lap 0)", "lap 1", "lap 2", "lap 8", "ceiling"]
    for block, greys in enumerate(((0, 1 / 8, None, 1, -1), (0, 1 / 8, 2 / 8, None, -1))):
        for row, value in enumerate(greys):
            expected = 1 if value is None else (value + 2) / 4
            np.testing.assert_allclose(cell(figure, block, row, 11), expected)


def test_prior_of_data_that_are_no_images_is_of_curves():
    x = np.arange(12.0).reshape(2, 6)
    parts = [
        Evaluation("half", "floor", "floor", 0, {"prior/x": x}),
        Evaluation("half", "a", "lap", 1, {"prior/x": 2 * x}),
        Evaluation("quarter", "c", "lap", 2, {"prior/x": x}),
    ]

    figure = drawn_by("prior", Source("signals", LABELS, evaluations=parts))

    assert [ax.get_title() for ax in figure.axes[:3]] == ["Gaussian\n(lap 0)", "lap 1", "lap 2"]
    drawn = [[line.get_ydata().tolist() for line in ax.lines] for ax in figure.axes]
    x = x.tolist()
    assert drawn == [x, [[2 * v for v in curve] for curve in x], [], [], [], x]
    assert "each colour starts from the same noise" in note(figure)
    # Narrow panels have no room for more.
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "", "component", "", ""]
    assert all(tick == int(tick) for ax in figure.axes for tick in ax.get_xticks())


def inpainted(stage, lap, draws):
    observed = np.zeros((8, 1, 8, 8), dtype=bool)
    observed[1] = True
    arrays = {
        "posterior/x": np.stack([constant(value, 8) for value in draws], axis=1),
        "posterior/y": constant(0.5, 8),
        "posterior/observed": observed,
        "posterior/truth": constant(2.0, 8),
    }
    return Evaluation("half", "a" if stage == "lap" else stage, stage, lap, arrays)


def test_inpainting_goes_from_the_observation_to_the_truth():
    parts = [
        inpainted("floor", 0, (-2, -2)),
        inpainted("lap", 1, (-1, 0)),
        inpainted("lap", 2, (0, 1)),
    ]

    figure = drawn_by("inpainting", Source("digits", LABELS, evaluations=parts))

    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["observed", "Gaussian\n(lap 0)", "lap 1", "lap 2", "posterior\nmean", "truth"]
    np.testing.assert_allclose(cell(figure, 0, 0, 0), MISSING)
    shown = [cell(figure, 0, row, 1)[0] for row in range(6)]
    np.testing.assert_allclose(shown, (np.array([0.5, -2, -1, 0, 0.5, 2]) + 2) / 4)
    assert "2 samples" in note(figure)


def test_inpainting_needs_observations_of_the_shape_of_the_data():
    part = inpainted("lap", 1, (0, 1))
    arrays = {**part.arrays, "posterior/y": np.zeros((8, 2))}

    with pytest.raises(DiemError, match=r"'half' has \(2,\)"):
        drawn_by(
            "inpainting",
            Source("digits", LABELS, evaluations=[Evaluation("half", "a", "lap", 1, arrays)]),
        )


@pytest.mark.slow
def test_a_saved_figure_is_the_same_every_time_and_has_real_text(tmp_path, monkeypatch):
    rows = metric_rows()
    for kind in ("pdf", "png"):
        for name in ("one", "two"):
            figure = drawn_by("distance", Source("digits", LABELS, rows=rows))
            save(figure, tmp_path / f"{name}.{kind}", kind)
            # The user's own settings have no say.
            monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)
            monkeypatch.setitem(matplotlib.rcParams, "pdf.fonttype", 3)
        one, two = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
        assert one == two
        if kind == "pdf":
            assert b"/Type3" not in one
            assert b"/CIDFontType2" in one
            assert b"/MediaBox [ 0 0 504 " in one  # 7 inches


def test_the_ring_is_at_lap_0_where_the_gaussian_is_the_best():
    rows = metric_rows(metric="prediction", extractor="")
    rows.loc[(rows["stage"] == "floor") & (rows["observations"] == "missing_75"), "value"] = 1.5

    figure = drawn_by("lap_choice", Source("digits", LABELS, rows=rows))

    rings = [
        [tuple(line.get_xydata()[0]) for line in ax.lines if line.get_markersize() == 10]
        for ax in figure.axes
    ]
    assert rings == [[(4, 1.0)], [(0, 1.5), (0, 1.5)]]


def test_the_ring_is_at_the_chosen_lap_though_means_over_seeds_say_another():
    names = ("prediction", "frechet_distance")
    rows = pd.concat([metric_rows(metric=m, extractor="") for m in names])
    rows = rows[rows["observations"] == "missing_75"]
    chosen = {"b": 1, "c": 4}

    figure = drawn_by("lap_choice", Source("digits", LABELS, rows=rows, chosen=chosen))

    rings = [
        [line.get_xdata()[0] for line in ax.lines if line.get_markersize() == 10]
        for ax in figure.axes
    ]
    # By clean data the best is ringed, whichever was chosen.
    assert rings == [[1, 4], [4, 4]]


def test_what_is_no_figure_is_told_and_not_written(tmp_path):
    with pytest.raises(DiemError, match=r"x.pdf: the figure's method draw returns NoneType, where"):
        save(None, tmp_path / "x.pdf", "pdf")
    assert not list(tmp_path.iterdir())
