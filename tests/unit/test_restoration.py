"""Posterior samplers on restoration tasks: exactness, wiring against azula, rows, and bad input."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from azula.denoise import KarrasDenoiser
from azula.guidance import DiffPIRDenoiser, DPSSampler, MMPSDenoiser
from azula.linalg.covariance import IsotropicCovariance
from azula.noise import VESchedule, VPSchedule
from azula.sample import DDIMSampler
from helpers import analytic_posterior, matrices, random_gaussian, repeated, simulate
from safetensors.torch import save_file

from diem.diffusion.prior import Prior, build_denoiser
from diem.diffusion.samplers.ddpm import DDPM
from diem.errors import DiemError
from diem.evaluation import lpips as perceptual
from diem.evaluation.metrics.lpips import FILES, LPIPS
from diem.evaluation.metrics.psnr import psnr
from diem.evaluation.metrics.ssim import ssim
from diem.evaluation.rows import provenance, read_rows, write_rows
from diem.files.hdf5 import write_hdf5
from diem.files.tensors import content_digest
from diem.jobs.job import Job
from diem.paper.methods import METHODS, Problem
from diem.paper.methods._azula import NoisyPGDMSampler, ProjectedDenoiser
from diem.paper.restoration import prior as priors
from diem.paper.restoration.figures import restoration_images, restoration_metrics
from diem.paper.restoration.prior import pretrained, trained
from diem.paper.restoration.restore import COLUMNS, compare, restore
from diem.paper.restoration.table import (
    _notes,
    means_over_seeds,
    method_of,
    readable_restoration,
    restoration_table,
)
from diem.report.tables.writing import html, latex, markdown
from diem.seeds import global_stream

SHAPE = (1, 4, 4)
SCHEDULE = {"alpha_min": 0.01, "sigma_min": 0.01}
ENTRIES = {
    "mmps_1": {"name": "mmps", "iterations": 1, "solver": "gmres"},
    "mmps_3": {"name": "mmps", "iterations": 3, "solver": "gmres"},
    "dps": {"name": "dps", "zeta": 0.5},
    "pgdm": {"name": "pgdm"},
    "tmpd": {"name": "tmpd"},
    "diffpir": {"name": "diffpir", "lmbda": 10.0, "iterations": 5},
}
TASKS = {
    "box": {"operator": {"name": "mask", "box": 2}, "sigma_y": 0.5},
    "random": {"operator": {"name": "mask", "missing": 0.6}, "sigma_y": 0.1},
    "blur": {"operator": {"name": "blur", "size": 3, "intensity": 0.5}, "sigma_y": 0.1},
    "small": {"operator": {"factor": 2, "name": "downsample"}, "sigma_y": 0.1},
}
every_method = pytest.mark.parametrize("method", ENTRIES)
every_task = pytest.mark.parametrize("task", TASKS)


def exact(shape=SHAPE, dtype=torch.float64):
    """Returns a Gaussian, and its exact denoiser on a variance-preserving schedule."""
    gaussian = random_gaussian(shape, rank=4, dtype=dtype)
    return gaussian, gaussian.denoiser(VPSchedule(**SCHEDULE))


def problem(task, count=3, dtype=torch.float64, shape=SHAPE):
    gaussian, _ = exact(shape, dtype)
    entry = TASKS[task]
    operator = simulate(entry["operator"], shape, count, dtype)
    x = gaussian.sample(count, torch.Generator().manual_seed(1))
    y = operator.forward(x)
    y = y + entry["sigma_y"] * torch.randn_like(y) * operator.observed()
    return Problem(operator, y, entry["sigma_y"])


# Exactness


@pytest.mark.slow
@every_task
def test_mmps_of_a_gaussian_samples_its_posterior_mean(task):
    gaussian, denoiser = exact()
    one = problem(task, 1)
    count = 512
    many = Problem(
        repeated(one.operator, count), one.y.expand(count, *one.y.shape[1:]), one.sigma_y
    )

    x = restore(METHODS.parse({"name": "mmps", "iterations": 16}), denoiser, many, 64, 0)

    mean, covariance = analytic_posterior(
        gaussian, matrices(one.operator)[0], one.y[0], one.sigma_y
    )
    error = (x.flatten(1).mean(dim=0) - mean).abs()
    # Five standard errors, and a twentieth of a standard deviation for the finite steps.
    bound = (5 / math.sqrt(count) + 0.05) * covariance.diagonal().sqrt()
    assert (error <= bound).all(), (error / covariance.diagonal().sqrt()).max()


@pytest.mark.slow
@every_task
@every_method
def test_every_method_restores_better_than_the_prior_mean(method, task):
    gaussian, denoiser = exact()
    some = problem(task, 64)

    x = restore(METHODS.parse(ENTRIES[method]), denoiser, some, 32, 0)

    assert x.shape == (64, *SHAPE)
    assert torch.isfinite(x).all()
    # What is observed is approached; DPS with few steps the least.
    before = (some.y - some.operator.forward(gaussian.mean.expand_as(x))).square().mean()
    assert (some.y - some.operator.forward(x)).square().mean() < before


@every_method
def test_restoring_is_reproducible_and_leaves_the_random_state(method):
    _, denoiser = exact()
    some = problem("random")
    state = torch.random.get_rng_state()

    one, same, other = (
        restore(METHODS.parse(ENTRIES[method]), denoiser, some, 4, seed) for seed in (0, 0, 1)
    )

    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@every_method
def test_no_image_depends_on_its_neighbours(method, monkeypatch):
    # Without noise, which azula draws for a whole batch.
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    _, denoiser = exact()
    some = problem("random", 4)

    together = restore(METHODS.parse(ENTRIES[method]), denoiser, some, 6, 0)

    alone = [
        restore(
            METHODS.parse(ENTRIES[method]),
            denoiser,
            Problem(some.operator[i : i + 1], y[None], 0.1),
            6,
            0,
        )
        for i, y in enumerate(some.y)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=1e-6)


# A method of the user's own

OWN = """
from azula.sample import DDIMSampler

