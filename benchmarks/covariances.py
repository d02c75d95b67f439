"""Compares the covariances of the guidance, where the posterior is known and where it is learned.

The first part's prior is the Gaussian fitted to the demo's digits with 75 % of the pixels missing:
its denoiser is exact, and so are its posteriors. For each covariance and sampler: the error of the
posterior mean (RMS over pixels, in data units) and the ratio of the posterior variance to the exact
one. The second part's prior is learned, with the settings of ``benchmarks/lap_choice.yaml``. Its
posterior is not known, so a sampler that spends 58 times as many products stands for it: E-steps of
16 steps, as those settings have, and of 64 are compared with that by the Frechet distance, beside
the distance of two draws of that sampler itself. From the root of the repository:

    snakemake --configfile benchmarks/lap_choice.yaml --config results=results/lap_choice -c all
    python benchmarks/covariances.py results/lap_choice/digits
"""

import sys
from pathlib import Path

import torch
from azula.noise import VESchedule

from diem.data.observations import Observations
from diem.diffusion.covariances import COVARIANCES
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, read_prior
from diem.diffusion.samplers.ddpm import DDPM
from diem.diffusion.samplers.pc import PC
from diem.evaluation.extractor import load_extractor
from diem.evaluation.gaussians import frechet_distance
from diem.files.atomic import atomic
from diem.files.hdf5 import Reader
from diem.seeds import Stage, torch_generator

OBSERVATIONS, DRAWS, SEED = 48, 64, 0
SAMPLERS = (
    DDPM(steps=16, spacing="karras"),
    DDPM(steps=64, spacing="log_linear"),
    DDPM(steps=256, spacing="log_linear"),
    PC(steps=16, spacing="karras", delta=0.3),
)
GUIDANCES = (("tweedie", 1), ("tweedie", 3), ("identity", 1), ("cov_t", 1))

LAP = 7
REFERENCE = PosteriorSampler(
    PC(steps=128, spacing="karras", corrections=2, delta=0.3), iterations=5
)
LEARNED = (("tweedie", 1), ("cov_x", 5), ("identity", 1), ("cov_t", 1))


def main(experiment: Path) -> None:
    """Writes the tables to ``benchmarks/covariances.md``."""
    torch.set_num_threads(1)
    lines = [
        "# Covariances of the guidance",
        "",
        "Made by `benchmarks/covariances.py` of the digits of `lap_choice.yaml`, 75 % missing, seed"
        f" {SEED}.",
        "",
        *known(experiment / "observations" / "missing_75"),
        "",
        *learned(experiment),
    ]
    with atomic(Path(__file__).with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def known(folder: Path) -> list[str]:
    """Compares posteriors of the fitted Gaussian."""
    gaussian = read_prior(folder / "gaussian.safetensors").gaussian
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
        "## The exact denoiser of a Gaussian prior",
        "",
        f"{OBSERVATIONS} observations, {DRAWS} draws each.",
        "",
        "| sampler | denoiser evaluations | covariance | CG iterations | error of the mean"
        " | variance ratio |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
        f"| exact draws | 0 | | | {error:.3f} | 1.000 |",
    ]
    for sampler in SAMPLERS:
        for covariance, iterations in GUIDANCES:
            draw = PosteriorSampler(sampler, COVARIANCES.parse(covariance), iterations)
            generator = torch_generator(SEED, Stage.TEST_POSTERIOR)
            x = draw(prior, operator[rows], y[rows], sigma_y, generator)
            error, ratio = statistics(x)
            name = f"{sampler.name}, {sampler.steps} steps, {sampler.spacing}"
            lines.append(
                f"| {name} | {sampler.evaluations} | {covariance} | {iterations}"
                f" | {error:.3f} | {ratio / variance:.3f} |"
            )
    return lines


def learned(experiment: Path) -> list[str]:
    """Compares E-steps with a learned prior."""
    prior = read_prior(experiment / "runs" / "missing_75" / f"lap_{LAP:02d}" / "prior.safetensors")
    extractor = load_extractor(experiment / "extractor.safetensors")
    with Reader(experiment / "clean.h5") as file:
        clean = extractor.features(torch.from_numpy(file.read("test/x")))
    with Observations(experiment / "observations" / "missing_75" / "observations.h5") as file:
        observed = file.load("train")

    def features(sampler: PosteriorSampler, block: int) -> torch.Tensor:
        generator = torch_generator(SEED, Stage.E_STEP, LAP + 1, block)
        x = sampler(prior, observed.operator, observed.y, observed.sigma_y, generator)
        return extractor.features(x.clamp(-2, 2))

    exact = [features(REFERENCE, block) for block in (0, 1)]
    lines = [
        f"## The prior learned in {LAP} laps (tweedie)",
        "",
        f"One posterior sample of each of the {len(observed.y):,} training observations; Frechet"
        f" distances on the extractor {extractor.name}, means over two draws. The reference:"
        f" {REFERENCE.sampler.steps} steps of pc with two corrections each, 5 CG iterations.",
        "",
        "| pc steps (karras) | covariance | distance to the reference | distance to clean test |",
        "| ---: | --- | ---: | ---: |",
    ]

    def row(steps: int, covariance: str, draws: list[torch.Tensor]) -> str:
        pairs = [(a, b) for a in draws for b in exact if a is not b]
        near = sum(frechet_distance(a, b) for a, b in pairs) / len(pairs)
        far = sum(frechet_distance(a, clean) for a in draws) / len(draws)
        return f"| {steps} | {covariance} | {near:.2f} | {far:.2f} |"

    lines.append(row(REFERENCE.sampler.steps, "the reference itself", exact))
    for steps in (16, 64):
        for covariance, iterations in LEARNED:
            sampler = PC(steps=steps, spacing="karras", delta=0.3)
            draw = PosteriorSampler(sampler, COVARIANCES.parse(covariance), iterations, limit=1.5)
            lines.append(row(steps, covariance, [features(draw, block) for block in (2, 3)]))
    return lines


if __name__ == "__main__":
    main(Path(sys.argv[1]))
