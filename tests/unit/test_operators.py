"""Operators: identities that every one must hold, and what is refused."""

import math

import numpy as np
import pytest
import torch
from helpers import matrices, simulate

from diem import operators
from diem.errors import DiemError
from diem.operators.base import OPERATORS, Operator
from diem.operators.mask import Mask
from diem.operators.projection import Projection
from diem.operators.verify import verify_operator

CASES = [
    pytest.param({"name": "mask", "missing": 0.5}, (1, 8, 8), id="mask"),
    pytest.param({"name": "mask", "missing": 0.25}, (3, 4, 5), id="mask-colour"),
    pytest.param({"name": "mask", "missing": 0.75}, (2, 7), id="mask-sequence"),
    pytest.param({"name": "mask", "box": 3}, (3, 6, 5), id="mask-box"),
    pytest.param({"name": "blur", "size": 5, "intensity": 0.5}, (3, 6, 7), id="blur"),
    pytest.param({"name": "blur", "size": 5, "intensity": 0.0}, (1, 5, 5), id="blur-straight"),
    pytest.param(
        {"name": "blur", "size": 5, "intensity": 0.5, "boundary": "reflect"},
        (3, 5, 7),
        id="blur-reflect",
    ),
    pytest.param({"name": "downsample", "factor": 2}, (3, 4, 6), id="downsample"),
    pytest.param(
        {"name": "downsample", "factor": 2, "filter": "bicubic"}, (3, 4, 6), id="downsample-bicubic"
    ),
    pytest.param({"name": "fourier", "acceleration": 2}, (1, 6, 8), id="fourier"),
    pytest.param({"name": "fourier", "acceleration": 3}, (2, 5, 7), id="fourier-complex"),
    pytest.param({"name": "fourier", "acceleration": 2, "coils": 3}, (2, 4, 6), id="fourier-coils"),
    pytest.param({"name": "sparse", "rows": 4, "entries": 2}, (1, 2, 3), id="sparse"),
    pytest.param({"name": "projection", "rows": 2}, (5,), id="projection"),
    pytest.param({"name": "projection", "rows": 1}, (3,), id="projection-row"),
    pytest.param({"name": "projection", "rows": 7}, (3,), id="projection-tall"),
    pytest.param({"name": "projection", "rows": 4}, (1, 2, 3), id="projection-image"),
]
every = pytest.mark.parametrize(("spec", "shape"), CASES)


def test_every_operator_is_tested():
    assert {case.values[0]["name"] for case in CASES} == set(OPERATORS.names)


@every
def test_adjoint(spec, shape):
    operator = simulate(spec, shape, 6)
    x = torch.randn(6, *shape, dtype=torch.float64)
    y = torch.randn(6, *operator.observation_shape, dtype=torch.float64)

    ax, aty = operator.forward(x), operator.adjoint(y)

    assert ax.shape == y.shape
    assert aty.shape == x.shape
    left, right = ((a * b).flatten(1).sum(dim=1) for a, b in ((ax, y), (x, aty)))
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_the_bicubic_reduction_is_keys_cubic():
    # Keys' cubic at distances of 1/4, 3/4, 5/4 and 7/4 is 111, 29, -9 and -3 of 128.
    operator = simulate({"name": "downsample", "factor": 2, "filter": "bicubic"}, (1, 4, 16), 16)
    columns = torch.eye(16, dtype=torch.float64)[:, None, None].expand(16, 1, 4, 16)

    weights = 256 * operator.forward(columns)[:, 0, 0]  # (16 columns, 8 reduced)

    inner = [0, 0, 0, -3, -9, 29, 111, 111, 29, -9, -3, 0, 0, 0, 0, 0]
    mirrored = [111 + 29, 111 - 9, 29 - 3, -9, -3, *[0] * 11]
    for place, expected in ((3, inner), (0, mirrored), (7, mirrored[::-1])):
        torch.testing.assert_close(weights[:, place], torch.tensor(expected).double())


@every
def test_linearity(spec, shape):
    operator = simulate(spec, shape, 6)
    a, b = torch.randn(2, 6, *shape, dtype=torch.float64)

    mixed = operator.forward(2 * a - 3 * b)

    expected = 2 * operator.forward(a) - 3 * operator.forward(b)
    torch.testing.assert_close(mixed, expected)
    assert (operator.forward(torch.zeros_like(a)) == 0).all()


