"""The machines of a job: the nodes of its allocation by Slurm, on one of which it runs."""

import os
import subprocess
from collections.abc import Sequence

from diem.errors import DiemError

__all__ = ["check_nodes", "on_other_nodes"]


def check_nodes(count: int) -> None:
    """Refuses to share work among machines that the job was not given.

    Arguments:
        count: The number of machines, this one included.

    Raises:
        DiemError: If there are several, and the job has no allocation of just so many nodes.
    """
    if count > 1 and (given := _allocated()) != count:
        raise DiemError(
            f"m_step.nodes is {count}, and this job has {given or 'no'} nodes of a Slurm"
            " allocation: run the workflow by workflow/profiles/slurm, or set it to 1."
        )


def _allocated() -> int:
    """Returns the nodes of the allocation that this process runs in, 0 without one."""
    number = os.environ.get("SLURM_JOB_ID")
    # Where an allocation was made from a machine that is none of its nodes, this is not set.
    if not number or "SLURMD_NODENAME" not in os.environ:
        return 0
    # Slurm's own variable of it does not reach the jobs of Snakemake.
    command = ["squeue", "--noheader", "--format=%D", f"--jobs={number}"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return int(told) if told.isdigit() else 0


def on_other_nodes(
    command: Sequence[str], nodes: int, threads: int, gpus: int, rank: str
) -> list[str]:
    """Returns a command by which another one runs once on each other node of the allocation.

    Arguments:
        command: The command.
        nodes: The nodes of the allocation, this one included.
        threads: The CPU threads that it takes on each.
        gpus: The GPUs that it takes on each.
        rank: The environment variable that tells it the number of its node; this one's is 0.
    """
    numbered = f'{rank}=$((SLURM_NODEID + 1)) exec "$@"'
    return [
        *("srun", f"--exclude={os.environ['SLURMD_NODENAME']}", "--overlap"),
        *(f"--nodes={nodes - 1}", f"--ntasks={nodes - 1}", "--ntasks-per-node=1"),
        *(f"--cpus-per-task={threads}", "--mem=0", "--kill-on-bad-exit=1"),
        f"--gres=gpu:{gpus}" if gpus else "--gres=none",
        *("sh", "-c", numbered, "sh", *command),
    ]
