"""Generates or loads clean data and writes them, split by split."""

from typing import TYPE_CHECKING

from diem.data.sets import DATASETS
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake) as job:
    params, wildcards = snakemake.params, snakemake.wildcards
    downloaded = {key: str(path) for key, path in snakemake.input.items()}
    splits = DATASETS.parse({**params.data, **downloaded}).loaded(job.seed)
    arrays = {}
    for name, split in splits.items():
        arrays[f"{name}/x"] = split.x
        if split.label is not None:
            arrays[f"{name}/label"] = split.label
        if split.groups is not None:
            arrays[f"{name}/groups"] = split.groups
    name = wildcards.get("experiment") or wildcards.comparison
    attributes = {"experiment": name, "seed": job.seed}
    write_hdf5(snakemake.output[0], arrays, attributes)