@every
def test_preconditioners_are_symmetric_and_positive(spec, shape):
    operator = simulate(spec, shape, 6)
    a, b = torch.randn(2, 6, *operator.observation_shape, dtype=torch.float64)
    scale, var_y = torch.tensor(0.3, dtype=torch.float64), 0.1 + torch.rand_like(a[0])

    left, right = (operator.precondition(v, scale, var_y) for v in (a, b))

    inner = [(v * w).flatten(1).sum(dim=1) for v, w in ((left, b), (a, right), (left, a))]
    torch.testing.assert_close(inner[0], inner[1], rtol=1e-9, atol=1e-9)
    assert (inner[2] > 0).all()


@pytest.mark.parametrize(
    ("spec", "shape"), [case for case in CASES if case.id in ("blur", "fourier", "fourier-complex")]
)
def test_preconditioners_of_fourier_operators_are_exact(spec, shape):
    operator = simulate(spec, shape, 6)
    b = torch.randn(6, *operator.observation_shape, dtype=torch.float64)
    scale, var_y = torch.tensor(0.3, dtype=torch.float64), torch.tensor([0.1], dtype=b.dtype)

    system = scale * operator.forward(operator.adjoint(b)) + var_y * b

    torch.testing.assert_close(operator.precondition(system, scale, var_y), b)


@every
def test_dense_agrees_with_forward_and_with_the_definition(spec, shape):
    operator = simulate(spec, shape, 6, torch.float32)
    x = torch.randn(6, *shape)

    matrix = operator.dense()

    assert matrix.shape == (6, math.prod(operator.observation_shape), math.prod(shape))
    product = torch.einsum("bij,bj->bi", matrix, x.flatten(1))
    torch.testing.assert_close(product, operator.forward(x).flatten(1))
    torch.testing.assert_close(matrix.double(), matrices(operator), rtol=0, atol=1e-6)


@every
def test_every_observation_has_its_own_operator(spec, shape):
    operator = simulate(spec, shape, 6)
    x = torch.randn(6, *shape, dtype=torch.float64)
    rows = torch.tensor([4, 0, 4])

    for some in (slice(2, 5), rows):
        part = operator[some]
        assert isinstance(part, OPERATORS.find(spec["name"]))
        assert len(part) == 3
        torch.testing.assert_close(part.forward(x[some]), operator.forward(x)[some])
    if spec["name"] != "downsample":  # of which nothing is random
        assert not torch.equal(matrices(operator[:1]), matrices(operator[1:2]))


@every
def test_moving_keeps_the_operator(spec, shape):
    operator = simulate(spec, shape, 3, torch.float32)

    moved = operator.to("cpu")

    assert len(moved) == 3
    assert moved.device == torch.device("cpu")
    assert torch.equal(moved.dense(), operator.dense())


@every
def test_parameters_have_the_smallest_type(spec, shape):
    operator = operators.simulate(spec, shape, 3, np.random.default_rng(0))

    expected = {
        "mask": torch.bool,
        "matrix": torch.float32,
        "kernel": torch.float32,
        "factor": torch.float32,
        "bicubic": torch.bool,
        "reflect": torch.bool,
        "data": torch.float32,
        "indices": torch.int64,
        "indptr": torch.int64,
        "columns": torch.bool,
        "maps": torch.float32,
    }
    assert {k: v.dtype for k, v in operator.parameters.items()} == {
        field: expected[field] for field in operator.parameters
    }
    assert set(operator.fields) <= set(operator.parameters)


@every
def test_simulation_depends_on_the_stream_alone(spec, shape):
    one, same, other = (simulate(spec, shape, 4, seed=seed) for seed in (0, 0, 1))

    assert torch.equal(matrices(one), matrices(same))
    if spec["name"] != "downsample":
        assert not torch.equal(matrices(one), matrices(other))


@every
def test_observed_marks_the_rows_that_are_not_zero(spec, shape):
    operator = simulate(spec, shape, 5)

    observed = operator.observed()

    assert observed.dtype == torch.bool
    assert observed.shape == (5, *operator.observation_shape)
    informed = (matrices(operator).abs() > 1e-12).any(dim=-1)
    if spec["name"] == "fourier":
        # The imaginary part of a real image's lowest frequency is measured, and is nothing.
        assert not (informed & ~observed.flatten(1)).any()
    else:
        assert torch.equal(observed.flatten(1), informed)


