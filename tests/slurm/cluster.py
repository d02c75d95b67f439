"""A real Slurm on this machine: two nodes for CPUs and two with a GPU that is none."""

import fcntl
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
INSTALL = "apt-get install slurmctld slurmd slurm-client munge"
CONFIGURATION = Path("/etc/slurm")
OURS = "# Written by the tests of diem, and removed by them."

# A machine has one Slurm: the tests of another checkout wait.
LOCK = Path("/run/lock/diem-slurm")

# munge refuses what others could write to; these are the packages' own places.
SOCKET = Path("/run/munge")

CLUSTER = """{ours}
ClusterName=diem
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=600
KillWait=5
GresTypes=gpu
SchedulerParameters=sched_interval=1,sched_min_interval=0
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
{nodes}
PartitionName=cpu Nodes=cpu1,cpu2 Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=gpu1,gpu2 MaxTime=INFINITE State=UP
"""
NODES = ("cpu1", "cpu2", "gpu1", "gpu2")


def missing() -> str | None:
    """Returns why no Slurm can be started here, or None."""
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"needs {', '.join(lacking)}: {INSTALL}"
    if os.geteuid() != 0:
        return "needs root, to start munge and Slurm's daemons"
    for name in ("slurm.conf", "gres.conf"):
        path = CONFIGURATION / name
        if path.exists() and not path.read_text(encoding="utf-8").startswith(OURS):
            return f"needs a machine without a Slurm of its own, and there is {path}"
    return None


class Slurm:
    """A Slurm that runs while it is a context.

    Arguments:
        folder: Where it keeps its state and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: list[subprocess.Popen] = []

    def __enter__(self) -> "Slurm":
        self.lock = LOCK.open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        ports = _free_ports(1 + len(NODES))
        host = socket.gethostname()
        gpus = {name: " Gres=gpu:1" for name in NODES if name.startswith("gpu")}
        nodes = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4"
            f" RealMemory=64000{gpus.get(name, '')} State=UNKNOWN"
            for name, port in zip(NODES, ports[1:], strict=True)
        ]
        (self.folder / "state").mkdir()
        CONFIGURATION.mkdir(exist_ok=True)
        text = CLUSTER.format(
            ours=OURS, host=host, port=ports[0], folder=self.folder, nodes="\n".join(nodes)
        )
        (CONFIGURATION / "slurm.conf").write_text(text, encoding="utf-8")
        gres = [f"NodeName={name} Name=gpu Count=1 File=/dev/null" for name in gpus]
        (CONFIGURATION / "gres.conf").write_text("\n".join([OURS, *gres, ""]), encoding="utf-8")
        try:
            if not (SOCKET / "munge.socket.2").exists() or not _answers("munge", "-n"):
                self._start_munge()
            self._start("slurmctld", "-D", "-c")
            for name in NODES:
                self._start("slurmd", "-D", "-N", name)
            self._wait_until_idle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_munge(self) -> None:
        SOCKET.mkdir(exist_ok=True)
        shutil.chown(SOCKET, "munge", "munge")
        SOCKET.chmod(0o755)
        self._start("munged", "--foreground", user="munge", group="munge", extra_groups=[])
        _wait(lambda: _answers("munge", "-n"), "munge", self.folder / "daemons.txt")

    def _start(self, *command: str, **who) -> None:
        with (self.folder / "daemons.txt").open("a") as log:
            self.daemons.append(subprocess.Popen(command, stdout=log, stderr=log, **who))

    def _wait_until_idle(self) -> None:
        def idle() -> bool:
            return self.ask("sinfo", "--noheader", "--Node", "--format=%t").split() == [
                "idle"
            ] * len(NODES)

        _wait(idle, "Slurm's nodes", self.folder / "daemons.txt")

    def ask(self, *command: str) -> str:
        """Returns what a command of Slurm tells."""
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def jobs(self) -> list[dict[str, str]]:
        """Returns the jobs that are running or waiting: id, name, state, comment, partition."""
        keys = ("id", "name", "state", "comment", "partition")
        lines = self.ask("squeue", "--noheader", "--format=%i|%j|%T|%k|%P").splitlines()
        return [dict(zip(keys, line.split("|"), strict=True)) for line in lines]

    def memory(self, job: str) -> int:
        """Returns the memory that a job asked for, in MB."""
        value = self.ask("squeue", "--noheader", "--format=%m", f"--jobs={job}").strip()
        return int(value.removesuffix("M"))

    def __exit__(self, *_: object) -> None:
        if len(self.daemons) > 1:
            self.ask("scancel", "--user=root")
            time.sleep(1)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for name in ("slurm.conf", "gres.conf"):
            (CONFIGURATION / name).unlink(missing_ok=True)
        self.lock.close()


def _answers(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _wait(there, what: str, log: Path | None = None) -> None:
    deadline = time.monotonic() + 30
    while not there():
        told = log.read_text() if log else ""
        assert time.monotonic() < deadline, f"{what} did not start. {told}"
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
