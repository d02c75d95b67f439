"""The configuration: validation with errors that name the key, defaults, and merged runs.

It is checked against ``workflow/schemas/config.schema.yaml``. An experiment holds settings that
all of its runs share; a run names its observations and overrides what differs.
"""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import yaml

from diem.data.sets import DATASETS
from diem.errors import DiemError, nearest
from diem.operators.base import OPERATORS

__all__ = [
    "HSV",
    "Pair",
    "ceiling_training",
    "evaluated_laps",
    "merge",
    "pairs",
    "posterior_settings",
    "resolve",
    "training_of_lap",
]


RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "fast": {
        "e_step": {
            "sampler": {"name": "ddpm", "steps": 8, "spacing": "karras"},
            "limit": 1.5,
            "restart": [4.0, 0.5],
            "restart_residual": 5.0,
        },
        "m_step": {"ema": 0.999, "ema_warmup": True, "final": 3, "final_decay": True},
    },
}
"""What an experiment's ``recipe`` says where the experiment itself says nothing.

The schema's defaults are the paper's. Each part of the fast recipe is explained in
``config/README.md``, and ``benchmarks/recipe.md`` has what they buy.
"""

RANK = 64
"""The paper's rank of the Gaussian, which is the default unless the data are smaller."""

PARTS = ("experiments", "heuristics", "restoration", "posterior")
"""The parts of a configuration, of which at least one is not empty."""

COLOUR = {"cifar10", "photographs", "images"}
"""The data that are colour images."""

IMAGES = {"digits", "phantoms", "fastmri", *COLOUR}
"""The data that are images."""

OWN = "hdf5"
"""The data that are a user's own observations, of which nothing clean is known."""

OWN_METRICS = ["residual", "observation_distance", "prediction"]
"""The metrics that need no clean data; the default of the user's own observations."""

FOLDERS = {"downloads", "figures", "heuristics", "logs", "posterior", "restoration", "tables"}
"""The folders beside those of the experiments, in the folder of the results."""

TABLES = ("", "_rows", "_published", "_chosen_lap", "_reconstructions", "_reconstructions_rows")
"""How the names of an experiment's tables end."""

SHAPING = ("sampler", "covariance", "iterations", "limit")
"""The keys of ``posterior`` that are as in ``e_step``."""

HSV = {"hue", "saturation"}
"""The changes of training images that need colour."""


def resolve(config: Mapping[str, Any], schema: str | Path, source: str) -> dict[str, Any]:
    """Checks a configuration and returns it with every default and every run filled in.

    Arguments:
        config: The configuration as read.
        schema: The JSON schema's file.
        source: The name of the configuration's file, for errors.

    Returns:
        The configuration. Each ``experiments.*.runs.*`` holds the settings of its own:
        ``observations``, ``label``, ``laps``, ``e_step`` and ``m_step``.

    Raises:
        DiemError: With one sentence that names the file and the key.
    """
    with Path(schema).open(encoding="utf-8") as file:
        schema = yaml.safe_load(file)
    config = _named(copy.deepcopy(dict(config)))
    _check_finite(config, source)
    _name_operators(config)
    _check(config, schema, source)
    if any(c in "{}" or not c.isprintable() for c in config.get("results", "")):
        raise DiemError(
            f"{source}: results is {_short(config['results'])}, and Snakemake takes no path with"
            " braces or control characters."
        )
    if not any(config.get(part) for part in PARTS):
        raise DiemError(f"{source}: the configuration has none of {', '.join(PARTS)}.")

    for name, experiment in config.get("experiments", {}).items():
        for part, settings in RECIPES[experiment.get("recipe", "paper")].items():
            experiment[part] = merge(settings, experiment.get(part, {}))
        for key, run in experiment["runs"].items():
            shared = {k: experiment[k] for k in ("laps", "e_step", "m_step") if k in experiment}
            experiment["runs"][key] = merge({"label": key, **shared}, run)
        if experiment["data"]["name"] == OWN:
            experiment["evaluation"] = {"metrics": OWN_METRICS, **experiment.get("evaluation", {})}
        where = f"{source}: experiments.{name}"
        _check_references(experiment, where)

    resolved = _filled(config, schema, schema)
    for experiment in resolved["experiments"].values():
        run_schema = schema["$defs"]["run"]
        for key, run in experiment["runs"].items():
            experiment["runs"][key] = _filled(run, run_schema, schema)
    _check_names(resolved, source)
    for name, experiment in resolved["experiments"].items():
        where = f"{source}: experiments.{name}"
        _check_values(experiment, where)
        _settle_rank(experiment["gaussian"], experiment["data"], where)
    for name, entry in resolved["restoration"].items():
        where = f"{source}: restoration.{name}"
        _check_comparison(entry, where)
        if "train" in entry:
            _settle_rank(entry["train"]["gaussian"], entry["data"], f"{where}.train")
    for name, entry in resolved["posterior"].items():
        if isinstance(entry["prior"], Mapping):
            where = f"{source}: posterior.{name}.prior"
            _check_run(entry["prior"], resolved["experiments"], where)
    return resolved


