"""Compares the covariances of the guidance where the exact posterior is known.

The prior is the Gaussian fitted to the demo's digits with 75 % of the pixels missing, its denoiser
is exact, and so are its posteriors. For each covariance and sampler: the error of the posterior
mean (RMS over pixels, in data units) and the ratio of the posterior variance to the exact one.

Run it after the demo, from the root of the repository:

    python benchmarks/covariances.py results/digits/observations/missing_75
"""

import sys
from pathlib import Path

import torch
from azula.noise import VESchedule

from diem.denoisers import Prior, load_prior
from diem.sampling import PosteriorSampler, Sampler
from diem.seeds import Stage, torch_generator
from diem.storage import Observations, atomic

OBSERVATIONS, DRAWS, SEED = 48, 64, 0
SAMPLERS = (
    Sampler("ddpm", 16, "karras"),
    Sampler("ddpm", 64, "log_linear"),
    Sampler("ddpm", 256, "log_linear"),
    Sampler("pc", 16, "karras", delta=0.3),
)
GUIDANCES = (("tweedie", 1), ("tweedie", 3), ("identity", 1), ("cov_t", 1))


def main(folder: Path) -> None:
    """Writes the table to ``benchmarks/covariances.md``."""
    torch.set_num_threads(1)
    gaussian = load_prior(folder / "gaussian.safetensors").gaussian
    with Observations(folder / "observations.h5") as file:
        observed = file.load("test", slice(0, OBSERVATIONS))
    # Observations of the Gaussian itself, through the operators of the data.
    generator = torch_generator(SEED, Stage.METRIC)
    y = observed.operator.forward(gaussian.sample(OBSERVATIONS, generator))
    noise = torch.randn(y.shape, generator=generator)
    y = y + observed.sigma_y * noise * observed.operator.observed()

    rows = torch.arange(OBSERVATIONS).repeat_interleave(DRAWS)
    operator, sigma_y = observed.operator, observed.sigma_y
    mean = gaussian.posterior_mean(operator, y, sigma_y)
    prior = Prior(gaussian, gaussian.denoiser(VESchedule(1e-2, 1e1)), {})

    def statistics(x: torch.Tensor) -> tuple[float, float]:
        x = x.unflatten(0, (OBSERVATIONS, DRAWS))
        return float((x.mean(1) - mean).square().mean().sqrt()), float(x.var(1).mean())

    exact = gaussian.sample_posterior(operator[rows], y[rows], sigma_y, generator)
    error, variance = statistics(exact)
    lines = [
        "# Covariances of the guidance on a Gaussian prior",
        "",
        f"Digits, 75 % missing, {OBSERVATIONS} observations, {DRAWS} draws each, seed {SEED};"
        " made by `benchmarks/covariances.py`.",
        "",
        "| sampler | denoiser evaluations | covariance | CG iterations | error of the mean"
        " | variance ratio |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
        f"| exact draws | 0 | | | {error:.3f} | 1.000 |",
    ]
    for sampler in SAMPLERS:
        for covariance, iterations in GUIDANCES:
            draw = PosteriorSampler(sampler, covariance, iterations)
            generator = torch_generator(SEED, Stage.TEST_POSTERIOR)
            x = draw(prior, operator[rows], y[rows], sigma_y, generator)
            error, ratio = statistics(x)
            name = f"{sampler.name}, {sampler.steps} steps, {sampler.spacing}"
            lines.append(
                f"| {name} | {sampler.evaluations} | {covariance} | {iterations}"
                f" | {error:.3f} | {ratio / variance:.3f} |"
            )
    with atomic(Path(__file__).with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
