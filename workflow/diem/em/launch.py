"""Starts an M-step in several processes, and ends them with the job."""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

import torch
import torch.distributed as dist

from diem import signals
from diem.em.distributed import is_first, rank
from diem.em.m_step import Lap, m_step
from diem.errors import DiemError
from diem.files.atomic import atomic
from diem.jobs.job import Job, progress
from diem.jobs.nodes import check_nodes, on_other_nodes
from diem.jobs.results import unfinished
from diem.jobs.resume import Stopped

__all__ = ["launch"]

logger = logging.getLogger("diem")

POLL = 0.1
"""Seconds between two looks at whether processes have ended."""


def launch(
    devices: Sequence[torch.device],
    log: str,
    lap: Lap,
    output: str,
    losses: str,
    job: Job,
    nodes: int = 1,
) -> None:
    """Runs :func:`diem.em.m_step.m_step` in several processes by torchrun, on one or more machines.

    Arguments:
        devices: The device of each process of this machine; others have as many.
        log: The job's log, to which they write.
        lap: What is trained, and on what; it travels as JSON.
        output: The prior to write.
        losses: The loss curve to write.
        job: The job, of which the processes are given the seed and the bound of memory.
        nodes: The machines, which are those of the job's Slurm allocation.

    Raises:
        DiemError: What a process raised, or if the job was not given so many machines.
        Stopped: If processes were asked to stop, and this one was not.
    """
    check_nodes(nodes)
    where = None
    if nodes > 1:
        where = unfinished(output)  # other machines see it
        where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=where) as folder:
        call = Path(folder) / "call.json"
        settings = {
            "lap": asdict(lap),
            "files": [output, losses],
            "job": {"seed": job.seed, "cache_mb": job.cache_mb},
            "device": devices[0].type,
            "log": log,
            "threads": torch.get_num_threads(),
        }
        call.write_text(json.dumps(settings, default=str), encoding="utf-8")
        code = _run(devices, nodes, call, log)
        for refusal in Path(folder).glob("*.error"):
            raise DiemError(refusal.read_text(encoding="utf-8"))
        if any(Path(folder).glob("*.stopped")):
            raise Stopped
        if code != 0:
            raise RuntimeError(f"torchrun ended with code {code}, see {log}")


def _run(devices: Sequence[torch.device], nodes: int, call: Path, log: str) -> int:
    """Runs torchrun on all machines, and returns its code: the first that is not 0, if one is."""
    here = "127.0.0.1" if nodes == 1 else socket.gethostname()
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--signals-to-handle", "SIGINT"),
        # The static rendezvous: the other one unpickles what comes in at its port.
        *("--nnodes", str(nodes), "--master-addr", here, "--master-port", str(_free_port())),
        *("--nproc-per-node", str(len(devices)), "--module", "diem.em.launch", str(call)),
    ]
    threads, environment = torch.get_num_threads(), {**os.environ}
    package = str(Path(__file__).parents[2])
    path = filter(None, [package, os.environ.get("PYTHONPATH")])
    environment |= {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(path)}
    gpus = len(devices) if devices[0].type == "cuda" else 0
    with Path(log).open("a", encoding="utf-8") as stream, contextlib.ExitStack() as stack:
        processes = []
        if nodes > 1:
            size = len(devices) * threads
            others = on_other_nodes(command, nodes, size, gpus, "PET_NODE_RANK")
            ended = _running(others, environment, stream, signal.SIGTERM)
            processes.append(stack.enter_context(ended))
        if gpus:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = seen.split(",") if seen else [str(i) for i in range(torch.cuda.device_count())]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(names[d.index] for d in devices)
        # It is asked to stop before the others are ended, and all of them keep what is finished.
        ended = _running(command, environment, stream, signal.SIGINT)
        processes.append(stack.enter_context(ended))
        return _code(processes)


def _code(processes: Sequence[subprocess.Popen]) -> int:
    """Waits until all processes have ended well, or one has not, and returns its code."""
    while True:
        codes = [process.poll() for process in processes]
        failed = [code for code in codes if code]
        if failed or None not in codes:
            return failed[0] if failed else 0
        time.sleep(POLL)


@contextlib.contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], stream: IO[str], end: signal.Signals
) -> Iterator[subprocess.Popen]:
    """Runs torchrun, or srun, and ends it if the block is left before it has ended.

    Of two signals, torchrun would leave its processes behind at the second. A scheduler may send
    SIGTERM to it or not: it is passed on from here, as SIGINT, by which processes stop and save,
    and SIGTERM is ignored there. At SIGTERM, srun kills what it runs.
    """
    # Which a new process inherits; srun handles it itself.
    with signals.handled(signal.SIG_IGN, signal.SIGTERM):
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(end)
            process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]


def _main(path: str) -> None:
    """What each process runs."""
    threading.Thread(target=_end_with_the_job, daemon=True).start()
    call = json.loads(Path(path).read_text(encoding="utf-8"))
    device = torch.device(call["device"])
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.set_num_threads(call["threads"])
    if int(os.environ["RANK"]) == 0:
        logging.basicConfig(format="%(asctime)s %(message)s")
        logger.setLevel(logging.INFO)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        with contextlib.ExitStack() as stack:
            job = Job(device=device, **call["job"])
            if is_first():
                bar = stack.enter_context(progress(call["log"], unit="step"))
                job = replace(job, progress=bar)
            output, losses = call["files"]
            m_step(Lap(**call["lap"]), output, losses, job)
    except DiemError as error:
        # Whichever ends first tells it: the others are ended then.
        with atomic(Path(path).with_name(f"{rank()}.error")) as temporary:
            temporary.write_text(str(error), encoding="utf-8")
        sys.exit(1)
    except Stopped:
        Path(path).with_name(f"{rank()}.stopped").touch()
        sys.exit(128 + signal.SIGTERM)
    finally:
        dist.destroy_process_group()


def _end_with_the_job() -> None:
    """Ends this process if the job was killed, which holds the other end of its standard input."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    _main(sys.argv[1])
