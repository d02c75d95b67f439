"""The command ``diem``: what is done with priors and observations outside of the workflow.

The help is there at once: PyTorch is imported by the verbs that need it.
"""

import argparse
import contextlib
import errno
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diem import __version__, launch_workflow
from diem.errors import DiemError
from diem.jobs import results

if TYPE_CHECKING:
    import torch

    from diem.data.observations import Observations
    from diem.jobs.job import Job

__all__ = ["main"]


CHECK = """\
examples:
  diem check observations.h5
  diem check observations.h5 --operator telescope:Beam --sigma-y 0.05

It ends with 0 if the workflow can use the file. A class is imported only if it is named here.
"""

INIT = """\
examples:
  diem init observations.h5
  diem init observations.h5 --operator telescope:Beam --sigma-y 0.05 -o sky.yaml

It writes a configuration with comments, to begin with, chosen by the kind, the shape and the number
of the data, and tells what it will cost, for which it times each kind of work for about a minute.
"""

SAMPLE = """\
examples:
  diem sample prior.safetensors -n 1000 -o samples.h5
  diem sample prior.safetensors -n 64 -o samples.h5 --sampler ddim --steps 128 --seed 1

The file holds 'x', one sample a row, in the units of the observations that the prior was learned
from, and what made it as attributes. What is not told of the sampler is as in the E-step that made
the prior, with 32 steps at least. The same seed, batch and kind of device give the same samples.
Interrupted, the same command goes on with the batch that it was at.
"""

POSTERIOR = """\
examples:
  diem posterior prior.safetensors observations.h5 -o posterior.h5
  diem posterior prior.safetensors observations.h5 -o posterior.h5 -n 64 --figure posterior.png

Each split of the observations becomes a group with 'x' (the samples), 'mean', 'sd' and 'index'.
What is not told is as in the E-step that made the prior, with 32 steps at least, and of an exported
prior as in its evaluation. Interrupted, the same command goes on.
"""


ESTIMATE = """\
examples:
  diem estimate config/config.yaml
  diem estimate my.yaml --gpu A100

It times each kind of work for about a minute. Snakemake's target 'estimate' does the same and
writes the table to results/tables.
"""

VERIFY = """\
example, of results that were copied from another place:
  diem verify results && snakemake --cores 1 --touch

It reads every file that carries a checksum. Copied files have new times, by which Snakemake would
make them anew: 'snakemake --touch' takes them as they are.
"""

STATUS = """\
example, beside a workflow that is running or after it:
  diem status results

It tells of each run its laps, its losses and its most telling number, and of each job that is in
work how much is done and the time left. It only reads.
"""

TENSORBOARD = """\
example:
  diem tensorboard results && tensorboard --logdir results/tensorboard

It writes the losses of every run by optimizer step, and its metrics by lap, to results/tensorboard
or the folder of -o. The same command brings them up to date, beside a workflow that is running too.
"""

