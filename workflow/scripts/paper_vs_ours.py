"""Sets every published number beside ours."""

from typing import TYPE_CHECKING

import pandas as pd

from diem.evaluation.rows import over_seeds, read_rows
from diem.files.tables import read_csv
from diem.jobs.job import started
from diem.paper.hyperparameters import differences
from diem.paper.paper_vs_ours import paper_vs_ours, published_numbers, readable_numbers
from diem.report.tables.writing import write_table

if TYPE_CHECKING:
    from snakemake.script import snakemake


def read(names: list[str], paths: list[str]) -> dict[str, pd.DataFrame]:
    return {
        name: read_csv(path, dtype={"iterations": str}).fillna({"iterations": ""})
        for name, path in zip(names, paths, strict=True)
    }


with started(snakemake):
    files, params = snakemake.input, snakemake.params
    settings = read_csv(files.hyperparameters, dtype=str, keep_default_na=False)
    table = paper_vs_ours(
        published_numbers(params.published),
        differences(settings),
        read(params.heuristics, files.get("heuristics", [])),
        {
            name: (over_seeds(read_rows([path])), runs)
            for (name, runs), path in zip(
                params.images.items(), files.get("images", []), strict=True
            )
        },
        read(params.restoration, files.get("restoration", [])),
    )
    write_table(snakemake.output, table, readable_numbers(table))