class Pair(NamedTuple):
    """An entry of a config, and the entry of the paper's config whose place it takes.

    Attributes:
        section: ``experiments``, ``heuristics`` or ``restoration``.
        ours: The entry's name.
        paper: The name of the paper's entry.
    """

    section: str
    ours: str
    paper: str


def pairs(config: Mapping[str, Any], paper: Mapping[str, Any]) -> list[Pair]:
    """Returns the entries of a config that take the place of one of the paper's.

    Arguments:
        config: The configuration.
        paper: The paper's configuration, of which only the names matter.
    """
    found = []
    for name, entry in config.get("experiments", {}).items():
        place = entry.get("stands_for", name)
        if place in paper["experiments"]:
            found.append(Pair("experiments", name, place))
    for section in ("heuristics", "restoration"):
        (only,) = paper[section]
        found += [Pair(section, name, only) for name in config.get(section, {})]
    return found


def evaluated_laps(experiment: Mapping[str, Any], run: str) -> list[int]:
    """Returns the laps of a run that are evaluated: those asked for, and the last one."""
    laps = experiment["runs"][run]["laps"]
    return sorted({lap for lap in experiment["evaluation"]["laps"] if lap < laps} | {laps})


def training_of_lap(entry: Mapping[str, Any], lap: int, laps: int) -> dict[str, Any]:
    """Returns an ``m_step`` entry with the length and the rates of one lap.

    They take the place of ``first``, ``final`` and ``final_decay``.
    """
    entry = dict(entry)
    first, final, decay = (entry.pop(key) for key in ("first", "final", "final_decay"))
    times = final if lap == laps else first if lap == 1 else 1
    entry["steps"] *= times
    entry["epochs"] = entry["epochs"] and times * entry["epochs"]
    if lap == laps and decay:
        entry["learning_rate_final"] = 0.0
    return entry


def posterior_settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of an entry of ``posterior`` that take the place of the prior's own."""
    return {key: entry[key] for key in SHAPING if key in entry}


