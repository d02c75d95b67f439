"""Evaluates a prior: the floor, a lap, or the ceiling."""

from typing import TYPE_CHECKING

from diem.em.laps import with_batch
from diem.evaluation.written import Settings, write_evaluation
from diem.jobs.job import started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="sample") as job:
    params, output, names = snakemake.params, snakemake.output, dict(snakemake.wildcards.items())
    e_step = with_batch(params.e_step, snakemake.config, names)
    settings = Settings(params.card, params.evaluation, e_step, params.data)
    write_evaluation(output.metrics, output.samples, dict(snakemake.input.items()), settings, job)
