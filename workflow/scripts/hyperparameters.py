"""Sets the settings that ran beside the paper's."""

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from diem.config.resolve import resolve
from diem.jobs.job import started
from diem.paper.hyperparameters import (
    readable_settings,
    settings_of_the_paper,
    settings_side_by_side,
)
from diem.report.tables.writing import write_table

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    files = snakemake.input
    text = Path(files.paper).read_text(encoding="utf-8")
    papers = resolve(yaml.safe_load(text), files.paper)
    published = settings_of_the_paper(files.published)
    table = settings_side_by_side(snakemake.params.config, papers, published)
    write_table(snakemake.output, table, readable_settings(table))