@pytest.mark.parametrize("missing", [0.05, 0.25, 0.5, 0.75, 0.95])
def test_masks_miss_at_their_rate(missing):
    mask = simulate({"name": "mask", "missing": missing}, (3, 8, 8), 1000).parameters["mask"]

    assert mask.shape == (1000, 1, 8, 8)  # all channels of a pixel go together
    rate = 1 - mask.double()
    # Five standard errors of a binomial, over all pixels and at each of the places.
    error = math.sqrt(missing * (1 - missing))
    assert abs(rate.mean() - missing) <= 5 * error / math.sqrt(mask.numel())
    assert (rate.mean(dim=0) - missing).abs().max() <= 5 * error / math.sqrt(1000)
    # Neighbours are independent: their covariance has a standard error of error^2 / sqrt(N).
    centred = rate - missing
    covariance = (centred[..., 1:] * centred[..., :-1]).mean()
    assert abs(covariance) <= 5 * error**2 / math.sqrt(1000 * 8 * 7)


def test_values_of_a_vector_miss_one_by_one():
    mask = simulate({"name": "mask", "missing": 0.5}, (6,), 1000).parameters["mask"]

    assert mask.shape == (1000, 6)
    kept = mask.double()
    assert abs(kept.mean() - 0.5) < 5 * 0.5 / math.sqrt(6000)
    # An observation of six keeps three, give or take: not none or all.
    assert kept.sum(dim=1).var() == pytest.approx(6 / 4, rel=0.3)


def test_a_mask_is_a_projector_and_keeps_what_it_keeps():
    operator = simulate({"name": "mask", "missing": 0.5}, (3, 4, 4), 5)
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64)

    y = operator.forward(x)

    assert torch.equal(operator.forward(y), y)
    assert torch.equal(operator.adjoint(y), y)
    kept = operator.observed()
    assert torch.equal(y[kept], x[kept])
    assert (y[~kept] == 0).all()


@pytest.mark.parametrize("place", ["random", "centre"])
def test_boxes_are_square_holes(place):
    spec = {"name": "mask", "box": 3, "place": place}
    missing = ~simulate(spec, (3, 8, 9), 2000).parameters["mask"][:, 0]

    assert (missing.flatten(1).sum(dim=1) == 9).all()
    rows, columns = missing.any(dim=2), missing.any(dim=1)
    assert (rows.sum(dim=1) == 3).all()
    assert (columns.sum(dim=1) == 3).all()
    corners = torch.stack((rows.int().argmax(dim=1), columns.int().argmax(dim=1)), dim=1)
    if place == "centre":
        assert (corners == torch.tensor([2, 3])).all()
    else:
        # Uniform over the 6 x 7 places: 5 standard errors of a binomial.
        counts = torch.bincount(corners[:, 0] * 7 + corners[:, 1], minlength=42) / 2000
        assert (counts - 1 / 42).abs().max() <= 5 * math.sqrt(1 / 42 / 2000)


def test_boxes_keep_their_margin():
    missing = ~simulate({"name": "mask", "box": 3, "margin": 2}, (1, 8, 9), 500).parameters["mask"]

    rows, columns = missing.any(dim=3)[:, 0], missing.any(dim=2)[:, 0]
    for seen, last in ((rows, 3), (columns, 4)):
        corners = seen.int().argmax(dim=1)
        assert set(corners.tolist()) == set(range(2, last + 1))
        assert (seen.sum(dim=1) == 3).all()


def test_a_reflected_boundary_does_not_darken_an_edge():
    spec = {"name": "blur", "size": 5, "intensity": 0.5}
    x = torch.linspace(0, 1, 8, dtype=torch.float64).expand(3, 1, 8, 8)

    edges = [
        simulate({**spec, **mode}, (1, 8, 8), 3).forward(x)[..., -1].mean()
        for mode in ({}, {"boundary": "reflect"})
    ]

    # Periodically, the bright side sees the dark one.
    assert edges[0] < 0.75 < edges[1]


