"""Downloads a file that the config gives no place of."""

from typing import TYPE_CHECKING

from diem.files.downloads import DOWNLOADS, download
from diem.jobs.job import progress, started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    source = DOWNLOADS[snakemake.wildcards.file]
    with progress(snakemake.log[0], unit="byte") as bar:
        download(source, snakemake.output[0], bar.update)
