"""Which laps are evaluated, how each starts, samples and trains; ceilings that train as long."""

from collections.abc import Mapping, Sequence
from typing import Any

from diem.em.blocks import whole_blocks
from diem.replicates import all_entries

__all__ = [
    "FINAL",
    "OF_LAPS",
    "SHARDS",
    "ceiling_labels",
    "ceiling_of",
    "ceiling_settings",
    "ceiling_training",
    "ceilings",
    "evaluated_laps",
    "is_final",
    "lap_name",
    "lap_number",
    "optimizer_steps",
    "repeats_of_lap",
    "restart_level",
    "sampled",
    "sampling_of_lap",
    "training_of_lap",
    "with_batch",
    "without_batch",
]


def evaluated_laps(experiment: Mapping[str, Any], run: str) -> list[int]:
    """Returns the laps of a run that are evaluated: those asked for, and the last one."""
    laps = experiment["runs"][run]["laps"]
    return sorted({lap for lap in experiment["evaluation"]["laps"] if lap < laps} | {laps})


FINAL = "_final"
"""How the name of a lap ends that is done as the last one, where that differs from the others."""

SHARDS = "shards"
"""The name of a job's inputs that are parts of one file, however many."""


def lap_name(run: Mapping[str, Any], lap: int) -> str:
    """Returns what the folder of a run's lap is called, without ``lap_``.

    A last lap that is done otherwise than the others has a folder of its own, so that a run to
    which laps are added needs that lap as one of the others, and nothing before it anew.

    Arguments:
        run: The resolved run.
        lap: The lap, from 1.
    """
    m_step, e_step = run["m_step"], run["e_step"]
    differs = (
        m_step["final"] != 1
        or m_step["final_decay"]
        or e_step["final"] != 1
        or e_step["sampler"].get("spread") == "last"
    )
    return f"{lap:02d}{FINAL if differs and lap == run['laps'] else ''}"


def lap_number(name: str) -> int:
    """Returns the number of the lap of a name of :func:`lap_name`."""
    return int(name.removesuffix(FINAL))


def is_final(name: str) -> bool:
    """Returns whether a name of :func:`lap_name` is of a lap that is done as the last one."""
    return name.endswith(FINAL)


def repeats_of_lap(entry: Mapping[str, Any], final: bool) -> dict[str, Any]:
    """Returns an ``e_step`` entry whose ``repeats`` are those of one lap, without ``final``."""
    entry = dict(entry)
    times = entry.pop("final")
    if final:
        entry["repeats"] *= times
    return entry


HALVED = 2
"""The level of a restart is halved in so many laps."""


def restart_level(restart: Sequence[float] | None, lap: int) -> float | None:
    """Returns the noise level from which a lap restarts the previous lap's samples.

    The third lap is the first that restarts, since the second lap's chains would start from samples
    of the Gaussian. From there the level is halved in every :data:`HALVED` laps, from the first
    number of ``restart`` to the second. It depends on the lap alone, and not on how many follow, so
    that laps can be added.

    Arguments:
        restart: The first and the last level, or none for laps that start from noise.
        lap: The lap, from 1.
    """
    if restart is None or lap < 3:
        return None
    first, last = restart
    return max(first * 2 ** ((3 - lap) / HALVED), last)


OF_LAPS = ("repeats", "final", "storage", "drop_last", "restart", "restart_residual")
"""The keys of ``e_step`` that tell what a lap draws and keeps, and nothing of other posteriors."""


def sampling_of_lap(entry: Mapping[str, Any], final: bool) -> dict[str, Any]:
    """Returns an ``e_step`` entry with the spread and the number of samples of one lap.

    They take the place of a ``spread`` that is ``last``, and of ``final``.

    Arguments:
        entry: The config's ``e_step`` entry.
        final: Whether the lap is done as the last one.
    """
    entry, sampler = repeats_of_lap(entry, final), dict(entry["sampler"])
    if sampler.get("spread") == "last":
        sampler["spread"] = "all" if final else "none"
    return {**entry, "sampler": sampler}