def ceiling_training(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the ``m_step`` entry of the ceiling: the steps, or epochs, of all laps together."""
    count = experiment["laps"]
    laps = [training_of_lap(experiment["m_step"], lap, count) for lap in range(1, count + 1)]
    epochs = [lap["epochs"] for lap in laps]
    if all(epochs):
        return {**laps[-1], "epochs": sum(epochs)}
    return {**laps[-1], "steps": sum(lap["steps"] for lap in laps)}


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``base`` with the keys of ``override``, mapping by mapping."""
    merged = copy.deepcopy(dict(base))
    for key, value in override.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _named(value: Any) -> Any:
    """Returns a value whose keys are text: YAML reads a name such as 50 as a number."""
    if isinstance(value, Mapping):
        return {str(key): _named(child) for key, child in value.items()}
    return value


def _name_operators(config: Mapping[str, Any]) -> None:
    """Writes ``operator: name`` and ``operator: {class: ...}`` as ``operator: {name: ...}``."""
    places = [(config.get("experiments"), "observations"), (config.get("restoration"), "tasks")]
    for part, key in places:
        for entry in part.values() if isinstance(part, dict) else ():
            named = entry.get(key) if isinstance(entry, dict) else None
            for task in named.values() if isinstance(named, dict) else ():
                operator = task.get("operator") if isinstance(task, dict) else None
                if isinstance(operator, str):
                    task["operator"] = {"name": operator}
                elif isinstance(operator, dict) and "class" in operator and "name" not in operator:
                    task["operator"] = {"name": operator.pop("class"), **operator}


def _check_finite(value: Any, source: str, path: tuple[str, ...] = ()) -> None:
    """Refuses the numbers that YAML writes .nan and .inf, which pass any bound of a schema."""
    children = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        _check_finite(child, source, (*path, str(key)))
    if isinstance(value, float) and not math.isfinite(value):
        raise DiemError(f"{source}: {'.'.join(path)} is {value}, which is not a finite number.")


def _short(value: Any) -> str:
    """Returns a value as it is told in a sentence: on one line, and cut if it is long."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    if len(text) > 60:
        text = f"{text[:57]}..."
    return repr(text) if isinstance(value, str) else text


def _key(value: Any) -> str:
    return _short(str(value))[1:-1]


def _check(config: Mapping[str, Any], schema: Mapping[str, Any], source: str) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    error = jsonschema.exceptions.best_match(validator.iter_errors(config))
    if error is None:
        return
    path = ".".join(_key(part) for part in error.absolute_path) or "the configuration"
    value = error.instance
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        key = sorted(str(k) for k in value if k not in known)[0]
        prefix = "" if path == "the configuration" else f"{path}."
        sentence = f"{prefix}{_key(key)} is unknown{nearest(key, known)}"
    elif error.validator == "required":
        missing = [key for key in error.validator_value if key not in value]
        sentence = f"{path} lacks the key {missing[0]!r}"
    elif error.validator == "enum":
        sentence = (
            f"{path} is {_short(value)}, which is unknown{nearest(value, error.validator_value)}"
        )
    elif error.validator == "type":
        kinds = error.validator_value
        kinds = [kinds] if isinstance(kinds, str) else kinds
        sentence = (
            f"{path} is {_short(value)}, where a value of type {' or '.join(kinds)} is needed"
        )
    else:
        sentence = f"{path} is {_short(value)}, and must be {_demand(error)}"
    raise DiemError(f"{source}: {sentence}.")


def _demand(error: jsonschema.ValidationError) -> str:
    """Returns what a keyword of the schema asks for, in words."""
    asked = error.validator_value
    words = {
        "minimum": f"at least {asked}",
        "maximum": f"at most {asked}",
        "exclusiveMinimum": f"greater than {asked}",
        "exclusiveMaximum": f"less than {asked}",
        "multipleOf": f"a multiple of {asked}",
        "minItems": f"a list of at least {asked}",
        "maxItems": f"a list of at most {asked}",
        "minLength": "a name that is not empty",
        "minProperties": "a mapping that is not empty",
        "uniqueItems": "a list without repetitions",
        "pattern": f"a name like {asked}",
    }
    return words.get(error.validator, f"as the schema's {error.validator} asks")


def _check_names(config: Mapping[str, Any], source: str) -> None:
    """Refuses names by which two entries would write the same file."""
    for name in config["experiments"]:
        if name in FOLDERS:
            raise DiemError(
                f"{source}: experiments.{name} has the name of a folder of the results that is no"
                f" experiment's ({', '.join(sorted(FOLDERS))})."
            )
    entries = [(f"experiments.{name}", name, TABLES) for name in config["experiments"]]
    for part in ("heuristics", "restoration"):
        entries += [(f"{part}.{name}", f"{part}_{name}", ("", "_rows")) for name in config[part]]
    written = dict.fromkeys(("estimate", "hyperparameters", "paper_vs_ours"), "the workflow")
    for where, name, endings in entries:
        for table in (f"{name}{ending}" for ending in endings):
            if table in written:
                raise DiemError(
                    f"{source}: {where} has a name by which it and {written[table]} would write"
                    f" the same table, {table!r}."
                )
            written[table] = where


def _check_references(experiment: Mapping[str, Any], where: str) -> None:
    for key, run in experiment["runs"].items():
        name = run["observations"]
        if name not in experiment["observations"]:
            hint = nearest(name, experiment["observations"])
            raise DiemError(
                f"{where}.runs.{key}.observations is {_short(name)}, which is unknown{hint}."
            )
    for name in experiment.get("evaluation", {}).get("reconstruct", []):
        if name not in experiment["observations"]:
            hint = nearest(name, experiment["observations"])
            raise DiemError(
                f"{where}.evaluation.reconstruct holds {_short(name)}, which is unknown{hint}."
            )


def _check_run(prior: Mapping[str, Any], experiments: Mapping[str, Any], where: str) -> None:
    """Checks that a run's prior is one that the configuration makes."""
    known = experiments
    for key in ("experiment", "run"):
        if prior[key] not in known:
            raise DiemError(
                f"{where}.{key} is {_short(prior[key])}, which is unknown"
                f"{nearest(prior[key], known)}."
            )
        known = known[prior[key]].get("runs", known)
    laps = known[prior["run"]]["laps"]
    if prior["lap"] is not None and prior["lap"] > laps:
        raise DiemError(f"{where}.lap is {prior['lap']}, and the run has {laps} laps.")


def _check_values(experiment: Mapping[str, Any], where: str) -> None:
    """Checks what no schema can say: keys that must fit each other."""
    schedule = experiment["schedule"]
    if schedule["sigma_min"] >= schedule["sigma_max"]:
        raise DiemError(f"{where}.schedule.sigma_min must be less than sigma_max.")
    metrics, data = experiment["evaluation"]["metrics"], experiment["data"]["name"]
    images, colour = data in IMAGES, data in COLOUR
    if data == OWN:
        shape = _check_own(experiment, where)
        images, colour = len(shape) == 3, len(shape) == 3 and shape[0] == 3
    if "distance_to_manifold" in metrics and data != "manifold":
        raise DiemError(
            f"{where}.evaluation.metrics: 'distance_to_manifold' needs data.name 'manifold'."
        )
    if "frechet_distance" in metrics and data != "digits":
        raise DiemError(
            f"{where}.evaluation.metrics: 'frechet_distance' needs labelled images to train its"
            " extractor on (data.name 'digits')."
        )
    for metric in ("fid", "inception_score"):
        if metric in metrics and not colour:
            raise DiemError(
                f"{where}.evaluation.metrics: {metric!r} needs colour images (data.name 'cifar10')."
            )
    for metric in ("ssim", "nmse"):
        if metric in metrics and not images:
            raise DiemError(f"{where}.evaluation.metrics: {metric!r} needs images.")
    if experiment["evaluation"]["reconstruct"] and not images:
        raise DiemError(f"{where}.evaluation.reconstruct needs images.")
    _check_figures(experiment, where)
    for name, entry in experiment["observations"].items():
        _check_operator(entry.get("operator", {}), f"{where}.observations.{name}")
    for key, run in experiment["runs"].items():
        augment = run["m_step"]["augment"]
        for change in augment:
            kind, fitting = ("colour images", COLOUR) if change in HSV else ("images", IMAGES)
            if not (colour if change in HSV else images):
                raise DiemError(
                    f"{where}.runs.{key}.m_step.augment.{change} needs {kind}"
                    f" (data.name {' or '.join(map(repr, sorted(fitting)))})."
                )
        if "saturation" in augment and augment["saturation"][0] > augment["saturation"][1]:
            raise DiemError(
                f"{where}.runs.{key}.m_step.augment.saturation is {augment['saturation']}, where"
                " the lower factor comes first."
            )
        if run["m_step"]["processes"] > run["m_step"]["batch"]:
            raise DiemError(
                f"{where}.runs.{key}.m_step.processes is {run['m_step']['processes']}, and a batch"
                f" of {run['m_step']['batch']} has no part for each."
            )
        for level in run["e_step"]["restart"] or []:
            if not schedule["sigma_min"] < level <= schedule["sigma_max"]:
                raise DiemError(
                    f"{where}.runs.{key}.e_step.restart: the level {level} must lie between"
                    " schedule.sigma_min and schedule.sigma_max."
                )


def _check_own(experiment: Mapping[str, Any], where: str) -> tuple[int, ...]:
    """Checks what a user's own observations cannot give, and returns the shape of one ``x``."""
    for metric in experiment["evaluation"]["metrics"]:
        if metric not in OWN_METRICS:
            raise DiemError(
                f"{where}.evaluation.metrics: {metric!r} compares with clean data, of which"
                f" data.name {OWN!r} has none (known: {', '.join(OWN_METRICS)})."
            )
    if experiment["evaluation"]["reconstruct"]:
        raise DiemError(
            f"{where}.evaluation.reconstruct compares with clean data, of which data.name {OWN!r}"
            " has none."
        )
    return _told("event_shape", experiment, where)


def _told(shape: str, experiment: Mapping[str, Any], where: str) -> tuple[int, ...]:
    """Returns a shape that a user's file tells."""
    try:
        return getattr(DATASETS.parse(experiment["data"], f"{where}.data"), shape)()
    except DiemError as error:
        raise DiemError(f"{where}.data.path: {error}") from None


def _check_figures(experiment: Mapping[str, Any], where: str) -> None:
    """Refuses figures that cannot be drawn of the experiment."""
    if not experiment["figures"]:
        return
    from diem.report.figures.base import Facts, check_figures

    evaluation, own = experiment["evaluation"], experiment["data"]["name"] == OWN
    used = dict.fromkeys(run["observations"] for run in experiment["runs"].values())
    if own:
        shape = _told("event_shape", experiment, where)
        same = _told("observation_shape", experiment, where) == shape
        operators = dict.fromkeys(used, _Observed(keeps_shape=same))
    else:
        shape = DATASETS.parse(experiment["data"]).event_shape()
        entries = experiment["observations"]
        operators = {name: OPERATORS.find(entries[name]["operator"]["name"]) for name in used}
    facts = Facts(
        tuple(shape),
        set(evaluation["metrics"]),
        not own,
        bool(evaluation["reconstruct"]),
        operators,
    )
    check_figures(experiment["figures"], facts, f"{where}.figures")


class _Observed(NamedTuple):
    """What a user's file tells of its operators."""

    keeps_shape: bool
    kspace: bool = False


def _settle_rank(entry: dict[str, Any], data: Mapping[str, Any], where: str) -> None:
    """Fills the rank of a ``gaussian`` entry in, or checks that the data's size allows it."""
    size = math.prod(DATASETS.parse(data).event_shape())
    if entry["rank"] is None:
        entry["rank"] = min(RANK, size - 1)
    elif entry["rank"] >= size:
        raise DiemError(
            f"{where}.gaussian.rank is {entry['rank']}, and must be less than the data's size"
            f" {size}."
        )


def _check_comparison(entry: Mapping[str, Any], where: str) -> None:
    """Checks that the keys of a comparison of posterior samplers fit each other."""
    if ("train" in entry) == ("pretrained" in entry):
        raise DiemError(f"{where} needs a prior: either 'train' or 'pretrained'.")
    if entry["data"]["name"] not in IMAGES:
        raise DiemError(f"{where}.data.name must be of images ({', '.join(sorted(IMAGES))}).")
    if "train" in entry:
        schedule = entry["train"]["schedule"]
        if schedule["sigma_min"] >= schedule["sigma_max"]:
            raise DiemError(f"{where}.train.schedule.sigma_min must be less than sigma_max.")
    if "lpips" in entry["metrics"] and entry["lpips_weights"] is not None:
        if entry["data"]["name"] not in COLOUR:
            raise DiemError(f"{where}.metrics: 'lpips' needs colour images.")
    elif entry["metrics"] == ["lpips"]:
        raise DiemError(f"{where}.metrics: 'lpips' alone needs lpips_weights.")
    for name, task in entry["tasks"].items():
        _check_operator(task["operator"], f"{where}.tasks.{name}")


def _check_operator(operator: Mapping[str, Any], where: str) -> None:
    if "missing" in operator and "box" in operator:
        raise DiemError(f"{where}.operator: either 'missing' or 'box' is given, not both.")
    if "missing" in operator and "place" in operator:
        raise DiemError(f"{where}.operator: 'place' belongs to 'box'.")
    if operator.get("name") == "blur" and operator.get("size", 1) % 2 == 0:
        raise DiemError(f"{where}.operator.size is {operator['size']}, and must be odd.")


def _filled(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """Returns a valid value with the schema's defaults."""
    schema = _dereferenced(schema, root)
    if isinstance(value, list) and "items" in schema:
        return [_filled(item, schema["items"], root) for item in value]
    if isinstance(value, float) and value.is_integer() and schema.get("type") == "integer":
        # To a schema 4.0 is an integer, to Python it is none.
        return int(value)
    if not isinstance(value, Mapping):
        return value
    filled = dict(value)
    parts = [schema]
    for branch in schema.get("allOf", []):
        condition = jsonschema.Draft202012Validator(branch["if"])
        if condition.is_valid(value):
            parts.append(branch["then"])
    for part in parts:
        for key, child in part.get("properties", {}).items():
            if child is True:
                continue
            child = _dereferenced(child, root)
            if key not in filled and "default" in child:
                filled[key] = copy.deepcopy(child["default"])
            if key in filled:
                filled[key] = _filled(filled[key], child, root)
        rest = part.get("additionalProperties")
        if isinstance(rest, Mapping):
            for key in value:
                if key not in part.get("properties", {}):
                    filled[key] = _filled(value[key], rest, root)
    return filled


def _dereferenced(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a schema with its reference resolved; keys beside the reference win."""
    if "$ref" not in schema:
        return schema
    target = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return {**_dereferenced(target, root), **{k: v for k, v in schema.items() if k != "$ref"}}
