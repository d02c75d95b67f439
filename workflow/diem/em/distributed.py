r"""Data-parallel training: several processes, each with its part of every batch.

Each process holds all weights and draws the whole batch's times and noise, of which it takes its
part; the gradients of the parts are added with the parts' shares, so that their sum is the whole
batch's gradient, and every process takes the same step. Without other processes nothing is changed.
"""

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist
from torch import Tensor

from diem import signals
from diem.errors import DiemError
from diem.jobs import resume

__all__ = ["add", "is_first", "launch", "part", "rank"]

logger = logging.getLogger("diem")


def _size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Returns the place of this process among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Tells whether this is the process that writes files."""
    return rank() == 0


def part(count: int) -> tuple[slice, float]:
    """Returns the rows of a batch that this process takes, and their share of the batch."""
    first, last = (count * (rank() + i) // _size() for i in (0, 1))
    return slice(first, last), (last - first) / count


def add(tensors: Iterable[Tensor]) -> None:
    """Replaces tensors by their sums over all processes, which are the same bits in each."""
    if _size() == 1:
        return
    tensors = list(tensors)
    flat = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    for t, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        t.copy_(total.view_as(t))


def launch(devices: Sequence[torch.device], log: str, arguments: Mapping[str, Any]) -> None:
    """Runs :func:`diem.em.m_step.m_step` in several processes on this machine, by torchrun.

    Arguments:
        devices: The device of each process.
        log: The job's log, to which they write.
        arguments: The keyword arguments of the function, except for the device and the progress;
            they travel as JSON.

    Raises:
        DiemError: What the first process raised.
    """
    with tempfile.TemporaryDirectory() as folder:
        call = Path(folder) / "call.json"
        told = Path(folder) / "error.txt"
        threads = torch.get_num_threads()
        shared = {"device": devices[0].type, "log": log, "error": str(told), "threads": threads}
        call.write_text(json.dumps({**shared, "arguments": arguments}), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--signals-to-handle", "SIGINT"),
            # The static rendezvous: the other one unpickles what comes in at its port.
            *("--nnodes", "1", "--master-addr", "127.0.0.1", "--master-port", str(_free_port())),
            *("--nproc-per-node", str(len(devices)), "--module", "diem.em.distributed", str(call)),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        package = str(Path(__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [package, os.environ.get("PYTHONPATH")])
        )
        if devices[0].type == "cuda":
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = seen.split(",") if seen else [str(i) for i in range(torch.cuda.device_count())]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(names[d.index] for d in devices)
        with (
            Path(log).open("a", encoding="utf-8") as output,
            _running(command, environment, output) as process,
        ):
            code = process.wait()
        if told.is_file():
            raise DiemError(told.read_text(encoding="utf-8"))
        if code != 0:
            raise RuntimeError(f"torchrun ended with code {code}, see {log}")


@contextlib.contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], output: IO[str]
) -> Iterator[subprocess.Popen]:
    """Runs torchrun, and has its processes stop and save if the block is left before it ended.

    Of two signals, torchrun would leave its processes behind at the second. A scheduler may send
    SIGTERM to it or not: it is passed on from here, as SIGINT, and SIGTERM is ignored there.
    """
    options = {"stdin": subprocess.PIPE, "stdout": output, "stderr": output}
    with signals.handled(signal.SIG_IGN, signal.SIGTERM):  # which a new process inherits
        process = subprocess.Popen(command, env=environment, start_new_session=True, **options)
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
    from diem.em import m_step as training
    from diem.jobs.job import progress

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
            bar = stack.enter_context(progress(call["log"], unit="step")) if is_first() else None
            training.m_step(**call["arguments"], device=device, progress=bar)
    except DiemError as error:
        if is_first():
            Path(call["error"]).write_text(str(error), encoding="utf-8")
        sys.exit(1)
    except resume.Stopped:
        sys.exit(128 + signal.SIGTERM)
    finally:
        dist.destroy_process_group()


def _end_with_the_job() -> None:
    """Ends this process if the job was killed, which holds the other end of its standard input."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    _main(sys.argv[1])
