"""Trains the denoiser on a lap's samples, or on clean data for the ceiling."""

from typing import TYPE_CHECKING

from diem.em import distributed as parallel
from diem.em import m_step as training
from diem.jobs import results as folders
from diem.jobs.devices import select_devices
from diem.jobs.job import job, progress

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    params, wildcards, files = snakemake.params, snakemake.wildcards, snakemake.input
    devices = select_devices(snakemake.config["device"], params.m_step["processes"])
    folders.remove_pieces(*files.get("samples", []))
    arguments = {
        "output": snakemake.output.prior,
        "losses": snakemake.output.losses,
        "settings": params.m_step,
        "network": params.network,
        "schedule": params.schedule,
        "gaussian": params.gaussian,
        "seed": params.seed,
        "lap": int(wildcards.get("lap", 0)),
        "samples": files.get("samples"),
        "clean": files.get("clean"),
        "previous": files.get("prior"),
        "card": {
            "experiment": wildcards.get("experiment") or wildcards.comparison,
            "run": wildcards.get("run", "ceiling"),
            **params.made,
        },
        "checkpoint_seconds": snakemake.config["checkpoint_seconds"],
        "on_divergence": snakemake.config["on_divergence"],
        "cache_mb": snakemake.config["cache_mb"],
    }
    if len(devices) > 1:
        parallel.launch(devices, snakemake.log[0], arguments)
    else:
        with progress(snakemake.log[0], unit="step") as bar:
            training.m_step(**arguments, device=devices[0], progress=bar)
