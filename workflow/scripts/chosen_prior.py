"""Writes the prior of the lap that was selected, with the selection in its card."""

from typing import TYPE_CHECKING

from diem.diffusion.prior import read_prior
from diem.evaluation.metrics.prediction import Prediction
from diem.evaluation.selection import selected, selection_told
from diem.files.tables import read_csv
from diem.jobs.job import started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    table = read_csv(snakemake.input.table)
    chosen = selected(table, snakemake.wildcards.run)
    priors = {prior.card["lap"]: prior for prior in map(read_prior, snakemake.input.priors)}
    prior = priors[chosen["lap"]]
    prior.card["run"] = snakemake.wildcards.run  # the Gaussian is of several
    prior.card["chosen_by"] = {
        "metric": Prediction.name,
        "laps": sorted(priors),
        "table": snakemake.input.table,
        "told": selection_told(chosen),
    }
    prior.save(snakemake.output[0])
