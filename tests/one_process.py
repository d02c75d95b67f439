"""Makes results of the workflow in forks of one process that has imported everything already.

Jobs of Snakemake spend seconds on imports. Here a server imports the libraries once, and each
request to make results is answered by a fork of it, so that nothing that one leaves behind reaches
another.
"""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path

WORKFLOW = Path(__file__).parents[1] / "workflow"


def make(folder: Path, configfile: Path, targets: tuple[str, ...]) -> tuple[int, str]:
    """Makes results in a folder, and returns the exit status and all that was printed."""
    server, log = _server(), folder / "printed.txt"
    request = {
        "folder": str(folder),
        "configfile": str(configfile),
        "targets": targets,
        "log": str(log),
        "environment": dict(os.environ),
    }
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    assert answer, "the server of tests/one_process.py has ended"
    return int(answer), log.read_text(encoding="utf-8")


@cache
def _server() -> subprocess.Popen:
    # It ends with its input, when this process does.
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _serve() -> None:
    sys.path.insert(0, str(WORKFLOW))
    import torchvision_operators

    torchvision_operators.declare_when_needed()
    import diem

    for module in pkgutil.walk_packages(diem.__path__, "diem."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("debug", "sklearn.datasets", "scipy.linalg", "matplotlib.backends.backend_agg"):
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_answer(json.loads(line)))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _answer(request: dict) -> int:
    """Makes what a request asks for, in the fork, and returns the exit status."""
    import debug

    os.environ.clear()
    os.environ.update(request["environment"])
    with open(os.devnull) as nothing, open(request["log"], "w") as log:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        folder, configfile = Path(request["folder"]), Path(request["configfile"])
        for job in debug.jobs(debug.SNAKEFILE, configfile, folder, request["targets"]):
            debug.run(job)
        return 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    _serve()
