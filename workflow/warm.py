"""Scripts of local jobs start as forks of one process that has imported what they import.

A job of the demo takes seconds, and three of them went into importing PyTorch, once a job. Python's
own fork server imports it once a run. A job is still a process of its own, ends by itself, and is
stopped by the same signals. Jobs of other executors, of software environments and of containers
start as Snakemake starts them.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from typing import Any

from snakemake.script import PythonScript

__all__ = ["fork_scripts", "run"]

# None of them may ask a GPU anything when it is imported: a fork could not use it afterwards.
PRELOADED = [
    "snakemake.cli",  # the main module, which a process looks into when it starts
    "diem.em.m_step",
    "diem.evaluation.evaluate",
    "matplotlib.pyplot",
]


def fork_scripts() -> None:
    """Makes this process's Snakemake fork the Python scripts of its jobs."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    started_anew = PythonScript.execute_script

    def execute_script(script: Any, fname: str, edit: bool = False) -> None:
        if script.conda_env or script.container_img or script.env_modules or script.bench_record:
            started_anew(script, fname, edit)
            return
        process = server.Process(target=run, args=(fname, script.resources.get("tmpdir")))
        process.start()
        process.join()
        if process.exitcode:
            raise subprocess.CalledProcessError(process.exitcode, fname)

    PythonScript.execute_script = execute_script


def run(fname: str, tmpdir: str | None) -> None:
    """Runs a script in a process of its own, with Snakemake's folder for temporary files."""
    if tmpdir:
        os.environ.update(TMPDIR=tmpdir, TMP=tmpdir, TEMPDIR=tmpdir, TEMP=tmpdir)
    sys.argv = [fname]
    runpy.run_path(fname, run_name="__main__")