EXPORT = """\
examples:
  diem export results/digits/runs/missing_50 -o digits.safetensors
  diem export results/digits/runs/missing_50 -o digits.safetensors --lap 4

It takes the lap that was chosen by validation observations, where there is a choice, or else the
last, and writes its weights, what made them and its metrics to one file; the same to be read by
people goes to the file's name with .md.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    A :class:`DiemError` is told in one sentence, and so is a file's name that is too long for the
    system; anything else is a defect and keeps its traceback.
    """
    options = _parser().parse_args(arguments)
    try:
        options.call(options)
    except DiemError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        print(f"Error: {error.filename}: {error.strerror}.", file=sys.stderr)
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

    verb = _verb(verbs, "check", _check, "tell what a file of observations holds", CHECK)
    verb.add_argument("file", metavar="FILE", help="a file of observations (.h5)")
    _add_observing(verb)

    verb = _verb(verbs, "init", _init, "write a configuration for observations", INIT)
    verb.add_argument("file", metavar="FILE", help="a file of observations (.h5)")
    verb.add_argument("-o", "--output", metavar="FILE", help=".yaml (the name of FILE, here)")
    verb.add_argument("--kind", help="images, series, table, volumes (judged by the file)")
    _add_observing(verb)

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
    verb.add_argument("--figure", metavar="FILE", help="a figure to draw as well (.png or .pdf)")
    _add_observing(verb)
    _add_drawing(verb)
    _add_guidance(verb)

    verb = _verb(verbs, "estimate", _estimate, "plan FLOPs, hours and disk of a config", ESTIMATE)
    verb.add_argument("config", metavar="CONFIG", help="a configuration (.yaml)")
    verb.add_argument("--gpu", metavar="NAME", help="a GPU, or its TFLOP/s (estimate_gpu)")

    verb = _verb(verbs, "status", _status, "tell how far a workflow is", STATUS)
    verb.add_argument("results", metavar="RESULTS", help="a folder of results")

    verb = _verb(verbs, "tensorboard", _tensorboard, "write losses for TensorBoard", TENSORBOARD)
    verb.add_argument("results", metavar="RESULTS", help="a folder of results")
    verb.add_argument("-o", "--output", metavar="FOLDER", help="(RESULTS/tensorboard)")

    verb = _verb(verbs, "verify", _verify, "tell whether results are as they were written", VERIFY)
    verb.add_argument("results", metavar="RESULTS", help="a folder of results")

    verb = _verb(verbs, "export", _export, "write a prior to give away, with its card", EXPORT)
    verb.add_argument("run", metavar="RUN", help="a run's folder, results/<experiment>/runs/<run>")
    verb.add_argument("-o", "--output", metavar="FILE", required=True, help=".safetensors")
    verb.add_argument("--lap", type=int, metavar="N", help="the lap (the chosen one, or the last)")

    launch_workflow.add_verb(verbs)
    return parser


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as they are written, and names and their help on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=88)


def _verb(verbs, name: str, call, summary: str, epilog: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=_Formatter,
    )
    verb.set_defaults(call=call)
    return verb


def _add_output(verb: argparse.ArgumentParser, name: str, what: str, **options) -> None:
    required = "default" not in options
    verb.add_argument(f"-{name}", type=int, metavar="N", required=required, help=what, **options)
    verb.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the HDF5 file to write"
    )


