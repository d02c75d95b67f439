"""The part `posterior` of the configuration."""

from types import SimpleNamespace

import pytest

from diem.config.inputs import Inputs
from diem.config.resolve import posterior_settings, resolve
from diem.diffusion.outside import GUARD
from diem.em.laps import OF_LAPS
from diem.errors import DiemError

EXPERIMENT = {
    "data": {"name": "digits"},
    "observations": {"half": {"operator": {"name": "mask", "missing": 0.5}, "sigma_y": 0.1}},
    "network": {"name": "mlp"},
    "laps": 3,
    "runs": {"base": {"observations": "half"}},
}


def resolved(prior, **entry):
    config = {
        "experiments": {"digits": EXPERIMENT},
        "posterior": {"new": {"prior": prior, "observations": "new.h5", **entry}},
    }
    return resolve(config, "my.yaml")["posterior"]["new"]


def test_what_is_not_told_is_left_to_the_prior():
    entry = resolved("prior.safetensors", sampler={"steps": 5})

    assert entry == {
        "prior": "prior.safetensors",
        "observations": "new.h5",
        "samples": 16,
        "batch": 256,
        "sampler": {"steps": 5},
    }


def test_the_prior_of_a_run():
    prior = resolved({"experiment": "digits", "run": "base", "lap": 3})["prior"]
    assert prior["lap"] == 3
    assert resolved({"experiment": "digits", "run": "base"})["prior"]["lap"] is None


def test_posteriors_alone():
    entry = {"prior": "prior.safetensors", "observations": "new.h5"}
    config = resolve({"posterior": {"new": entry}}, "my.yaml")
    assert config["experiments"] == {}


@pytest.mark.parametrize(
    ("prior", "entry", "sentence"),
    [
        ({"experiment": "digit", "run": "base"}, {}, "prior.experiment is 'digit'"),
        ({"experiment": "digits", "run": "bass"}, {}, "prior.run is 'bass'"),
        ({"experiment": "digits", "run": "base", "lap": 4}, {}, "prior.lap is 4"),
        ({"experiment": "digits"}, {}, "prior lacks the key 'run'"),
        ({"experiment": "digits", "run": "base", "laps": 1}, {}, "prior.laps is unknown"),
        (3, {}, "prior is 3"),
        ("", {}, "prior is ''"),
        ("a{b}.safetensors", {}, "prior is 'a{b}.safetensors', and Snakemake takes no path"),
        ("p", {"observations": "{a}.h5"}, "observations is '{a}.h5', and Snakemake takes no path"),
        ("p", {"samples": 1}, "samples is 1, and must be at least 2"),
        ("p", {"batch": 0}, "batch is 0"),
        ("p", {"limit": 0}, "limit is 0"),
        ("p", {"covariance": "tweedy"}, "did you mean 'tweedie'"),
        ("p", {"sampler": {"step": 3}}, "sampler.step is unknown (did you mean 'steps'?)"),
        ("p", {"sigma_y": -1}, "sigma_y is -1"),
        ("p", {"operator": "masks"}, "did you mean 'mask'"),
        ("p", {"observation": "y.h5"}, "observation is unknown (did you mean 'observations'?)"),
    ],
)
def test_errors_name_the_key(prior, entry, sentence):
    with pytest.raises(DiemError) as error:
        resolved(prior, **entry)

    message = str(error.value)
    assert message.startswith("my.yaml: posterior.new")
    assert sentence in message


# Evaluations


def evaluated(names, recipe="fast", **posterior):
    """Returns how an evaluation draws posteriors, of a run or of a bound."""
    experiment = {**EXPERIMENT, "recipe": recipe, "evaluation": {"posterior": posterior}}
    config = resolve({"experiments": {"digits": experiment}}, "my.yaml")
    return Inputs(config).drawing(SimpleNamespace(experiment="digits", **names))


@pytest.mark.parametrize("names", [{"run": "base"}, {"observations": "half", "stage": "ceiling"}])
def test_an_evaluation_draws_by_many_steps_and_hardly_limited(names):
    drawn = evaluated(names)

    assert drawn["sampler"] == {
        "name": "ddpm",
        "steps": 32,
        "spacing": "karras",
        "spread": "last",
    }
    assert (drawn["covariance"], drawn["limit"], drawn["iterations"]) == ("measured", GUARD, 1)


def test_an_evaluation_draws_as_it_is_asked_to():
    drawn = evaluated({"run": "base"}, sampler={"steps": 5}, covariance="tweedie", limit=2.0)

    assert (drawn["sampler"]["steps"], drawn["sampler"]["spread"]) == (5, "last")
    assert (drawn["covariance"], drawn["limit"]) == ("tweedie", 2.0)


def test_no_limit_can_be_asked_for():
    drawn = evaluated({"run": "base"}, limit=None)

    assert (drawn["covariance"], drawn["limit"]) == ("measured", None)
    assert evaluated({"run": "base"}, covariance=None)["covariance"] == "measured"


def test_no_limit_can_be_asked_for_of_a_prior():
    entry = resolved("prior.safetensors", limit=None, covariance=None)

    assert posterior_settings(entry) == {"limit": None}


def test_the_papers_evaluation_draws_as_its_e_step():
    config = resolve({"experiments": {"digits": EXPERIMENT}}, "my.yaml")
    e_step = config["experiments"]["digits"]["runs"]["base"]["e_step"]

    drawn = {key: value for key, value in e_step.items() if key not in OF_LAPS}
    assert {**evaluated({"run": "base"}, recipe="paper"), "batch": None} == drawn
    assert e_step["sampler"]["spread"] == "none"


def test_an_unknown_key_of_an_evaluations_posteriors():
    with pytest.raises(DiemError, match=r"evaluation\.posterior\.step is unknown"):
        evaluated({"run": "base"}, step=5)