@pytest.mark.parametrize("intensity", [0.0, 0.5, 2.0])
def test_motion_kernels_are_weights_of_a_centred_path(intensity):
    spec = {"name": "blur", "size": 15, "intensity": intensity}
    kernel = simulate(spec, (3, 32, 32), 200).parameters["kernel"]

    assert (kernel >= 0).all()
    torch.testing.assert_close(kernel.sum(dim=(1, 2)), torch.ones(200, dtype=torch.float64))
    # The path's bounding box is centred, and as long as the kernel where the path is straight.
    grid = torch.arange(15) - 7
    for axis in (1, 2):
        seen = (kernel.sum(dim=axis) > 1e-6) * (grid + 8)
        low = torch.where(seen > 0, seen, 99).amin(dim=1)
        assert (low + seen.amax(dim=1) - 16).abs().max() <= 1
    spread = (kernel.sum(dim=1) * grid**2 + kernel.sum(dim=2) * grid**2).sum(dim=1)
    straight = torch.full((200,), 14**2 / 12, dtype=torch.float64)
    if intensity == 0:
        assert (spread / straight - 1).abs().max() < 0.1
    else:
        assert spread.mean() < 0.95 * straight[0]


def test_motion_has_no_preferred_direction():
    spec = {"name": "blur", "size": 9, "intensity": 0.0}
    kernel = simulate(spec, (1, 16, 16), 2000).parameters["kernel"]

    place = torch.arange(9, dtype=torch.float64) - 4
    down, across = (torch.einsum(f"nij,{i}->n", kernel, place**2) for i in "ij")
    both = torch.einsum("nij,i,j->n", kernel, place, place)
    # Cosine and sine of twice the angle: of uniform angles, means have errors of 1 / sqrt(2 N).
    for value in ((down - across) / (down + across), 2 * both / (down + across)):
        assert value.mean().abs() <= 5 / math.sqrt(2 * 2000)


def test_blurring_keeps_the_mean_and_a_centred_point():
    operator = simulate({"name": "blur", "size": 5, "intensity": 0.5}, (1, 8, 8), 3)
    point = torch.zeros(3, 1, 8, 8, dtype=torch.float64)
    point[..., 4, 4] = 1

    blurred = operator.forward(point)

    torch.testing.assert_close(blurred[:, 0, 2:7, 2:7], operator.parameters["kernel"])
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(operator.forward(x).mean(dim=(2, 3)), x.mean(dim=(2, 3)))


def test_downsampling_averages_and_its_transpose_spreads():
    operator = simulate({"name": "downsample", "factor": 4}, (3, 8, 16), 2)
    x = torch.randn(2, 3, 8, 16, dtype=torch.float64)

    y = operator.forward(x)

    assert y.shape == (2, 3, 2, 4)
    torch.testing.assert_close(y[0, 1, 1, 2], x[0, 1, 4:8, 8:12].mean())
    torch.testing.assert_close(operator.forward(operator.adjoint(y)), y / 16)


@pytest.mark.parametrize("acceleration", [4, 6, 8])
def test_undersampling_is_the_papers(acceleration):
    spec = {"name": "fourier", "acceleration": acceleration}
    columns = simulate(spec, (1, 4, 320), 2000).parameters["columns"]

    half = math.ceil(60 / acceleration)
    centre = slice(160 - half, 160 + half)
    assert columns[:, centre].all()
    outside = torch.cat((columns[:, : centre.start], columns[:, centre.stop :]), dim=1).double()
    rate = 200 / (320 * acceleration - 120)
    assert abs(outside.mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / outside.numel())