def _add_observing(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("what the file does not tell")
    group.add_argument("--operator", metavar="NAME", help="a built-in name, or module:Class")
    group.add_argument("--sigma-y", type=float, metavar="X", help="the noise's standard deviation")
    verb.add_argument("--links", action="store_true", help="let the file read other files")


def _add_drawing(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="the seed (0)")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    verb.add_argument("--batch", type=int, metavar="N", help="samples that are drawn at once (256)")
    group = verb.add_argument_group("the sampler, if not the default, see above")
    group.add_argument("--sampler", metavar="NAME", help="ddpm, ddim or pc")
    group.add_argument("--steps", type=int, metavar="N", help="its number of steps")
    group.add_argument("--spacing", metavar="NAME", help="of noise levels: log_linear or karras")


def _add_guidance(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("the guidance, if not the default, see above")
    group.add_argument("--covariance", metavar="NAME", help="tweedie, cov_x, identity, ...")
    group.add_argument("--iterations", type=int, metavar="N", help="of conjugate gradients")
    group.add_argument("--limit", type=float, metavar="X", help="the largest residual followed")


def _given(**options) -> dict:
    return {key: value for key, value in options.items() if value is not None}


def _sampler(options: argparse.Namespace) -> dict:
    return _given(name=options.sampler, steps=options.steps, spacing=options.spacing)


def _check_outputs(inputs: Sequence[str], *outputs: str | None) -> None:
    """Refuses to write over what is read, or where it cannot, or two things to one file."""
    taken = {Path(name).resolve(): "is read" for name in inputs}
    for name in filter(None, outputs):
        place = Path(name).resolve()
        if place.is_dir():
            raise DiemError(f"{name}: this is a folder, where the name of a file is needed.")
        results.check_writable(Path(name).parent, name)  # else it is told when the work is done
        if place in taken:
            raise DiemError(f"{name}: this file {taken[place]} here, give the output another name.")
        taken[place] = "is written already"


@contextlib.contextmanager
def _job(
    output: str, samples: int, made_of: Sequence[Any], seed: int, device: "torch.device"
) -> Iterator["Job"]:
    """Yields a job with a bar of samples on the standard error, of which a step can be a fraction.

    What is finished is kept beside the output until the output is complete. A request to stop
    (SIGTERM, Ctrl-C, a terminal that is closed) is told in one sentence, and ends the process with
    code 128 and the signal's number.

    Arguments:
        output: The file that it makes.
        samples: The number of samples.
        made_of: The files that it reads, and all the settings of the samples.
        seed: The seed.
        device: The device.
    """
    from tqdm import tqdm

    from diem.jobs import resume
    from diem.jobs.job import Job

    form = "{percentage:3.0f}% |{bar}| {n:.0f}/{total_fmt} samples [{elapsed}<{remaining}]"
    files, *settings = made_of
    try:
        with (
            resume.stoppable(signal.SIGHUP),
            resume.Pieces(output, resume.fingerprint(files, *settings, device=device)) as pieces,
            tqdm(total=samples, bar_format=form, file=sys.stderr, disable=None) as bar,
        ):
            yield Job(seed, device, pieces, bar)
    except resume.Stopped as stopped:
        print(
            f"Interrupted: what is finished of {output} is kept beside it, and the same command"
            " goes on from there.",
            file=sys.stderr,
        )
        sys.exit(128 + stopped.number)
    results.remove_pieces(output)


def _check(options: argparse.Namespace) -> None:
    from diem.data.validate import check_file

    findings = check_file(options.file, options.operator, options.sigma_y, options.links)
    for level, sentence in findings:
        if level != "error":
            print(sentence if level == "note" else f"{level.capitalize()}: {sentence}")
    errors = [sentence for level, sentence in findings if level == "error"]
    if errors:
        raise DiemError("\nError: ".join(errors))
    print("The file can be used.")


def _init(options: argparse.Namespace) -> None:
    import yaml

    from diem.components import SEARCH_PATH
    from diem.config.checks import check_input
    from diem.config.resolve import resolve
    from diem.data.observations import users_observations
    from diem.data.validate import verified_operator
    from diem.files.atomic import atomic
    from diem.planning.beginning import KINDS, beginning, experiment_name

    check_input(options.file, "FILE")
    name = experiment_name(options.file)
    output = Path(options.output or f"{name}.yaml")
    if output.exists():
        raise DiemError(f"{output}: this file is there already, give the output another name (-o).")
    if options.kind not in (None, *KINDS):
        raise DiemError(f"--kind is {options.kind!r}, which is none of {', '.join(KINDS)}.")
    _check_outputs([options.file], str(output))
    os.environ.setdefault(SEARCH_PATH, str(output.resolve().parent))
    given = (options.operator, options.sigma_y)
    with users_observations(options.file, *given, options.links) as file:
        verified_operator(file, "train")
        made = beginning(file, name, str(output), options.kind, *given, options.links)
    config = resolve(yaml.safe_load(made.text), str(output))
    cost = _cost(config)
    with atomic(output) as temporary:
        temporary.write_text(made.text, encoding="utf-8")
    print(f"{output}: a configuration to begin with, for {made.kind} ({made.reason}).")
    quoted = shlex.quote(str(output))
    print(f"Look at it, and learn with: diem run --configfile {quoted} --cores all\n")
    print(cost)


def _sample(options: argparse.Namespace) -> None:
    from diem.inference.prior_denoiser import load_prior
    from diem.inference.sample_files import holds_samples, write_samples
    from diem.jobs.code import own_digest
    from diem.jobs.job import select_device

    _check_outputs([options.prior], options.output)
    results.check_replaced(options.output, holds_samples, "samples")
    prior = load_prior(options.prior, select_device(options.device))
    drawing = {**_given(batch=options.batch), **_sampler(options)}
    code = own_digest([prior.card, drawing])
    made_of = ([options.prior], options.n, drawing, options.seed, code)
    with _job(options.output, options.n, made_of, options.seed, prior.device) as job:
        write_samples(options.output, prior, options.n, job, **drawing)
    print(f"{options.output}: {options.n} samples of shape {prior.event_shape}.")


def _posterior(options: argparse.Namespace) -> None:
    from diem.data.observations import users_observations
    from diem.inference.prior_denoiser import load_prior
    from diem.inference.sample_files import holds_samples, write_posteriors
    from diem.jobs.code import own_digest
    from diem.jobs.job import select_device

    if options.figure and Path(options.figure).suffix not in (".png", ".pdf"):
        raise DiemError(f"{options.figure}: the name of a figure must end in .png or .pdf.")
    _check_outputs([options.prior, options.observations], options.output, options.figure)
    results.check_replaced(options.output, holds_samples, "samples")
    if options.figure:
        results.check_replaced(options.figure, _holds_figure, "figure of Matplotlib's")
    prior = load_prior(options.prior, select_device(options.device))
    drawing = {"sampler": _sampler(options)} | _given(
        covariance=options.covariance,
        iterations=options.iterations,
        limit=options.limit,
        batch=options.batch,
    )
    model, files = (
        (options.operator, options.sigma_y, options.links),
        [options.prior, options.observations],
    )
    with users_observations(options.observations, *model) as observations:
        total = len(observations) * options.n
        code = own_digest([prior.card, observations.operator, drawing])
        made_of = (files, options.n, model, drawing, options.seed, code)
        with _job(options.output, total, made_of, options.seed, prior.device) as job:
            outliers = write_posteriors(
                options.output, prior, observations, options.n, job, **drawing
            )
            job.progress.close()
            count = len(observations)
            print(f"{options.output}: {options.n} samples of each of {count} observations.")
            if outliers:
                print(f"Warning: {prior.outliers_told(outliers, total)}")
            if options.figure:
                _draw_posteriors(options, observations)
                print(f"{options.figure}: the first of them.")


def _holds_figure(path: Path) -> bool:
    return b"Matplotlib" in path.read_bytes()


def _draw_posteriors(options: argparse.Namespace, observations: "Observations") -> None:
    from diem.inference.sample_files import read_posteriors

    os.environ["MPLBACKEND"] = "agg"  # no window: a notebook's need not be there
    from diem.report.drawing.style import save
    from diem.report.posteriors import POSTERIORS, posteriors

    shown = read_posteriors(options.output, observations, POSTERIORS)
    figure = posteriors(shown, Path(options.observations).stem)
    save(figure, options.figure, Path(options.figure).suffix[1:])


def _estimate(options: argparse.Namespace) -> None:
    from diem.components import SEARCH_PATH
    from diem.config.reading import read_config
    from diem.config.resolve import resolve

    path = Path(options.config)
    config = read_config(path)
    # A user's classes are looked for beside the configuration too, as the workflow does.
    os.environ.setdefault(SEARCH_PATH, str(path.resolve().parent))
    config = resolve(config, str(path))
    gpu = options.gpu
    with contextlib.suppress(TypeError, ValueError):
        gpu = float(gpu)
    print(_cost(config, gpu))


def _cost(config: dict, gpu: str | float | None = None) -> str:
    """Returns what a configuration will cost, as a table."""
    import torch

    from diem.planning import estimate

    torch.set_num_threads(config["threads"])
    return estimate.text(estimate.readable(estimate.estimate(config, gpu=gpu)))


def _verify(options: argparse.Namespace) -> None:
    from diem.evaluation.verify import verified

    found = list(verified(options.results))
    errors = [sentence for _, sentence in found if sentence is not None]
    if errors:
        raise DiemError("\nError: ".join(errors))
    print(f"{options.results}: all {len(found)} files are as they were written.")


def _status(options: argparse.Namespace) -> None:
    from diem.report.status import status

    print(*status(options.results), sep="\n")


def _tensorboard(options: argparse.Namespace) -> None:
    from diem.report.tensorboard import write_events

    output = options.output or f"{options.results}/tensorboard"
    runs = write_events(options.results, output)
    print(f"{output}: losses and metrics of {len(runs)} runs ({', '.join(runs) or 'none yet'}).")


def _export(options: argparse.Namespace) -> None:
    from diem.diffusion.prior import read_prior
    from diem.report.export import export

    results.check_replaced(options.output, lambda path: bool(read_prior(path)), "prior")
    card = export(options.run, options.output, options.lap)
    readable = Path(options.output).with_suffix(".md")
    print(f"{options.output}: the prior of lap {card['lap']}, with {len(card['metrics'])} metrics.")
    if "told" in card.get("chosen_by", {}):
        print(f"By validation observations, {card['chosen_by']['told']}")
    print(f"{readable}: its card.")
