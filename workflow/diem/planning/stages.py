"""The stages of a configuration: how many jobs, what work, and how many bytes each has.

:mod:`diem.planning.estimate` multiplies their work by measured costs, and
:mod:`diem.planning.resources` asks a cluster for the time and the memory of single jobs. Counts
come from the declarations of the components that the configuration names; PyTorch is imported only
where the bytes of observations and weights are asked for.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from diem.config.resolve import posterior_settings
from diem.data.sets import DATASETS
from diem.diffusion.covariances import CARD_ERROR
from diem.diffusion.outside import of_card
from diem.em.laps import training_of_lap
from diem.errors import DiemError
from diem.planning import declared
from diem.planning.experiment import Experiment
from diem.planning.work import FLOAT, Amounts, Kinds, Stage, Work, samples_by_split
from diem.replicates import all_entries

__all__ = ["RestorationPrior", "stages"]


def stages(config: Mapping[str, Any]) -> Iterator[Stage]:
    """Yields the stages of a configuration, from first to last.

    Raises:
        DiemError: If the size of the data cannot be known.
    """
    for name in all_entries(config, "experiments"):
        yield from Experiment(config, name).stages()
    for name, entry in config["heuristics"].items():
        yield _heuristics(name, entry)
    for name, entry in all_entries(config, "restoration").items():
        yield from _restoration(name, entry)
    for name, entry in config["posterior"].items():
        yield _posterior(name, entry, config["experiments"])


class RestorationPrior:
    """The prior that a comparison of restorations trains.

    Arguments:
        entry: The comparison's entry, with ``train``.

    Attributes:
        kinds: The kinds of work.
    """

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.data = entry["data"]
        self.kinds = Kinds(entry["train"], DATASETS.parse(self.data).event_shape())

    def training(self) -> Amounts:
        """The training on clean images."""
        counts = samples_by_split(self.data)
        m_step = training_of_lap(self.kinds.entry["m_step"], 1, True)
        return self.kinds.trainings(m_step, counts["train"], counts["validation"])


def _heuristics(name: str, entry: Mapping[str, Any]) -> Stage:
    """The comparison under an exact prior: two kinds of work, neither of which is a network's."""
    levels = entry["cases"] * len(entry["sigmas"])
    plans = levels * (2 + len(entry["covariances"]))
    drawn = levels * entry["prior_samples"] + entry["coil"]["prior_samples"]
    pairs = plans * entry["samples"] ** 2 * entry["iterations"]
    key, settings = json.dumps(entry, sort_keys=True), {"name": name, "entry": entry}
    jobs = math.ceil(entry["cases"] / entry["block"]) + 1
    shown = entry["coil"]["samples"] * (3 + len(entry["covariances"]))
    work: Amounts = {
        Work("heuristics", key, settings, entry["prior_samples"]): drawn,
        Work("transport", key, settings, 8 * entry["samples"] ** 2): pairs,
    }
    size = FLOAT * entry["dimensions"] * shown
    return Stage(name, "heuristics", "", jobs, work, size, network=False)


def _restoration(name: str, entry: Mapping[str, Any]) -> Iterator[Stage]:
    """The posterior samplers of appendix E, and the prior that they share."""
    from diem.paper.restoration.restore import SHOWN
    from diem.planning.calls import calls_per_step

    shape = DATASETS.parse(entry["data"]).event_shape()
    event = FLOAT * math.prod(shape)
    clean = sum(samples_by_split(entry["data"]).values()) * event
    yield Stage(name, "observations", "", 1, {}, clean, network=False)
    if "train" in entry:
        prior = RestorationPrior(entry)
        yield Stage(name, "prior", "", 1, prior.training(), prior.kinds.prior_bytes())
    batch = min(entry["block"], entry["images"])
    settings: dict[str, Any] = {"batch": batch, "shape": shape}
    if "train" in entry:
        settings |= {part: entry["train"][part] for part in ("network", "schedule")}
    else:
        settings |= {"pretrained": entry["pretrained"]["name"]}
    key = json.dumps(settings, sort_keys=True)
    alone = Work("restoration evaluation", key, settings, batch)
    both = Work("restoration product", key, settings, batch)
    steps = len(entry["tasks"]) * entry["images"] * sum(entry["steps"])
    shown = min(SHOWN, batch) * len(entry["tasks"])
    for method, options in entry["methods"].items():
        evaluations, products = calls_per_step(options)
        # A product's cost is that of both without the evaluation's.
        work = {both: steps * products, alone: steps * (evaluations - products)}
        yield Stage(name, "restoration", method, 1, work, shown * event * 3.25)


def _posterior(name: str, entry: Mapping[str, Any], experiments: Mapping[str, Any]) -> Stage:
    """The posterior samples of a file of observations, by a run's prior or one in a file."""
    from diem.data.observations import users_observations

    where = f"posterior.{name}"
    try:
        card = _card(entry["prior"], experiments)
    except DiemError as error:
        raise DiemError(f"{where}.prior: {error}") from None
    data = card.get("data", {})
    observations = {
        "path": entry["observations"],
        "operator": {"name": entry.get("operator")},
        "sigma_y": entry.get("sigma_y"),
        "samples": entry["samples"],
        "offset": data.get("offset", 0.0),
        "scale": data.get("scale", 1.0),
    }
    named, sigma_y = entry.get("operator"), entry.get("sigma_y")
    try:
        with users_observations(entry["observations"], named, sigma_y) as file:
            count, shape = len(file), file.event_shape
    except DiemError as error:
        raise DiemError(f"{where}.observations: {error}") from None
    kinds, drawn = Kinds(card, shape), count * entry["samples"]
    if "network" in card:
        e_step = of_card(card, posterior_settings(entry))
        e_step |= {"block": entry["batch"], "batch": None}
        work = {
            kinds.posterior(observations, e_step): drawn * declared.evaluations(e_step["sampler"])
        }
    else:
        work = {kinds.exact(observations, entry["batch"]): drawn}
    each = FLOAT * math.prod(shape) * (entry["samples"] + 2) + 8
    return Stage(name, "posteriors", "", 1, work, count * each, network="network" in card)


def _card(prior: str | Mapping[str, Any], experiments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the card of a prior tells, or will tell, of what its samples cost."""
    if isinstance(prior, str):
        from diem.diffusion.prior import read_prior

        loaded = read_prior(prior)
        return {**loaded.card, "gaussian": {"rank": loaded.gaussian.factors.shape[-1]}}
    entry = experiments[prior["experiment"]]
    parts = ("data", "gaussian", "network", "schedule")
    card = {part: entry[part] for part in parts[: 2 if prior["lap"] == 0 else 4]}
    return {**card, "e_step": entry["runs"][prior["run"]]["e_step"], CARD_ERROR: {}}