def test_the_full_transform_is_orthonormal():
    operator = simulate({"name": "fourier", "acceleration": 1, "coils": 4}, (2, 6, 8), 3)
    x = torch.randn(3, 2, 6, 8, dtype=torch.float64)

    y = operator.forward(x)

    # The coils' root sum of squares is 1, to the precision of their maps.
    torch.testing.assert_close(operator.adjoint(y), x, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(y.square().sum(), x.square().sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ({"name": "fourier", "acceleration": 0.5}, (1, 8, 8), "operator.acceleration"),
        ({"name": "fourier", "acceleration": 2}, (3, 8, 8), "one channel"),
        ({"name": "fourier", "acceleration": 2}, (8,), "one channel"),
        ({"name": "mask", "box": 8}, (3, 8, 8), "operator.box"),
        ({"name": "mask", "box": 2}, (8,), "operator.box"),
        ({"name": "mask", "box": 5, "margin": 2}, (3, 8, 8), "operator.box: .*2 pixels around it"),
        ({"name": "blur", "size": 9, "intensity": 0.5}, (3, 8, 8), "operator.size"),
        ({"name": "blur", "size": 4, "intensity": 0.5}, (3, 8, 8), "operator.size"),
        ({"name": "blur", "size": 3, "intensity": 0.5}, (8,), "operator.size"),
        ({"name": "downsample", "factor": 3}, (3, 8, 8), r"operator\.factor is 3"),
        ({"name": "downsample", "factor": 2}, (8,), r"operator\.factor is 2"),
    ],
)
def test_simulate_refuses_what_does_not_fit_the_data(spec, shape, message):
    with pytest.raises(DiemError, match=message) as error:
        operators.simulate(spec, shape, 2, np.random.default_rng(0))
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("shape", [(3,), (5,), (1, 4, 4)])
def test_projections_have_uniform_unit_rows(shape):
    size = math.prod(shape)
    matrix = simulate({"name": "projection", "rows": 2}, shape, 5000).parameters["matrix"]

    norm = torch.linalg.norm(matrix, dim=-1)
    torch.testing.assert_close(norm, torch.ones_like(norm), rtol=1e-6, atol=0)
    # Uniform on the sphere: mean 0 and E[a a'] = I / d. Var[a_i a_j] <= 3 / d^2 bounds the error.
    rows = matrix.flatten(0, 1)
    assert rows.mean(dim=0).abs().max() <= 5 / math.sqrt(size * len(rows))
    second = rows.T @ rows / len(rows) - torch.eye(size) / size
    assert second.abs().max() <= 5 * math.sqrt(3 / len(rows)) / size


BAD = [
    ("mask", (1, 4, 4), {}, "operator/mask is missing"),
    ("mask", (1, 4, 4), {"matrix": np.ones((2, 1, 4, 4), bool)}, "operator/mask is missing"),
    ("mask", (1, 4, 4), {"mask": np.ones((2, 1, 4, 5), bool)}, "operator/mask has shape"),
    ("mask", (3, 4, 4), {"mask": np.ones((2, 2, 4, 4), bool)}, "operator/mask has shape"),
    ("mask", (1, 4, 4), {"mask": np.ones(2, bool)}, "operator/mask has shape"),
    ("mask", (1, 4, 4), {"mask": 2 * np.ones((2, 1, 4, 4), np.float32)}, "operator/mask holds"),
    ("mask", (1, 4, 4), {"mask": 2 * np.ones((2, 1, 4, 4), np.uint8)}, "operator/mask holds"),
    ("projection", (5,), {}, "operator/matrix is missing"),
    ("projection", (5,), {"matrix": np.ones((2, 2, 4), np.float32)}, "operator/matrix has shape"),
    ("projection", (5,), {"matrix": np.ones((2, 5), np.float32)}, "operator/matrix has shape"),
    ("projection", (5,), {"matrix": np.ones(2, np.float32)}, "operator/matrix has shape"),
    (
        "projection",
        (1, 2, 2),
        {"matrix": np.ones((2, 1, 2, 2), np.float32)},
        "operator/matrix has shape",
    ),
    (
        "projection",
        (5,),
        {"matrix": np.full((2, 1, 5), np.nan, np.float32)},
        "operator/matrix holds non-finite",
    ),
    (
        "projection",
        (5,),
        {"matrix": np.full((2, 1, 5), np.inf, np.float32)},
        "operator/matrix holds non-finite",
    ),
    ("blur", (3, 8, 8), {"kernel": np.ones((2, 3, 5), np.float32)}, "operator/kernel has shape"),
    ("blur", (3, 8, 8), {"kernel": np.ones((2, 4, 4), np.float32)}, "operator/kernel has shape"),
    ("blur", (3, 8, 8), {"kernel": np.ones((2, 9, 9), np.float32)}, "operator/kernel has shape"),
    ("blur", (8,), {"kernel": np.ones((2, 3, 3), np.float32)}, "operator/kernel has shape"),
    ("downsample", (3, 8, 8), {"factor": np.array([2, 4])}, "operator/factor must hold one"),
    (
        *("downsample", (3, 8, 8)),
        {"factor": np.array([2, 2]), "bicubic": np.array([True, False])},
        "operator/bicubic must hold one",
    ),
    (
        *("blur", (3, 8, 8)),
        {"kernel": np.ones((2, 3, 3), np.float32), "reflect": np.array([True, False])},
        "operator/reflect must hold one",
    ),
    ("downsample", (3, 8, 8), {"factor": np.array([1.5, 1.5])}, "operator/factor is 1.5"),
    ("downsample", (3, 8, 8), {"factor": np.array([0, 0])}, "operator/factor is 0"),
    ("maks", (1, 4, 4), {}, "did you mean 'mask'"),
]