from diem.components import Positive, option
from diem.paper.methods import Method


class Unguided(Method):
    strength: Positive = option(1.0, "has no effect")

    @property
    def iterations_shown(self):
        return f"{self.strength:g}"

    def sampler(self, denoiser, problem, **grid):
        return DDIMSampler(denoiser, eta=1.0, **grid)
"""


@pytest.fixture
def own_method(tmp_path, monkeypatch):
    """Returns the import path of a method in a module of a user's."""
    monkeypatch.setenv("DIEM_PATH", str(tmp_path))
    (tmp_path / "methods_of_mine.py").write_text(OWN)
    yield "methods_of_mine:Unguided"
    sys.modules.pop("methods_of_mine")


@pytest.mark.slow
def test_a_method_of_ones_own_is_compared_in_rows_table_and_figures(own_method, clean, tmp_path):
    methods = {"mmps_3": ENTRIES["mmps_3"], "mine": {"name": own_method, "strength": 2.0}}
    entry = {**ENTRY, "methods": methods, "metrics": ["psnr"]}

    rows, shown = shown_by_method(clean, tmp_path, entry)

    settings = json.loads(rows[rows["run"] == "mine"].iloc[0]["settings"])
    assert settings["method"] == {"name": own_method, "strength": 2.0}
    table = restoration_table(rows, published_in(tmp_path))
    mine = table[table["run"] == "mine"]
    assert set(mine["method"]) == {"Unguided"}
    assert len(mine) == 2 * 2
    assert list(dict.fromkeys(table["method"])) == ["MMPS", "Unguided", "DPS"]
    cells = {cell for row in readable_restoration(table, rows).body for cell in row}
    assert "Unguided" in cells
    figure = restoration_metrics(rows, "faces")
    assert [line.get_label() for line in figure.axes[0].lines] == ["MMPS (3)", "Unguided (2)"]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 2
    titles = [ax.get_title() for ax in restoration_images(rows, shown, "faces").axes[:4]]
    assert titles == ["observation", "MMPS (3)", "Unguided (2)", "truth"]


def test_entries_of_one_method_share_a_colour(clean, tmp_path):
    methods = {name: ENTRIES[name] for name in ("dps", "mmps_1", "mmps_3")}
    rows, _ = shown_by_method(clean, tmp_path, {**ENTRY, "methods": methods, "metrics": ["psnr"]})

    dps, one, three = restoration_metrics(rows, "faces").axes[0].lines

    assert one.get_color() == three.get_color() != dps.get_color()
    assert one.get_linestyle() != three.get_linestyle() == dps.get_linestyle() == "-"
    assert one.get_zorder() > dps.get_zorder()  # our own


def test_entries_that_are_called_alike_are_told_apart(clean, tmp_path):
    methods = {name: {"name": "dps", "zeta": zeta} for name, zeta in (("a", 0.5), ("b", 1.0))}
    entry = {**ENTRY, "methods": {"mmps_3": ENTRIES["mmps_3"], **methods}, "metrics": ["psnr"]}
    rows, shown = shown_by_method(clean, tmp_path, entry)

    called = ["MMPS (3)", "DPS, a", "DPS, b"]
    figure = restoration_metrics(rows, "faces")
    assert [line.get_label() for line in figure.axes[0].lines] == called
    titles = [ax.get_title() for ax in restoration_images(rows, shown, "faces").axes[1:4]]
    assert titles == called
    body = readable_restoration(restoration_table(rows, published_in(tmp_path)), rows).body
    assert {row[1] for row in body if row[0] == "random"} == {"MMPS", "DPS, a", "DPS, b"}