def without_batch(e_step: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a job's numbers depend on of an ``e_step`` entry, which is a job's parameter.

    How many observations are evaluated at once is what memory asks for, and may change.
    """
    return {key: value for key, value in e_step.items() if key != "batch"}


def with_batch(
    e_step: Mapping[str, Any], config: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the ``e_step`` entry of a job's parameter with the batch of the configuration.

    Arguments:
        e_step: The entry of :func:`without_batch`.
        config: The configuration.
        names: The job's wildcards: ``experiment``, and ``run`` where it is of one.
    """
    entry = all_entries(config, "experiments")[names["experiment"]]
    asked = entry["runs"][names["run"]]["e_step"] if "run" in names else entry["e_step"]
    return {**e_step, "batch": asked["batch"]}


def sampled(e_step: Mapping[str, Any], observed: int) -> int:
    """Returns how many samples an E-step draws of the observations of a split.

    Arguments:
        e_step: The config's ``e_step`` entry: ``repeats``, ``drop_last`` and ``block``.
        observed: The number of observations of the split.
    """
    if e_step["drop_last"]:
        observed = whole_blocks({"": observed}, e_step["block"])[""]
    return e_step["repeats"] * observed


def optimizer_steps(m_step: Mapping[str, Any], samples: int) -> int:
    """Returns the optimizer steps of a training.

    Arguments:
        m_step: The config's ``m_step`` entry; its ``epochs`` take the place of ``steps``.
        samples: How many samples were drawn to train on, with those that are dropped.
    """
    if m_step["epochs"] is None:
        return m_step["steps"]
    return max(1, m_step["epochs"] * samples // m_step["batch"])


def training_of_lap(entry: Mapping[str, Any], lap: int, is_last: bool) -> dict[str, Any]:
    """Returns an ``m_step`` entry with the length, the rates and the bound of one lap.

    They take the place of ``first``, ``final``, ``final_decay`` and ``drop_from``.

    Arguments:
        entry: The config's ``m_step`` entry.
        lap: The lap, from 1.
        is_last: Whether it is done as the last one.
    """
    entry = dict(entry)
    first, final, decay = (entry.pop(key) for key in ("first", "final", "final_decay"))
    times = final if is_last else first if lap == 1 else 1
    entry["steps"] *= times
    entry["epochs"] = entry["epochs"] and times * entry["epochs"]
    if is_last and decay:
        entry["learning_rate_final"] = 0.0
    if lap < entry.pop("drop_from"):
        entry["drop_outside"] = None
    return entry


def ceiling_settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all that the training of a run's ceiling depends on, beside network and data.

    Runs of which it is the same have one ceiling.

    Arguments:
        run: The resolved run.

    Returns:
        The ``m_step`` entry of the last lap, whose rates span the whole training, with the
        ``steps`` of all laps. Where laps are told in epochs, ``laps`` holds what their steps are
        counted by: the ``epochs`` of each, and an ``e_step`` that tells how many samples an epoch
        has. That of the last lap, which may draw more, counts as several.
    """
    names = [lap_name(run, n) for n in range(1, run["laps"] + 1)]
    laps = [training_of_lap(run["m_step"], n, is_final(name)) for n, name in enumerate(names, 1)]
    last = laps[-1]
    last.pop("warm_start")  # it starts from fresh weights
    if last["epochs"] is None:
        return {**last, "steps": sum(lap["steps"] for lap in laps)}
    epochs = [lap["epochs"] for lap in laps]
    if is_final(names[-1]):
        epochs[-1] *= run["e_step"]["final"]
    e_step = {key: run["e_step"][key] for key in ("repeats", "drop_last")}
    # Without drop_last the size of blocks is of no weight.
    e_step["block"] = run["e_step"]["block"] if e_step["drop_last"] else None
    return {**last, "laps": {"epochs": epochs, "e_step": e_step}}


def ceiling_training(settings: Mapping[str, Any], observed: int) -> dict[str, Any]:
    """Returns the ``m_step`` entry of a ceiling: with the optimizer steps of all laps together.

    Arguments:
        settings: What :func:`ceiling_settings` returns.
        observed: The number of training observations, which is that of clean training samples.
    """
    entry = dict(settings)
    if laps := entry.pop("laps", None):
        samples = sampled(laps["e_step"], observed)
        steps = [optimizer_steps({**entry, "epochs": n}, samples) for n in laps["epochs"]]
        entry |= {"epochs": None, "steps": sum(steps)}
    return entry


def ceiling_of(experiment: Mapping[str, Any], run: str) -> str:
    """Returns the run that a run's ceiling is named after: the first that has the same one."""
    runs = experiment["runs"]
    wanted = ceiling_settings(runs[run])
    return next(name for name in runs if ceiling_settings(runs[name]) == wanted)


def ceilings(experiment: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Returns the ceilings beside each set of observations.

    Returns:
        By the set's name and by the run that a ceiling is named after, the runs that it is the
        ceiling of and that learn from this set.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name, run in experiment["runs"].items():
        of_set = found.setdefault(run["observations"], {})
        of_set.setdefault(ceiling_of(experiment, name), []).append(name)
    return found


def ceiling_labels(experiment: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Returns what the ceilings of :func:`ceilings` are called.

    A ceiling beside others tells the labels of its runs, or their names where labels are alike.
    """
    labels = {name: run["label"] for name, run in experiment["runs"].items()}
    found = {}
    for observations, of_set in ceilings(experiment).items():
        told = {
            name: ", ".join(dict.fromkeys(labels[run] for run in runs))
            for name, runs in of_set.items()
        }
        if len({*told.values()}) < len(told):
            told = {name: ", ".join(runs) for name, runs in of_set.items()}
        found[observations] = {
            name: f"ceiling of {told[name]}" if len(told) > 1 else "ceiling" for name in told
        }
    return found