@pytest.mark.parametrize(("name", "shape", "parameters", "message"), BAD)
def test_bad_parameters_are_refused(name, shape, parameters, message):
    with pytest.raises(DiemError, match=message) as error:
        operators.build(name, shape, parameters)

    assert str(error.value).endswith(".")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64])
def test_matrices_of_another_type_are_converted_or_refused(dtype):
    # A file that somebody else wrote: double precision is the default of NumPy and HDF5.
    matrix = np.ones((2, 1, 3), dtype)

    try:
        operator = operators.build("projection", (3,), {"matrix": matrix})
    except DiemError as error:
        assert "operator/matrix" in str(error)
    else:
        y = operator.forward(torch.ones(2, 3))
        torch.testing.assert_close(y, torch.full((2, 1), 3.0))
        assert operator.adjoint(y).dtype == torch.float32
        assert operator.dense().dtype == torch.float32


def test_simulate_refuses_an_unknown_name():
    with pytest.raises(DiemError, match="did you mean 'projection'"):
        operators.simulate({"name": "projections"}, (3,), 2, np.random.default_rng(0))


def test_fields_are_all_the_parameters():
    extra = {"mask": torch.ones(1, 1, 2, 2, dtype=torch.bool), "other": torch.ones(1)}

    assert set(Mask((1, 2, 2), extra).parameters) == {"mask"}
    assert Projection.fields == ("matrix",)


class Half(Operator):
    """An operator without parameters, all of whose values carry data."""

    @property
    def observation_shape(self):
        return self.event_shape

    def forward(self, x):
        return x / 2

    def adjoint(self, y):
        return y / 2


def test_what_is_observed_lies_on_the_operators_device():
    operator = Half((2, 3), {}).to("meta")
    for some in (operator, operator[:1]):
        assert some.device == some.observed().device == torch.device("meta")
    assert Half((2, 3), {}).observed().device == torch.device("cpu")


class Weighted(Half):
    """An operator of parameters, without a word of how they are drawn."""

    fields = ("gain",)


def test_parameters_that_cannot_be_drawn_must_come_from_a_file():
    rng = np.random.default_rng(0)

    assert Half.simulate((2, 3), 4, rng) == {}
    with pytest.raises(DiemError, match=r"Weighted has no .*'simulate'.*\(gain\) must come from"):
        Weighted.simulate((2, 3), 4, rng)


class InPlace(Mask):
    """A mask that saves memory in the wrong place."""

    def forward(self, x):
        return x.mul_(self.parameters["mask"])


class Forgetful(Mask):
    """A mask that hides ever more."""

    def adjoint(self, y):
        self.parameters["mask"] = torch.zeros_like(self.parameters["mask"])
        return 0 * y


class Doubled(Mask):
    """A mask that does not show the values of x, and says so."""

    elementwise = True

    def forward(self, x):
        return 2 * super().forward(x)

    adjoint = forward


class Particular(Mask):
    """A mask that takes large values for an error of its user."""

    def forward(self, x):
        raise DiemError("scan.h5: its values are no pixels.")


def test_the_sentence_of_an_operator_is_kept():
    with pytest.raises(DiemError, match=r"^scan\.h5: its values are no pixels\.$"):
        verify_operator(Particular((1, 4, 4), {"mask": torch.ones(3, 1, 4, 4).bool()}), "mine")


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        (InPlace, "forward writes into its argument"),
        (Forgetful, "adjoint changes the operator's parameters"),
        (Doubled, "the class says elementwise = True, and forward gives other values"),
    ],
)
def test_operators_with_side_effects_are_refused(operator, words):
    known = simulate({"name": "mask", "missing": 0.5}, (1, 4, 4), 3, torch.float32)

    with pytest.raises(DiemError, match=f"operator 'mine': {words}"):
        verify_operator(operator((1, 4, 4), known.parameters), "mine")
    verify_operator(known, "mask")