def test_an_image_that_a_method_lost_is_told(clean, tmp_path):
    rows, shown = shown_by_method(clean, tmp_path, {**ENTRY, "metrics": ["psnr"]})
    shown["random"]["dps"]["x"] = np.full_like(shown["random"]["dps"]["x"], np.nan)

    _, _, lost, *others = restoration_images(rows, shown, "faces").axes

    assert [text.get_text() for text in lost.texts] == ["lost"]
    assert not lost.images
    assert all(ax.images for ax in others)


def test_methods_that_are_none_are_refused(own_method, tmp_path):
    (tmp_path / "methods_of_mine.py").write_text(f"{OWN}\n\nclass Other:\n    pass\n")

    for name, message in (
        ("methods_of_mine:Other", "is no subclass of diem.paper.methods.base.Method"),
        ("methods_of_mine:Absent", "is no subclass"),
        ("dpss", "did you mean 'dps'"),
    ):
        with pytest.raises(DiemError, match=message):
            METHODS.parse(name)
    with pytest.raises(DiemError, match="strengt is unknown"):
        METHODS.parse({"name": own_method, "strengt": 1.0})


def test_every_method_declares_what_tables_show():
    titles = {name: method.title for name, method in METHODS.all().items()}

    assert titles == {
        **{"mmps": "MMPS", "dps": "DPS", "pgdm": "PGDM", "tmpd": "TMPD", "diffpir": "DiffPIR"}
    }
    for method in METHODS.all().values():
        assert all(field.description for field in method.model_fields.values())


def test_declaring_the_methods_imports_no_torch():
    code = (
        "import sys; from diem.paper.methods import METHODS; METHODS.all();"
        " print([m for m in ('torch', 'azula', 'pandas') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["[]"]


# Wiring against azula


def start(sampler, count, shape):
    with global_stream(5):
        return sampler(sampler.init((count, *shape), dtype=torch.float64))


GRID = {"steps": 5, "silent": True}


@every_task
@pytest.mark.parametrize("iterations", [1, 3])
def test_mmps_agrees_with_azula(task, iterations):
    _, denoiser = exact()
    some = problem(task)
    operator, y, sigma_y = some
    theirs = MMPSDenoiser(
        denoiser,
        y.flatten(1),
        lambda x: operator.forward(x).flatten(1),
        IsotropicCovariance(torch.tensor(sigma_y**2, dtype=torch.float64)),
        solver="gmres",
        iterations=iterations,
    )
    expected = start(DDIMSampler(theirs, eta=1.0, **GRID), 3, SHAPE)

    method = METHODS.parse({"name": "mmps", "iterations": iterations})
    torch.testing.assert_close(restore(method, denoiser, some, 5, 5), expected)


@every_task
@pytest.mark.parametrize("t", [0.1, 0.5, 1.0])
def test_tmpd_takes_the_sums_of_rows_for_a_diagonal(task, t):
    _, denoiser = exact()
    some, t = problem(task), torch.tensor(t, dtype=torch.float64)
    x_t = torch.randn(3, *SHAPE, dtype=torch.float64)

    mean = ProjectedDenoiser(denoiser, some, 16)(x_t, t).mean

    alpha, sigma = denoiser.schedule(t)
    x, a = denoiser(x_t, t).mean.flatten(1), matrices(some.operator)
    zero = torch.zeros(1, *SHAPE, dtype=torch.float64)
    one = torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)
    jacobian = (denoiser(one, t).mean - denoiser(zero, t).mean).flatten(1)  # a Gaussian's is affine
    v = sigma**2 / alpha * jacobian.sum(dim=1)
    system = a * v @ a.mT + some.sigma_y**2 * torch.eye(a.shape[1], dtype=a.dtype)
    residual = some.y.flatten(1)[..., None] - a @ x[..., None]
    shift = sigma**2 / alpha * jacobian @ a.mT @ torch.linalg.solve(system, residual)
    torch.testing.assert_close(mean.flatten(1), x + shift[..., 0], rtol=1e-6, atol=1e-6)


@every_task
def test_dps_agrees_with_azula_on_one_image(task):
    _, denoiser = exact()
    operator, y, _ = some = problem(task, 1)
    expected = start(DPSSampler(denoiser, y, operator.forward, zeta=0.5, **GRID), 1, SHAPE)

    torch.testing.assert_close(
        restore(METHODS.parse(ENTRIES["dps"]), denoiser, some, 5, 5), expected
    )


@every_task
def test_diffpir_agrees_with_azula_on_vectors(task):
    _, denoiser = exact()
    operator, y, sigma_y = some = problem(task)

    class Vector(torch.nn.Module):
        schedule = denoiser.schedule

        def forward(self, x_t, t):
            posterior = denoiser(x_t.reshape(-1, *SHAPE), t)
            posterior.mean = posterior.mean.flatten(1)
            return posterior

    theirs = DiffPIRDenoiser(
        Vector(),
        y.flatten(1),
        lambda x: operator.forward(x.reshape(-1, *SHAPE)).flatten(1),
        sigma_y**2,
        lmbda=10.0,
        iterations=5,
    )
    expected = start(DDIMSampler(theirs, eta=1.0, **GRID), 3, (16,)).reshape(3, *SHAPE)

    torch.testing.assert_close(
        restore(METHODS.parse(ENTRIES["diffpir"]), denoiser, some, 5, 5), expected
    )


