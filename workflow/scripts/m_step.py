"""Trains the denoiser on a lap's samples, or on clean data for the ceiling."""

from typing import TYPE_CHECKING

from diem import training
from diem.jobs import job, progress, select_device

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    params, wildcards = snakemake.params, snakemake.wildcards
    with progress(snakemake.log[0], unit="step") as bar:
        training.m_step(
            snakemake.output.prior,
            snakemake.output.losses,
            settings=params.m_step,
            network=params.network,
            schedule=params.schedule,
            gaussian=params.gaussian,
            seed=params.seed,
            lap=int(wildcards.get("lap", 0)),
            device=select_device(snakemake.config["device"]),
            samples=snakemake.input.get("samples"),
            clean=snakemake.input.get("clean"),
            previous=snakemake.input.get("prior"),
            card={
                "experiment": wildcards.experiment,
                "run": wildcards.get("run", "ceiling"),
                **params.made,
            },
            checkpoint_seconds=snakemake.config["checkpoint_seconds"],
            progress=bar,
        )
