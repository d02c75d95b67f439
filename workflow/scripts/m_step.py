"""Trains the denoiser on a lap's samples, or on clean data for the ceiling."""

from dataclasses import replace
from typing import TYPE_CHECKING

from diem.em.laps import ceiling_training, lap_number
from diem.em.launch import launch
from diem.em.m_step import Lap, m_step
from diem.em.samples import count_of
from diem.jobs.devices import select_devices
from diem.jobs.job import progress, started
from diem.versions import of_code

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake) as job:
    params, wildcards, files = snakemake.params, snakemake.wildcards, snakemake.input
    config, log, outputs = snakemake.config, snakemake.log[0], snakemake.output
    training = params.m_step
    if "laps" in training:  # a ceiling, whose steps depend on the number of observations
        training = ceiling_training(training, count_of([files.clean], "train"))
    devices = select_devices(config["device"], training["processes"])
    samples = files.get("samples", [])
    subject = {
        "experiment": wildcards.get("experiment") or wildcards.comparison,
        "run": wildcards.get("run", "ceiling"),
    }
    lap = Lap(
        number=lap_number(wildcards.get("lap", "0")),
        samples=list(samples) or [files.clean],
        m_step=training,
        network=params.network,
        schedule=params.schedule,
        gaussian=params.gaussian,
        previous=files.get("prior"),
        card={**subject, **params.made, **of_code(params.code)},
        on_divergence=config["on_divergence"],
        checkpoint_seconds=config["checkpoint_seconds"],
    )
    if len(devices) > 1 or training["nodes"] > 1:
        launch(devices, log, lap, outputs.prior, outputs.losses, job, training["nodes"])
    else:
        with progress(log, unit="step") as bar:
            m_step(
                lap, outputs.prior, outputs.losses, replace(job, device=devices[0], progress=bar)
            )
