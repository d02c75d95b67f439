"""Sets the settings that ran beside the paper's."""

from typing import TYPE_CHECKING

from diem import paper, tables
from diem.jobs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    table = paper.hyperparameters(snakemake.params.config, snakemake.params.paper)
    tables.write(snakemake.output, table, paper.hyperparameters_readable(table))
