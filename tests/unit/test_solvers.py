"""Conjugate gradients and generalized minimal residuals against dense solves."""

import pytest
import torch

from diem.diffusion.solvers import column, conjugate_gradient, dot, gmres, whitened_posterior


def systems(batch=6, size=8, dtype=torch.float64, condition=100.0):
    """Returns symmetric positive definite matrices and right-hand sides."""
    q, _ = torch.linalg.qr(torch.randn(batch, size, size, dtype=dtype))
    values = torch.logspace(0, torch.log10(torch.tensor(condition)).item(), size, dtype=dtype)
    return q @ torch.diag(values) @ q.mT, torch.randn(batch, size, dtype=dtype)


class Product:
    """Multiplies by matrices, with a by-product, and counts."""

    def __init__(self, s, c=None):
        self.s, self.c, self.calls = s, s if c is None else c, 0

    def __call__(self, p):
        self.calls += 1
        sp = (self.s @ p.flatten(1)[..., None])[..., 0]
        return sp.view_as(p), (self.c @ p.flatten(1)[..., None])[..., 0]


@pytest.mark.parametrize("shape", [(8,), (2, 4), (1, 2, 2, 2)])
def test_exact_after_as_many_iterations_as_unknowns(shape):
    s, b = systems()

    v, _ = conjugate_gradient(Product(s), b.reshape(-1, *shape), iterations=8)

    # The condition number 100 costs two of sixteen digits in a stable solve; conjugate gradients
    # loses some more to the loss of orthogonality.
    torch.testing.assert_close(v.flatten(1), torch.linalg.solve(s, b), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_minimises_the_energy_over_the_krylov_space(iterations):
    # The definition of the n-th iterate: v minimises v'Sv/2 - b'v over span(b, ..., S^(n-1) b).
    s, b = systems(condition=10.0)

    v, _ = conjugate_gradient(Product(s), b, iterations)

    powers = [b]
    for _ in range(iterations - 1):
        powers.append((s @ powers[-1][..., None])[..., 0])
    krylov = torch.linalg.qr(torch.stack(powers, dim=-1))[0]
    inner = torch.linalg.solve(krylov.mT @ s @ krylov, krylov.mT @ b[..., None])
    torch.testing.assert_close(v, (krylov @ inner)[..., 0], rtol=1e-9, atol=1e-9)


def test_as_few_iterations_as_distinct_eigenvalues():
    q, _ = torch.linalg.qr(torch.randn(3, 8, 8, dtype=torch.float64))
    values = torch.tensor([1.0, 1, 1, 5, 5, 20, 20, 20], dtype=torch.float64)
    s, b = q @ torch.diag(values) @ q.mT, torch.randn(3, 8, dtype=torch.float64)

    v, _ = conjugate_gradient(Product(s), b, iterations=3)

    torch.testing.assert_close(v, torch.linalg.solve(s, b), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("iterations", [1, 3, 8])
@pytest.mark.parametrize("tolerance", [0.0, 1e-2])
def test_the_by_product_is_that_of_the_solution(iterations, tolerance):
    s, b = systems()
    c = torch.randn(6, 5, 8, dtype=torch.float64)

    v, extra = conjugate_gradient(Product(s, c), b, iterations, tolerance)

    torch.testing.assert_close(extra, (c @ v[..., None])[..., 0])


@pytest.mark.parametrize("iterations", [1, 2, 7, 20])
def test_as_many_products_as_iterations(iterations):
    s, b = systems()
    product = Product(s)

    conjugate_gradient(product, b, iterations)
    assert product.calls == iterations
    # So many were counted before: without a tolerance even those of a solved system are made.
    conjugate_gradient(product, torch.zeros_like(b), iterations)
    assert product.calls == 2 * iterations


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
def test_the_tolerance_bounds_the_residual_and_ends_the_loop(tolerance):
    s, b = systems()
    product = Product(s)

    v, _ = conjugate_gradient(product, b, 1000, tolerance)

    residual = torch.linalg.norm(b - (s @ v[..., None])[..., 0], dim=1)
    assert (residual <= 1.001 * tolerance * torch.linalg.norm(b, dim=1)).all()
    assert product.calls <= 8 + 2


@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
@pytest.mark.parametrize("iterations", [1, 3, 30])
def test_a_sample_does_not_depend_on_its_neighbours(iterations, tolerance):
    # The neighbours differ by many orders, and so do the iterations that they need.
    s, b = systems()
    scale = torch.logspace(-8, 8, len(b), dtype=torch.float64)
    s, b = s * scale[:, None, None], b * scale.flip(0)[:, None]

    together, extra = conjugate_gradient(Product(s), b, iterations, tolerance)

    for i in range(len(b)):
        rows = slice(i, i + 1)
        alone = conjugate_gradient(Product(s[rows]), b[rows], iterations, tolerance)
        torch.testing.assert_close(together[rows], alone[0], rtol=1e-9, atol=0)
        torch.testing.assert_close(extra[rows], alone[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
def test_a_zero_right_hand_side_gives_zero(dtype, tolerance):
    s, b = systems(dtype=dtype)
    b[::2] = 0

    v, extra = conjugate_gradient(Product(s), b, 20, tolerance)

    assert (v[::2] == 0).all()
    assert (extra[::2] == 0).all()
    assert torch.isfinite(v).all()
    solved = torch.linalg.solve(s, b)[1::2]
    bound = {torch.float32: 1e-3, torch.float64: 1e-9}[dtype] + 2 * tolerance
    assert (v[1::2] - solved).abs().max() <= bound * solved.abs().max()


def test_all_right_hand_sides_zero():
    s, b = systems()

    v, extra = conjugate_gradient(Product(s), torch.zeros_like(b), 5, tolerance=1e-3)

    assert (v == 0).all()
    assert (extra == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_iterations_beyond_convergence_change_nothing(dtype):
    s, b = systems(dtype=dtype)

    v, _ = conjugate_gradient(Product(s), b, 300)

    # The last digits, times the condition number of 100.
    bound = 1000 * torch.finfo(dtype).eps
    torch.testing.assert_close(v, torch.linalg.solve(s, b), rtol=bound, atol=bound)


@pytest.mark.parametrize("iterations", [1, 2, 5, 50])
def test_negative_curvature_stays_finite(iterations):
    # A network's Jacobian may have negative eigenvalues.
    q, _ = torch.linalg.qr(torch.randn(20, 6, 6))
    s = q @ torch.diag(torch.tensor([-1.0, -0.1, 0.01, 0.5, 1.0, 2.0])) @ q.mT

    v, extra = conjugate_gradient(Product(s), torch.randn(20, 6), iterations)

    assert torch.isfinite(v).all()
    assert torch.isfinite(extra).all()


def test_a_step_of_negative_curvature_goes_along_the_residual():
    s = torch.diag(torch.tensor([-2.0, -2.0]))[None]
    b = torch.tensor([[1.0, 3.0]])

    v, _ = conjugate_gradient(Product(s), b, 1)

    torch.testing.assert_close(v, b / 2)


def test_no_curvature_at_all_stays_finite():
    # Equally large eigenvalues of both signs: p'Sp is exactly zero.
    s = torch.diag(torch.tensor([1.0, -1.0]))[None]

    v, extra = conjugate_gradient(Product(s), torch.ones(1, 2), 3)

    assert torch.isfinite(v).all()
    assert torch.isfinite(extra).all()


def test_dot_and_column():
    a, b = torch.randn(2, 4, 2, 3)

    torch.testing.assert_close(dot(a, b), torch.einsum("bij,bij->b", a, b))
    assert column(dot(a, b), a).shape == (4, 1, 1)


# Generalized minimal residuals


def general(batch=6, size=8):
    """Returns matrices that are neither symmetric nor positive, and right-hand sides."""
    s = torch.randn(batch, size, size, dtype=torch.float64)
    return s, torch.randn(batch, size, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(8,), (2, 4), (1, 2, 2, 2)])
def test_gmres_is_exact_after_as_many_iterations_as_unknowns(shape):
    s, b = general()

    v, _ = gmres(Product(s), b.reshape(-1, *shape), iterations=8)

    assert v.shape == (6, *shape)
    torch.testing.assert_close(v.flatten(1), torch.linalg.solve(s, b), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_gmres_minimises_the_residual_over_the_krylov_space(iterations):
    s, b = general()

    v, _ = gmres(Product(s), b, iterations)

    powers = [b]
    for _ in range(iterations - 1):
        powers.append((s @ powers[-1][..., None])[..., 0])
    krylov, _ = torch.linalg.qr(torch.stack(powers, dim=-1))
    y = torch.linalg.lstsq(s @ krylov, b[..., None]).solution
    torch.testing.assert_close(v, (krylov @ y)[..., 0], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("iterations", [1, 3])
def test_gmres_sums_the_by_products_and_multiplies_no_more(iterations):
    s, b = general()
    c = torch.randn(6, 5, 8, dtype=torch.float64)
    product = Product(s, c)

    v, total = gmres(product, b, iterations)

    assert product.calls == iterations
    torch.testing.assert_close(total, (c @ v[..., None])[..., 0])


def test_gmres_stays_at_a_solution_that_it_found():
    # Eigenvectors are solved for in one iteration, zero in none.
    s = torch.diag(torch.tensor([2.0, -3.0, 5.0])).expand(3, 3, 3)
    b = torch.tensor([[1.0, 0.0, 0.0], [0.0, 6.0, 0.0], [0.0, 0.0, 0.0]])

    v, total = gmres(Product(s), b, iterations=3)

    expected = torch.tensor([[0.5, 0.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(v, expected)
    torch.testing.assert_close(total, b)


def test_gmres_passes_on_what_is_not_finite_to_its_own_sample_alone():
    s, b = general(batch=2)
    b[0, 0] = torch.nan

    v, _ = gmres(Product(s), b, iterations=4)

    alone, _ = gmres(Product(s[1:]), b[1:], iterations=4)
    assert not torch.isfinite(v[0]).any()
    torch.testing.assert_close(v[1:], alone)


def test_a_preconditioner_saves_iterations_and_changes_nothing():
    s = torch.diag_embed(torch.logspace(0, 8, 40, dtype=torch.float64)).expand(3, 40, 40)
    b, product = torch.randn(3, 40, dtype=torch.float64), Product(s)

    v, _ = conjugate_gradient(product, b, 2, 1e-12, precondition=lambda r: r / s.diagonal(0, 1, 2))

    torch.testing.assert_close(v, b / s.diagonal(0, 1, 2), rtol=1e-9, atol=0)


def test_a_norm_stops_each_sample():
    s = torch.diag_embed(torch.linspace(1, 1000, 40, dtype=torch.float64)).expand(3, 40, 40)
    b = torch.randn(3, 40, dtype=torch.float64) * torch.tensor([[1e-5], [1.0], [100.0]])

    v, _ = conjugate_gradient(Product(s), b, 100, norm=1e-3)

    residual = (b - (s @ v[..., None])[..., 0]).norm(dim=1)
    assert not v[0].any()  # it was near enough from the start
    assert (residual <= 1e-3).all()
    assert residual[2] > 1e-9  # and it does not go on for ever


@pytest.mark.parametrize("strength", [1, 1e2])
def test_strong_observations_in_single_precision(strength):
    # Half of the rows tell what the other half does.
    stream = torch.Generator().manual_seed(0)
    b = torch.randn(3, 5, 12, generator=stream).repeat(1, 4, 1) * strength
    y = torch.randn(3, 20, 1, generator=stream) + b @ torch.randn(3, 12, 1, generator=stream)

    mean, less = whitened_posterior(b, y)

    exact, exactly = whitened_posterior(b.double(), y.double())
    torch.testing.assert_close(mean.double(), exact, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(less.double(), exactly, rtol=1e-3, atol=1e-3)
