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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

import torch
import torch.distributed as dist

from diem import signals
from diem.em.distributed import is_first
from diem.em.m_step import Lap, m_step
from diem.errors import DiemError
from diem.jobs.job import Job, progress
from diem.jobs.resume import Stopped

__all__ = ["launch"]

logger = logging.getLogger("diem")


def launch(
    devices: Sequence[torch.device], log: str, lap: Lap, output: str, losses: str, job: Job
) -> None:
    """Runs :func:`diem.em.m_step.m_step` in several processes on this machine, by torchrun.

    Arguments:
        devices: The device of each process.
        log: The job's log, to which they write.
        lap: What is trained, and on what; it travels as JSON.
        output: The prior to write.
        losses: The loss curve to write.
        job: The job, of which the processes are given the seed and the bound of memory.

    Raises:
        DiemError: What the first process raised.
    """
    with tempfile.TemporaryDirectory() as folder:
        call = Path(folder) / "call.json"
        refusal = Path(folder) / "error.txt"
        threads = torch.get_num_threads()
        settings = {
            "lap": asdict(lap),
            "files": [output, losses],
            "job": {"seed": job.seed, "cache_mb": job.cache_mb},
            "device": devices[0].type,
            "log": log,
            "error": str(refusal),
            "threads": threads,
        }
        call.write_text(json.dumps(settings, default=str), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--signals-to-handle", "SIGINT"),
            # The static rendezvous: the other one unpickles what comes in at its port.
            *("--nnodes", "1", "--master-addr", "127.0.0.1", "--master-port", str(_free_port())),
            *("--nproc-per-node", str(len(devices)), "--module", "diem.em.launch", str(call)),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        package = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [package, os.environ.get("PYTHONPATH")])
        )
        if devices[0].type == "cuda":
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = seen.split(",") if seen else [str(i) for i in range(torch.cuda.device_count())]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(names[d.index] for d in devices)
        with (
            Path(log).open("a", encoding="utf-8") as stream,
            _running(command, environment, stream) as process,
        ):
            code = process.wait()
        if refusal.is_file():
            raise DiemError(refusal.read_text(encoding="utf-8"))
        if code != 0:
            raise RuntimeError(f"torchrun ended with code {code}, see {log}")


@contextlib.contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], stream: IO[str]
) -> Iterator[subprocess.Popen]:
    """Runs torchrun, and has its processes stop and save if the block is left before it ended.

    Of two signals, torchrun would leave its processes behind at the second. A scheduler may send
    SIGTERM to it or not: it is passed on from here, as SIGINT, and SIGTERM is ignored there.
    """
    with signals.handled(signal.SIG_IGN, signal.SIGTERM):  # which a new process inherits
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
            process.send_signal(signal.SIGINT)
            process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
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
        if is_first():
            Path(call["error"]).write_text(str(error), encoding="utf-8")
        sys.exit(1)
    except Stopped:
        sys.exit(128 + signal.SIGTERM)
    finally:
        dist.destroy_process_group()


def _end_with_the_job() -> None:
    """Ends this process if the job was killed, which holds the other end of its standard input."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    _main(sys.argv[1])
