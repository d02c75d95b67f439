"""What a user gives for an operator: names, mappings, objects and functions."""

import threading

import numpy as np
import pytest
import torch
from helpers import random_gaussian

from diem.diffusion.prior import Prior
from diem.errors import DiemError
from diem.inference.prior_denoiser import PriorDenoiser
from diem.operators import OPERATORS, Operator, Partial, build
from diem.operators.given import given, importable, linear, where_shown
from diem.operators.verify import verify_operator

MATRIX = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 5))).float()


def by_matrix(x):
    return x @ MATRIX.T


def test_an_adjoint_of_automatic_differentiation_is_the_adjoint():
    images = linear(lambda x: torch.nn.functional.avg_pool2d(x, 2), (2, 4, 6))
    vectors = linear(by_matrix, (5,))

    verify_operator(images, "images")
    verify_operator(vectors, "vectors")
    assert images.observation_shape == (2, 2, 3)
    y = torch.randn(7, 3)
    torch.testing.assert_close(vectors.adjoint(y), y @ MATRIX)
    assert not vectors.adjoint(y).requires_grad
    with torch.no_grad():
        torch.testing.assert_close(vectors.adjoint(y), y @ MATRIX)


def test_a_module_is_a_function_whose_weights_are_no_matter():
    module, back = torch.nn.Linear(5, 3, bias=False), torch.nn.Linear(3, 5, bias=False)
    back.weight = torch.nn.Parameter(module.weight.detach().T)
    prior = PriorDenoiser(Prior(random_gaussian((5,), rank=2, dtype=torch.float32), None, {}))

    for operator in (linear(module, (5,)), linear(module, (5,), adjoint=back)):
        verify_operator(operator, "module")
        y = operator.forward(torch.randn(20, 5))
        assert not y.requires_grad
        assert not operator.adjoint(y).requires_grad
        assert operator.forward(torch.randn(2, 5, requires_grad=True)).requires_grad
    assert not prior.posterior(y, module, 0.1, 2).requires_grad


class Scaled(Operator):
    """Has a gain of each observation, and weights of a module."""

    fields = ("gain",)
    module = torch.nn.Linear(3, 3, bias=False)

    @property
    def observation_shape(self):
        return self.event_shape

    def forward(self, x):
        return self.parameters["gain"] * self.module(x)

    def adjoint(self, y):
        return (self.parameters["gain"] * y) @ self.module.weight


def test_a_class_whose_weights_require_gradients_is_told_what_to_do():
    operator = Scaled((3,), {"gain": torch.ones(4, 1)})

    with pytest.raises(DiemError, match=r"forward requires gradients.* requires_grad_\(False\)"):
        verify_operator(operator, "Scaled")
    Scaled.module.requires_grad_(False)
    verify_operator(operator, "Scaled")


def test_an_object_takes_arrays_and_tells_what_is_missing():
    gain = np.ones((4, 1))

    (taken,) = Scaled((3,), {"gain": gain}).to("cpu").parameters.values()
    assert taken.dtype == torch.float32
    assert torch.equal(taken, torch.ones(4, 1))
    (taken,) = Scaled((3,), {"gain": torch.nn.Parameter(torch.ones(4, 1))}).parameters.values()
    assert not taken.requires_grad
    with pytest.raises(DiemError, match="operator/gain is missing, which the operator 'Scaled'"):
        Scaled((3,), {"gains": gain})


def test_an_adjoint_of_ones_own_takes_its_place():
    operator = linear(by_matrix, (5,), adjoint=lambda y: 2 * y @ MATRIX)

    with pytest.raises(DiemError, match="adjoint is not the adjoint of forward"):
        verify_operator(operator, "mine")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: by_matrix(x) + 1, "forward is not linear"),
        (lambda x: by_matrix(x).abs(), "forward is not linear"),
        (lambda x: by_matrix(x - x.mean(dim=0)), "mixes the observations"),
        (lambda x: torch.from_numpy(x.detach().numpy() @ MATRIX.numpy().T), "give its adjoint"),
        (lambda x: by_matrix(x).double(), "float64"),
    ],
    ids=["affine", "absolute", "mixing", "numpy", "double"],
)
def test_a_function_that_is_no_operator_is_refused(function, words):
    operator = given(function, torch.zeros(4, 3), (5,))

    with pytest.raises(DiemError, match=words):
        verify_operator(operator, "mine")