@every_task
@pytest.mark.parametrize("t", [0.1, 0.5, 1.0])
def test_pgdm_inverts_as_published(task, t):
    _, denoiser = exact()
    some = problem(task)
    sampler = NoisyPGDMSampler(denoiser, some, 16, eta=1.0, **GRID)
    t = torch.tensor(t, dtype=torch.float64)
    sampler.step(torch.zeros(3, *SHAPE, dtype=torch.float64), t, t / 2)

    alpha, sigma = denoiser.schedule(t)
    r2, a = sigma**2 / (alpha**2 + sigma**2), matrices(some.operator)
    system = r2 * a @ a.mT + some.sigma_y**2 * torch.eye(a.shape[1], dtype=a.dtype)
    expected = r2 * a.mT @ torch.linalg.solve(system, some.y.flatten(1)[..., None])
    torch.testing.assert_close(
        sampler.inverse(some.y).flatten(1), expected[..., 0], rtol=1e-6, atol=1e-6
    )


def test_pgdm_of_five_iterations_inverts_the_residual_at_once():
    _, denoiser = exact()
    some = problem("random")
    method = METHODS.parse({"name": "pgdm", "iterations": 2})
    sampler = method.sampler(denoiser, some, **GRID)
    x_t, t = torch.randn(3, *SHAPE, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    torch.manual_seed(3)
    x_s = sampler.step(x_t, t, t / 2)

    x_t.requires_grad_()
    x_hat = denoiser(x_t, t).mean
    pull = sampler.inverse((some.y - some.operator.forward(x_hat)).detach())
    (gradient,) = torch.autograd.grad(x_hat, x_t, pull)
    torch.manual_seed(3)
    plain = DDIMSampler(denoiser, eta=1.0, **GRID).step(x_t.detach(), t, t / 2)
    alphas = denoiser.schedule(t)[0] * denoiser.schedule(t / 2)[0]
    torch.testing.assert_close(x_s, plain + alphas * gradient)


def test_our_ddpm_is_azulas_ddim_of_eta_1():
    network = {"name": "mlp", "hidden": [16], "embedding": 8}
    denoiser = build_denoiser(network, {"sigma_min": 0.01, "sigma_max": 10.0}, SHAPE, seed=0)
    denoiser = denoiser.eval().requires_grad_(False)
    x = 10 * torch.randn(4, *SHAPE)
    generator = torch.Generator().manual_seed(2)

    ours = DDPM(steps=8)(denoiser, x, 10.0, generator)

    class Vector(torch.nn.Module):
        schedule = VESchedule(0.01, 10.0)

        def forward(self, x_t, t):
            return denoiser(x_t, t.reshape(1))

    torch.manual_seed(2)
    theirs = DDIMSampler(Vector(), eta=1.0, steps=8, silent=True)(x)
    # Ours denoises once more at the end.
    torch.testing.assert_close(ours, denoiser(theirs, torch.zeros(1)).mean, rtol=1e-4, atol=1e-4)


# Priors


def test_trained_prior_is_the_same_denoiser_in_other_units(tmp_path):
    network = {"name": "mlp", "hidden": [16], "embedding": 8}
    schedule = {"sigma_min": 0.01, "sigma_max": 100.0}
    inner = build_denoiser(network, schedule, SHAPE, seed=0)
    card = {"network": network, "schedule": schedule, "optimizer_steps": 7, "training_samples": 9}
    gaussian = random_gaussian(SHAPE, 2, torch.float32)
    Prior(gaussian, inner, card).save(tmp_path / "prior.safetensors")

    denoiser, told = trained(tmp_path / "prior.safetensors", SCHEDULE)

    assert told["optimizer_steps"] == 7
    assert "7 optimizer steps" in told["prior"]
    for t in (0.0, 0.4, 1.0):
        alpha, sigma = denoiser.schedule(torch.tensor(t))
        ratio = float(2 * sigma / alpha)
        x_t = torch.randn(3, *SHAPE)
        direct = KarrasDenoiser(inner.backbone, VESchedule(ratio, 2 * ratio))
        expected = direct(2 * x_t / alpha, torch.zeros(1)).mean / 2
        torch.testing.assert_close(
            denoiser(x_t, torch.tensor(t)).mean, expected, rtol=1e-4, atol=1e-5
        )


def test_respaced_levels_are_those_of_ddpm():
    powers = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    for steps, kept in ((1000, range(1000)), (10, range(0, 1000, 111)), (2, (0, 999)), (1, (999,))):
        alpha, sigma = priors.DDPMLevels(steps)(torch.linspace(0, 1, steps + 1))
        expected = np.concatenate(([1.0], powers[list(kept)]))
        np.testing.assert_allclose(alpha.square(), expected, rtol=1e-6)
        np.testing.assert_allclose(sigma.square(), 1 - expected, rtol=1e-6, atol=1e-12)


def test_azula_finds_every_level_by_its_noise():
    denoiser = priors.adm.AblatedDenoiser(torch.nn.Identity())
    alpha, sigma = priors.DDPMLevels(1000)(torch.linspace(0, 1, 1001)[1:])

    found = torch.searchsorted(denoiser.sigmas, sigma * torch.rsqrt(alpha**2 + sigma**2))

    assert (found - torch.arange(1000)).abs().max() <= 1  # to a rounding in single precision


@every_method
def test_methods_walk_respaced_levels_to_no_noise(method):
    gaussian, denoiser = exact()
    walked = priors.respaced(denoiser, 8)

    x = restore(METHODS.parse(ENTRIES[method]), walked, problem("random"), 8, 0)

    assert torch.isfinite(x).all()
    assert denoiser.schedule is not walked.schedule
    assert (x - gaussian.mean).abs().max() < 20


def test_denoised_images_are_clipped_where_asked():
    backbone = build_denoiser(
        {"name": "mlp", "hidden": [16], "embedding": 8}, {"sigma_min": 0.01, "sigma_max": 9.0},
        SHAPE, seed=0,
    ).backbone  # fmt: skip
    free, clipped = (priors.HalvedDenoiser(backbone, VPSchedule(), clip) for clip in (False, True))
    x_t, t = 4 * torch.randn(3, *SHAPE), torch.tensor(0.1)

    assert free(x_t, t).mean.abs().max() > 1
    assert torch.equal(clipped(x_t, t).mean, free(x_t, t).mean.clip(-1, 1))


@pytest.fixture
def tiny_adm(monkeypatch):
    """Makes azula's card of a pretrained network that of a tiny one, and returns its weights."""
    real = priors.load_cards("azula.plugins.adm")["ffhq_256x256"]
    tiny = {"image_size": 32, "num_channels": 32, "channel_mult": [1, 1], "num_head_channels": 32}
    real.config |= tiny
    monkeypatch.setattr(priors, "load_cards", lambda plugin: {"ffhq_256x256": real})
    return priors.adm.make_model(**real.config).backbone.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_pretrained_weights_are_loaded_from_a_path(tmp_path, tiny_adm, ending):
    path = tmp_path / f"ffhq.{ending}"
    if ending == "pt":
        torch.save(tiny_adm, path)
    else:
        save_file(tiny_adm, path)

    denoiser, card = pretrained("ffhq_256x256", path, SCHEDULE)

    assert "ffhq_256x256" in card["prior"]
    assert not denoiser.training
    operator = simulate({"name": "downsample", "factor": 4}, (3, 32, 32), 2, torch.float32)
    some = Problem(operator, torch.randn(2, 3, 8, 8), 0.1)
    for entry in ENTRIES.values():
        assert restore(METHODS.parse(entry), denoiser, some, 2, 0).shape == (2, 3, 32, 32)


class Malicious:
    def __reduce__(self):
        return (print, ("executed",))


def test_bad_pretrained_weights_are_refused(tmp_path, tiny_adm, capsys):
    for name, state, message in (
        ("missing.pt", None, "there is no such file"),
        ("missing.safetensors", None, "there is no such file"),
        ("code.pt", Malicious(), "holds no weights"),
        ("other.pt", {"a": torch.zeros(1)}, "these are no weights of 'ffhq_256x256'"),
        ("list.pt", [1, 2], "these are no weights of 'ffhq_256x256'"),
    ):
        if state is not None:
            torch.save(state, tmp_path / name)
        with pytest.raises(DiemError, match=message) as error:
            pretrained("ffhq_256x256", tmp_path / name, SCHEDULE)
        assert name in str(error.value)
        assert "\n" not in str(error.value)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(DiemError, match="holds no weights"):
        pretrained("ffhq_256x256", tmp_path / "text.pt", SCHEDULE)
    assert "executed" not in capsys.readouterr().out


def test_missing_and_bad_lpips_weights_are_refused(tmp_path, capsys):
    with pytest.raises(DiemError, match=r"lpips_weights: .*alex.pth"):
        perceptual.Perceptual(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    for name in FILES:
        torch.save(Malicious(), tmp_path / name)
    with pytest.raises(DiemError, match="holds no weights"):
        perceptual.Perceptual(tmp_path)
    assert "executed" not in capsys.readouterr().out
    for name in FILES:
        torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / name)
    with pytest.raises(DiemError, match=r"alex.pth: .*no weights of lpips-alexnet"):
        perceptual.Perceptual(tmp_path)


def test_lpips_is_that_of_alexnet(tmp_path):
    generator = torch.Generator().manual_seed(0)
    sizes, pool = (64, 192, 384, 256, 256), torch.nn.MaxPool2d(3, 2)
    alexnet = torch.nn.Sequential(  # torchvision's features
        *(torch.nn.Conv2d(3, 64, 11, 4, 2), torch.nn.ReLU(), pool),
        *(torch.nn.Conv2d(64, 192, 5, padding=2), torch.nn.ReLU(), pool),
        *(torch.nn.Conv2d(192, 384, 3, padding=1), torch.nn.ReLU()),
        *(torch.nn.Conv2d(384, 256, 3, padding=1), torch.nn.ReLU()),
        *(torch.nn.Conv2d(256, 256, 3, padding=1), torch.nn.ReLU()),
    )
    linear = [torch.rand(1, size, 1, 1, generator=generator) for size in sizes]
    (tmp_path / "checkpoints").mkdir()
    states = (
        {f"lin{i}.model.1.weight": w for i, w in enumerate(linear)},
        {f"features.{name}": value for name, value in alexnet.state_dict().items()},
    )
    for name, state in zip(FILES, states, strict=True):
        torch.save(state, tmp_path / name)
    metric = perceptual.Perceptual(tmp_path)
    assert metric.digest == content_digest([tmp_path / name for name in FILES])
    x, y = torch.rand(2, 18, 3, 31, 40, generator=generator).unbind()

    mean, scale = torch.tensor(((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))[..., None, None]
    expected = torch.zeros(18)
    a, b = ((v - mean) / scale for v in (x, y))
    with torch.no_grad():
        for layer in alexnet:
            a, b = layer(a), layer(b)
            if isinstance(layer, torch.nn.ReLU):
                units = (v / v.square().sum(1, keepdim=True).sqrt() for v in (a, b))
                squares = (next(units) - next(units)).square()
                expected += F.conv2d(squares, linear.pop(0)).mean(dim=(1, 2, 3))
    torch.testing.assert_close(metric(x, y).float(), expected, rtol=1e-4, atol=1e-6)
    assert (metric(x, x) == 0).all()
    assert torch.equal(metric(x + 9, y), metric(torch.ones_like(x), y))
    with pytest.raises(DiemError, match="31 x 31 pixels or more, not 30 x 40"):
        metric(x[:, :, 1:], y[:, :, 1:])


# The comparison


class Constant:
    """Stands in for LPIPS, whose weights are not at hand."""

    name, digest = "lpips-alexnet", "0123"

    def __call__(self, x, reference):
        return torch.full((len(x),), 0.25, dtype=torch.float64)


ENTRY = {
    "respaced": False,
    "clip": False,
    "tasks": {name: {**TASKS[name], "shared": False} for name in ("random", "small")},
    "methods": {name: ENTRIES[name] for name in ("mmps_3", "dps")},
    "steps": [2, 4],
    "images": 5,
    "block": 3,
    "metrics": ["psnr", "ssim", "lpips"],
    "data": "test images",
}


@pytest.fixture
def clean(tmp_path):
    x = np.random.default_rng(0).uniform(-2, 2, (6, 1, 12, 12)).astype(np.float32)
    write_hdf5(tmp_path / "clean.h5", {"test/x": x}, {})
    return tmp_path / "clean.h5"


def run(clean, method="mmps_3", entry=ENTRY, files=None):
    _, denoiser = exact((1, 12, 12), torch.float32)
    columns = {"experiment": "e", "optimizer_steps": 3, "prior": "a Gaussian"}
    return compare(denoiser, clean, entry, method, columns, Job(), files or {})


def test_rows_carry_their_card(clean):
    rows, arrays = run(clean)

    assert [tuple(row) for row in rows] == [COLUMNS] * len(rows)
    found = [(row["observations"], row["sampler_steps"], row["metric"]) for row in rows]
    assert found == [(t, s, m) for t in ENTRY["tasks"] for s in (2, 4) for m in ("psnr", "ssim")]
    for row in rows:
        assert row["run"] == "mmps_3"
        assert row["samples"] == row["reference_samples"] == 5
        assert math.isfinite(row["value"])
        assert row["standard_error"] > 0
        settings = json.loads(row["settings"])
        assert settings["method"] == ENTRIES["mmps_3"]
        assert settings["task"] == ENTRY["tasks"][row["observations"]]
        assert "5 samples (test split), ddim (eta 1)" in provenance(row)
    for task in ENTRY["tasks"]:
        for name in ("x", "y", "observed", "truth"):
            assert len(arrays[f"{task}/{name}"]) == 3  # the first block
            assert arrays[f"{task}/{name}"].shape[2:] == (12, 12)
        assert np.abs(arrays[f"{task}/x"]).max() <= 2


def test_images_are_compared_by_intensities(clean):
    rows, arrays = run(clean, entry={**ENTRY, "images": 3, "steps": [2]})  # all are shown

    for row in rows:
        images = (arrays[f"{row['observations']}/{name}"] for name in ("x", "truth"))
        x, truth = ((torch.from_numpy(array).double() + 2) / 4 for array in images)
        measured = {"psnr": psnr, "ssim": ssim}[row["metric"]](x, truth, 1.0)
        assert row["value"] == pytest.approx(float(measured.mean()), rel=1e-9)


@pytest.mark.slow
def test_observations_are_the_same_for_every_method_and_repeat(clean):
    (rows, one), (again, _), (_, other) = run(clean), run(clean), run(clean, "dps")

    assert [row["value"] for row in rows] == [row["value"] for row in again]
    for task in ENTRY["tasks"]:
        assert np.array_equal(one[f"{task}/y"], other[f"{task}/y"])
        assert not np.array_equal(one[f"{task}/x"], other[f"{task}/x"])


def test_a_shared_operator_is_that_of_all_images(clean):
    task = {**TASKS["random"], "sigma_y": 1e-6}
    for shared in (True, False):
        entry = {**ENTRY, "tasks": {"t": {**task, "shared": shared}}, "steps": [1]}
        _, arrays = run(clean, entry=entry)
        observed = np.asarray(arrays["t/observed"])
        same = (observed == observed[:1]).all()
        assert len(observed) == 3
        assert same == shared


def test_clipping_and_respacing_change_the_numbers(clean):
    plain, _ = run(clean)
    other, _ = run(clean, entry={**ENTRY, "respaced": True})
    assert plain[0]["value"] != other[0]["value"]
    assert json.loads(other[0]["settings"])["prior"]["respaced"] is True


def test_other_tasks_and_steps_change_no_number(clean):
    rows, _ = run(clean)
    fewer, _ = run(
        clean, entry={**ENTRY, "tasks": {"small": ENTRY["tasks"]["small"]}, "steps": [4]}
    )

    expected = [
        r["value"] for r in rows if r["observations"] == "small" and r["sampler_steps"] == 4
    ]
    assert [row["value"] for row in fewer] == expected


def test_lpips_takes_the_folder_of_its_weights(monkeypatch):
    monkeypatch.setattr(perceptual, "Perceptual", lambda folder, device: (folder, device))
    files = {"lpips_weights": [f"given/hub/{name}" for name in FILES]}

    assert LPIPS().load(files, "cpu") == (Path("given/hub"), "cpu")


def test_lpips_has_rows_where_it_has_weights(clean, monkeypatch):
    monkeypatch.setattr(LPIPS, "load", lambda *arguments: Constant())
    rows, _ = run(clean, files={"lpips_weights": ["hub/checkpoints/a"]})

    of_lpips = [row for row in rows if row["metric"] == "lpips"]
    assert len(of_lpips) == 4
    for row in of_lpips:
        assert row["value"] == 0.25
        assert (row["extractor"], row["extractor_digest"]) == ("lpips-alexnet", "0123")


def test_images_are_observed_in_the_benchmarks_range(clean):
    noise = {"small": 0.01, "large": 1.0}
    operator = {"name": "mask", "missing": 0.3}
    tasks = {
        name: {"operator": operator, "sigma_y": value, "shared": False}
        for name, value in noise.items()
    }

    _, arrays = run(clean, entry={**ENTRY, "tasks": tasks})

    for task, sigma_y in noise.items():
        y, truth, seen = (arrays[f"{task}/{name}"] for name in ("y", "truth", "observed"))
        seen = np.broadcast_to(seen, y.shape)
        # Noise is told for images in [-1, 1]; these arrays are twice as large.
        error = (y - truth)[seen] / (2 * sigma_y)
        assert abs(error.std() - 1) < 5 / np.sqrt(2 * error.size)
        assert (y[~seen] == 0).all()


def test_too_few_images_are_refused(clean):
    with pytest.raises(DiemError, match="there are 6 test images, where 7 are asked for"):
        run(clean, entry={**ENTRY, "images": 7})


# The table


def published_in(folder):
    path = folder / "published.csv"
    path.write_text(
        "method,steps,iterations,task,lpips,psnr,ssim,source\n"
        "MMPS,2,3,small,0.2,21.1,0.6,a paper\nMMPS,2,5,small,0.3,21.2,0.7,a paper\n"
        "DPS,2,,small,0.4,20.1,0.5,a paper\n"
    )
    return path


def shown_by_method(clean, folder, entry=ENTRY):
    """Runs all methods; returns the rows as they are read, and by task and method the images."""
    path, shown = folder / "rows.csv", {task: {} for task in entry["tasks"]}
    rows = []
    for method in entry["methods"]:
        more, arrays = run(clean, method, entry)
        rows += more
        for task, methods in shown.items():
            methods[method] = {
                name: arrays[f"{task}/{name}"] for name in ("x", "y", "observed", "truth")
            }
    write_rows(path, rows)
    return read_rows([path]), shown


@pytest.fixture
def table(clean, tmp_path):
    rows, _ = shown_by_method(clean, tmp_path)
    return restoration_table(rows, published_in(tmp_path)), rows


def test_published_numbers_stand_beside_the_same_setting(table):
    table, _ = table

    def one(**where):
        found = table
        for key, value in where.items():
            found = found[found[key] == value]
        assert len(found) == 1
        return found.iloc[0]

    both = one(task="small", method="MMPS", iterations="3", steps=2)
    assert both["psnr_published"] == "21.1"
    assert math.isfinite(both["psnr"])
    assert one(task="small", method="DPS", steps=2)["ssim_published"] == "0.5"
    assert math.isnan(one(iterations="5")["psnr"])
    assert not isinstance(one(task="random", method="DPS", steps=4)["psnr_published"], str)
    assert "lpips" not in table
    assert "lpips_published" in table
    assert len(table) == 9


def test_readable_table_marks_what_is_absent(table):
    readable = readable_restoration(*table)

    titles = [" ".join(lines) for lines in readable.header]
    assert "PSNR (dB) ours ↑" in titles
    assert "LPIPS published ↓" in titles
    assert not any("LPIPS" in title and "ours" in title for title in titles)
    assert all(cell for row in readable.body for cell in row)
    assert any("Published: a paper." in note for note in readable.notes)
    assert any("small: downsample, factor 2, sigma_y 0.1" in note for note in readable.notes)
    markdown(readable), latex(readable), html(readable)


def test_the_priors_of_all_seeds_are_named(clean, tmp_path):
    rows, shown = shown_by_method(clean, tmp_path)
    name = json.loads(rows["settings"].iloc[0])["prior"]["name"]
    settings = rows["settings"].str.replace(name, "another")
    other = rows.assign(seed="8", settings=settings)
    card = ["metric", "run", "observations"]

    means = means_over_seeds(pd.concat([rows, other], ignore_index=True))

    assert len(means) == len(rows)
    assert means[card].equals(rows[card])
    assert any(f" with {name} and another, " in note for note in _notes(means))
    note = restoration_metrics(means, "faces").get_supxlabel().replace("\n", " ")
    assert f"prior: {name} and another," in note
    # Images are those of the first.
    seed = rows["seed"].iloc[0]
    for some, told in ((means, f" with 4 steps at seed {seed}. "), (rows, " with 4 steps. ")):
        note = restoration_images(some, shown, "faces").get_supxlabel().replace("\n", " ")
        assert told in note
    pd.testing.assert_frame_equal(means_over_seeds(rows), rows)


def test_labels_tell_the_iterations_of_mmps():
    settings = [json.dumps({"method": ENTRIES[name]}) for name in ("mmps_3", "diffpir")]

    assert [method_of(text).label for text in settings] == ["MMPS (3)", "DiffPIR"]


# The figures


@pytest.mark.parametrize(
    "operator", [{"name": "projection", "rows": 4}, {"name": "fourier", "acceleration": 2}]
)
def test_observations_that_are_no_such_images_are_shown_by_the_adjoint(clean, tmp_path, operator):
    task = {"operator": operator, "sigma_y": 0.1, "shared": False}
    methods = {"mmps_3": ENTRIES["mmps_3"]}
    entry = {**ENTRY, "tasks": {"t": task}, "methods": methods, "steps": [2]}

    rows, shown = shown_by_method(clean, tmp_path, entry)

    arrays = shown["t"]["mmps_3"]
    assert arrays["y"].shape == arrays["observed"].shape == arrays["truth"].shape
    assert restoration_images(rows, shown, "faces").axes


@pytest.mark.filterwarnings("error")
def test_figures_show_every_method_and_task(clean, tmp_path):
    rows, shown = shown_by_method(clean, tmp_path)

    lines = restoration_metrics(rows, "faces").axes
    assert len(lines) == 2 * 2  # metrics, tasks
    for ax in lines:
        assert [line.get_label() for line in ax.lines] == ["MMPS (3)", "DPS"]
        assert [list(line.get_xdata()) for line in ax.lines] == [[2, 4], [2, 4]]
    value = rows[(rows["run"] == "dps") & (rows["metric"] == "ssim")]["value"]
    assert list(lines[2].lines[1].get_ydata()) == list(value[:2])

    images = restoration_images(rows, shown, "faces").axes
    titles = [ax.get_title() for ax in images[:4]]
    assert titles == ["observation", "MMPS (3)", "DPS", "truth"]
    assert len(images) == 2 * 4
    truth = shown["random"]["dps"]["truth"]
    i = truth.std(axis=(2, 3)).mean(axis=1).argmax()
    expected = np.repeat((truth[i, 0, :, :, None] + 2) / 4, 3, axis=-1)
    np.testing.assert_allclose(images[3].images[0].get_array(), expected, rtol=1e-6)
