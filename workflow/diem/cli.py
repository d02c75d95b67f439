"""The command ``diem``: what is done with priors and observations outside of the workflow.

The help is there at once: PyTorch is imported by the verbs that need it.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from . import __version__
from .errors import DiemError

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["main"]

SAMPLE = """\
examples:
  diem sample prior.safetensors -n 1000 -o samples.h5
  diem sample prior.safetensors -n 64 -o samples.h5 --sampler ddim --steps 128 --seed 1

The file holds 'x', one sample a row, in the units of the observations that the prior was learned
from, and what made it as attributes. The same seed, batch and kind of device give the same samples.
"""

POSTERIOR = """\
examples:
  diem posterior prior.safetensors observations.h5 -o posterior.h5
  diem posterior prior.safetensors observations.h5 -o posterior.h5 -n 64 --iterations 3

Each split of the observations becomes a group with 'x' (the samples), 'mean', 'sd' and 'index'.
What is not told is as in the E-step that made the prior. Interrupted, the same command goes on.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    A :class:`DiemError` is told in one sentence; anything else is a defect and keeps its traceback.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except DiemError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "diem",
        formatter_class=_Formatter,
        description="Diffusion priors from observations: look at observations, and use priors.",
        epilog="'diem VERB --help' explains a verb. Snakemake learns priors, see README.md.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"diem {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    verb = _verb(verbs, "sample", _sample, "draw samples of a prior", SAMPLE)
    verb.add_argument("prior", metavar="PRIOR", help="a prior (.safetensors)")
    _add_output(verb, "n", "the number of samples")
    _add_drawing(verb)

    verb = _verb(
        verbs, "posterior", _posterior, "draw posterior samples of observations", POSTERIOR
    )
    verb.add_argument("prior", metavar="PRIOR", help="a prior (.safetensors)")
    verb.add_argument("observations", metavar="OBSERVATIONS", help="a file of observations (.h5)")
    _add_output(verb, "n", "the number of samples of each observation (16)", default=16)
    _add_drawing(verb)
    _add_guidance(verb)
    return parser


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as they are written, and names and their help on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=88)


def _verb(verbs, name: str, run, summary: str, epilog: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=_Formatter,
    )
    verb.set_defaults(run=run)
    return verb


def _add_output(verb: argparse.ArgumentParser, name: str, what: str, **options) -> None:
    required = "default" not in options
    verb.add_argument(f"-{name}", type=int, metavar="N", required=required, help=what, **options)
    verb.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the HDF5 file to write"
    )


def _add_drawing(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="the seed (0)")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    verb.add_argument("--batch", type=int, metavar="N", help="samples that are drawn at once (256)")
    group = verb.add_argument_group("the sampler, if not that of the E-step that made the prior")
    group.add_argument("--sampler", metavar="NAME", help="ddpm, ddim or pc")
    group.add_argument("--steps", type=int, metavar="N", help="its number of steps")
    group.add_argument("--spacing", metavar="NAME", help="of noise levels: log_linear or karras")


def _add_guidance(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("the guidance, if not that of the E-step")
    group.add_argument("--covariance", metavar="NAME", help="tweedie, cov_x, identity, ...")
    group.add_argument("--iterations", type=int, metavar="N", help="of conjugate gradients")
    group.add_argument("--limit", type=float, metavar="X", help="the largest residual followed")


def _given(**options) -> dict:
    return {key: value for key, value in options.items() if value is not None}


def _sampler(options: argparse.Namespace) -> dict:
    return _given(name=options.sampler, steps=options.steps, spacing=options.spacing)


@contextlib.contextmanager
def _progress(samples: int) -> Iterator["tqdm"]:
    """Yields a bar of samples on the standard error, of which a step can be a fraction."""
    from tqdm import tqdm

    form = "{percentage:3.0f}% |{bar}| {n:.0f}/{total_fmt} samples [{elapsed}<{remaining}]"
    with tqdm(total=samples, bar_format=form, file=sys.stderr, disable=None) as bar:
        yield bar


def _sample(options: argparse.Namespace) -> None:
    from . import priors
    from .jobs import select_device

    prior = priors.load_prior(options.prior, select_device(options.device))
    drawing = {"seed": options.seed, **_given(batch=options.batch)}
    with _progress(options.n) as bar:
        priors.write_samples(
            options.output, prior, options.n, progress=bar.update, **drawing, **_sampler(options)
        )
    print(f"{options.output}: {options.n} samples of shape {prior.event_shape}.")


def _posterior(options: argparse.Namespace) -> None:
    from . import priors, storage
    from .jobs import select_device

    prior = priors.load_prior(options.prior, select_device(options.device))
    e_step = {"sampler": _sampler(options)} | _given(
        covariance=options.covariance, iterations=options.iterations, limit=options.limit
    )
    drawing = {"seed": options.seed, **_given(batch=options.batch)}
    with storage.Observations(options.observations) as observations:
        count = sum(observations.count(split) for split in observations.splits())
        with _progress(count * options.n) as bar:
            priors.write_posteriors(
                options.output,
                prior,
                observations,
                options.n,
                fingerprint=storage.digest(
                    [options.prior, options.observations], options.n, drawing, e_step
                ),
                progress=bar.update,
                **drawing,
                **e_step,
            )
    print(f"{options.output}: {options.n} samples of each of {count} observations.")