def test_a_function_tells_its_shape_by_its_adjoint_or_by_keeping_it():
    y = torch.zeros(4, 3)

    assert given(by_matrix, y, adjoint=lambda y: y @ MATRIX).event_shape == (5,)
    assert given(lambda x: x.cumsum(dim=1), y).event_shape == (3,)
    with pytest.raises(DiemError, match="event_shape is missing"):
        given(by_matrix, y)


@pytest.mark.parametrize(
    ("operator", "rest", "words"),
    [
        (3, {}, ["operator is 3", "linear function"]),
        (Partial, {}, ["an object, not its class"]),
        ("msk", {}, ["operator is 'msk'", "did you mean 'mask'"]),
        ("projection", {}, ["event_shape is missing", "'projection'"]),
        ({"matrix": MATRIX}, {}, ["operator lacks the key 'name'"]),
        ({"name": "projection", "rows": 3}, {"event_shape": (5,)}, ["at random", "matrix"]),
        ({"name": "mask", "missing": 0.5}, {}, ["at random", "(mask)"]),
        ({"name": "mask", "mising": 0.5}, {}, ["operator.mising", "'missing'"]),
        ({"name": "mask", "missing": 2.0}, {}, ["operator.missing", "less than 1"]),
        (
            {"name": "projection", "matrix": MATRIX.expand(3, 3, 5)},
            {"event_shape": (5,)},
            ["operator.matrix has 3 rows", "4 observations"],
        ),
        ({"name": "mask", "mask": ["a"]}, {}, ["operator.mask is no array"]),
        ({"name": "mask", "mask": [[True], [True, False]]}, {}, ["operator.mask is no array"]),
        (
            {"name": "projection", "matrix": np.eye(3)[None] + 1j},
            {"event_shape": (3,)},
            ["operator.matrix is complex"],
        ),
        (
            {"name": "projection", "matrix": torch.eye(3)[None] + 1j},
            {"event_shape": (3,)},
            ["operator.matrix is complex"],
        ),
        ("mask", {"event_shape": (0,)}, ["event_shape is (0,)", "positive integers"]),
        ("mask", {"event_shape": (3.5,)}, ["event_shape is (3.5,)", "positive integers"]),
        ("mask", {"event_shape": 5}, ["event_shape is 5", "positive integers"]),
        ("mask", {"adjoint": by_matrix}, ["adjoint belongs to a function"]),
        (linear(by_matrix, (5,)), {"event_shape": (4,)}, ["event_shape is (4,)", "shape (5,)"]),
        (lambda x: x.nothing, {"event_shape": (5,)}, ["operator: the function fails", "nothing"]),
        (lambda x: x.sum(), {"event_shape": (5,)}, ["operator: of shape (2, 5)", "many rows"]),
    ],
)
def test_what_is_no_operator_is_told_in_a_sentence(operator, rest, words):
    with pytest.raises(DiemError) as told:
        given(operator, torch.zeros(4, 3), **rest)

    assert all(word in str(told.value) for word in words), told.value


def test_names_and_mappings():
    y = torch.tensor([[1.0, torch.nan], [torch.nan, 2.0], [3.0, 4.0]])

    assert torch.equal(given("mask", y).parameters["mask"], ~y.isnan())
    matrix = MATRIX[None].double().numpy()
    projection = given({"name": "projection", "matrix": matrix}, torch.zeros(4, 3), (5,))
    torch.testing.assert_close(projection.dense(), MATRIX[None])
    small = given({"name": "downsample", "factor": 2}, torch.zeros(4, 1, 2, 3), (1, 4, 6))
    assert len(small) == 1
    assert small.observation_shape == (1, 2, 3)


