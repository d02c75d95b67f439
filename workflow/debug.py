"""Runs jobs of the workflow in this one process, without the processes that Snakemake starts.

    python -m pdb workflow/debug.py results/digits/runs/box/lap_01/prior.safetensors
    python workflow/debug.py --all --configfile my.yaml results/tables/digits.csv

The first runs the job that makes one result, whatever there is of it, and needs its inputs; a
debugger stops in the script and in the library. With ``--all``, every job that the targets need is
run, one after another, as Snakemake would plan it. Snakemake itself only plans: it keeps no record
of what is run here, holds no lock, and removes no output that is marked as temporary.
"""

import argparse
import contextlib
import runpy
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.exceptions import RuleException, WorkflowError
from snakemake.script import Snakemake
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)

__all__ = ["Planned", "jobs", "main", "run"]

SNAKEFILE = Path(__file__).with_name("Snakefile")


@dataclass(frozen=True)
class Planned:
    """A job that is to be run.

    Arguments:
        script: The script of its rule.
        snakemake: What the script knows under the name ``snakemake``.
        folder: The folder that paths are relative to.
    """

    script: Path
    snakemake: Snakemake
    folder: Path

    def __str__(self) -> str:
        wildcards = " ".join(f"{k}={v}" for k, v in self.snakemake.wildcards.items())
        return f"{self.snakemake.rule} {wildcards}".rstrip()


def jobs(
    snakefile: Path = SNAKEFILE,
    configfile: Path | None = None,
    directory: Path | None = None,
    targets: Iterable[str] = (),
    force: bool = False,
) -> list[Planned]:
    """Plans what the targets need, and returns the jobs in an order that they can be run in.

    Arguments:
        snakefile: The Snakefile.
        configfile: The configuration; without one, that of the Snakefile.
        directory: The folder to run in; without one, the working folder.
        targets: Paths of results or names of rules; without any, all results.
        force: Whether the jobs that make the targets themselves are run even if they need not be.

    Raises:
        WorkflowError: If a target cannot be made.
    """
    folder = Path(directory or Path.cwd()).resolve()
    files = [] if configfile is None else [Path(configfile).resolve()]
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, dryrun=True)) as api:
        planned = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=files),
            snakefile=Path(snakefile).resolve(),
            workdir=folder,
        )
        workflow = planned._workflow
        workflow.dag_settings = DAGSettings(targets=set(targets), forcetargets=force)
        workflow._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        levels = workflow.dag.toposorted(set(workflow.dag.needrun_jobs()))
        in_order = [job for level in levels for job in sorted(level, key=str)]
        return [_planned(job, workflow, folder) for job in in_order if job.rule.script]


def _planned(job, workflow, folder: Path) -> Planned:
    base = Path(job.rule.basedir.get_path_or_uri(secret_free=True))
    script = (base / job.rule.script).resolve()
    known = Snakemake(
        job.input,
        job.output,
        job.params,
        job.wildcards,
        1,
        {},
        job.log,
        workflow.globals["config"],
        job.rule.name,
        None,
        str(script.parent),
    )
    return Planned(script, known, folder)


def run(job: Planned) -> None:
    """Runs a job's script in this process.

    Raises:
        SystemExit: With a code that is not zero, if the job tells that it failed.
    """
    from diem.jobs.results import hold  # the Snakefile has made the library known

    with contextlib.chdir(job.folder), hold(job.snakemake.config["results"]):
        for path in (*job.snakemake.output, *job.snakemake.log):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        runpy.run_path(str(job.script), {"snakemake": job.snakemake}, run_name="__main__")


def main(arguments: list[str] | None = None) -> None:
    """Runs the job of each target, or with ``--all`` every job that the targets need."""
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0],
        epilog="\n".join(lines[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", help="paths of results, or names of rules")
    parser.add_argument("--all", action="store_true", help="run every job that they need")
    parser.add_argument("--configfile", type=Path, help="the configuration")
    parser.add_argument("--directory", type=Path, help="the folder to run in")
    parser.add_argument("--snakefile", type=Path, default=SNAKEFILE, help="another workflow's")
    options = parser.parse_args(arguments)
    if not (options.all or options.targets):
        parser.error("name a result, or give --all.")
    try:
        planned = jobs(
            options.snakefile,
            options.configfile,
            options.directory,
            options.targets,
            force=not options.all,
        )
    except (WorkflowError, RuleException) as error:
        sys.exit(f"Error: {' '.join(str(error).split())}")
    if not options.all:
        planned = _only(planned, options.targets)
    for job in planned:
        start = time.perf_counter()
        run(job)
        print(f"{time.perf_counter() - start:7.2f} s  {job}", flush=True)


def _only(planned: list[Planned], targets: list[str]) -> list[Planned]:
    """Returns the jobs that make the targets, or name them by their rule."""
    chosen = [
        job for job in planned if {job.snakemake.rule, *map(str, job.snakemake.output)} & {*targets}
    ]
    for job in chosen:
        for path in job.snakemake.input:
            if not (job.folder / path).exists():
                sys.exit(f"Error: {path} is missing, which {job} reads; --all makes it first.")
    return chosen


if __name__ == "__main__":
    main()
