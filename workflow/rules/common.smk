import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

WORKFLOW = Path(workflow.current_basedir.join("..").get_path_or_uri(secret_free=True)).resolve()
PUBLISHED = WORKFLOW / "published"
# The library is found where it lies: by the rules here, and by the jobs through their environment.
sys.path.insert(0, str(WORKFLOW))
SEARCH_PATH = os.pathsep.join([str(WORKFLOW), os.environ.get("PYTHONPATH", "")])
# A user's component is looked for beside the configuration too.
os.environ["DIEM_PATH"] = os.pathsep.join(
    dict.fromkeys(str(Path(file).resolve().parent) for file in workflow.configfiles)
)

from diem.config.inputs import Inputs
from diem.config.resolve import resolve
from diem.config.targets import posterior_targets, targets
from diem.errors import DiemError
from diem.jobs.results import check_writable, hold, remove_all_pieces

try:
    CONFIG = resolve(
        config, ", ".join(str(file) for file in workflow.configfiles) or "the configuration"
    )
    config.update(CONFIG)  # the scripts' defaults
    RESULTS = CONFIG["results"]
    check_writable(RESULTS)
except DiemError as error:
    raise WorkflowError(str(error)) from None

IN = Inputs(CONFIG)
PATHS = IN.paths
SEED = CONFIG["seed"]
SHARDS = CONFIG["shards"]

THREADS = str(CONFIG["threads"])
os.environ.update(
    PYTHONPATH=SEARCH_PATH.rstrip(os.pathsep),
    # Sums are ordered by the number of threads: it is the config's in every library of every job.
    OMP_NUM_THREADS=THREADS,
    MKL_NUM_THREADS=THREADS,
    OPENBLAS_NUM_THREADS=THREADS,
)


def names(found):
    """Returns the pattern of some names; no name matches where there is none."""
    return "|".join(found) or "(?!)"


wildcard_constraints:
    experiment=names(CONFIG["experiments"]),
    heuristics=names(CONFIG["heuristics"]),
    comparison=names(CONFIG["restoration"]),
    posterior=names(CONFIG["posterior"]),
    observations=r"[A-Za-z0-9][A-Za-z0-9_-]*",
    run=r"[A-Za-z0-9][A-Za-z0-9_-]*",
    lap=r"\d{2,3}",
    stage="floor|ceiling",


onstart:
    try:
        LOCK = hold(RESULTS)
    except DiemError as error:
        raise WorkflowError(str(error)) from None