def test_parameters_may_have_any_byte_order_and_strides():
    matrix = MATRIX[None].numpy()
    for same in (
        matrix.astype(">f4"),
        matrix.astype(">f8"),
        matrix.astype(np.longdouble),
        np.ascontiguousarray(matrix[:, ::-1])[:, ::-1],
    ):
        found = given({"name": "projection", "matrix": same}, torch.zeros(4, 3), (5,))
        assert torch.equal(found.parameters["matrix"], MATRIX[None])
    factor = np.array([2], ">i8")
    assert build("downsample", (1, 4, 6), {"factor": factor}).observation_shape == (1, 2, 3)


@pytest.mark.filterwarnings("error")
def test_parameters_that_cannot_be_written_to_give_no_warning():
    mask = np.broadcast_to(np.array([True, False, True]), (4, 3))

    operator = given({"name": "mask", "mask": mask}, torch.zeros(4, 3))

    np.testing.assert_array_equal(operator.parameters["mask"], mask)


def test_what_is_not_shown_is_not_observed():
    shown = torch.rand(6, 3) < 0.5
    mask = build("mask", (3,), {"mask": torch.tensor([[True, True, False]])})

    for operator in (linear(by_matrix, (5,)), linear(lambda x: x, (3,)), mask):
        part = where_shown(operator, shown)
        verify_operator(part, "part")
        expected = Partial(operator, shown)
        assert torch.equal(part.observed(), expected.observed())
        x = torch.randn(6, *operator.event_shape)
        torch.testing.assert_close(part.forward(x), expected.forward(x))
        assert torch.equal(where_shown(expected, shown).observed(), expected.observed())
    assert type(where_shown(mask, shown)) is type(mask)
    assert where_shown(mask, torch.tensor([[True, True, False]])) is mask


class Twice(Operator):
    fields = ()

    @property
    def observation_shape(self):
        return self.event_shape

    def forward(self, x):
        return 2 * x

    adjoint = forward


def test_a_class_that_no_module_holds_is_importable_for_a_while():
    class Mask(Twice):
        """Has the name of another, which the module of these names holds."""

    with importable(Mask) as name, importable(type(linear(by_matrix, (5,)))) as other:
        assert OPERATORS.find(name) is Mask
        assert issubclass(OPERATORS.find(other), Operator)
        found = []
        thread = threading.Thread(target=lambda: found.append(_found(name)))
        thread.start()
        thread.join()
        assert found == [None]  # another thread's names are its own
    assert _found(name) is _found(other) is None
    with importable(Twice) as name:
        assert name == f"{__name__}:Twice"
        assert OPERATORS.find(name) is Twice
    with importable(OPERATORS.find("mask")) as name:
        assert name == "mask"


def _found(name):
    try:
        return OPERATORS.find(name)
    except DiemError:
        return None


def test_a_loaded_prior_takes_them_too():
    prior = PriorDenoiser(Prior(random_gaussian((5,), 2, torch.float32), None, {}))
    y = torch.randn(4, 3)
    projection = build("projection", (5,), {"matrix": MATRIX[None]})

    expected = prior.posterior(y, projection, 0.1, 3)

    torch.testing.assert_close(prior.posterior(y, by_matrix, 0.1, 3), expected)
    named = {"name": "projection", "matrix": MATRIX[None]}
    assert torch.equal(prior.posterior(y, named, 0.1, 3), expected)
    holes = torch.where(torch.rand(4, 5) < 0.5, torch.nan, torch.randn(4, 5))
    masked = build("mask", (5,), {"mask": ~holes.isnan()})
    assert torch.equal(
        prior.posterior(holes, "mask", 0.1, 3), prior.posterior(holes, masked, 0.1, 3)
    )
    with pytest.raises(DiemError, match="not linear"):
        prior.posterior(y, lambda x: by_matrix(x) + 1, 0.1)
