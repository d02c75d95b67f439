"""Priors as files: what is saved is what is loaded, and what is refused."""

import json
import pickletools
import zipfile

import pytest
import torch
from azula.noise import VESchedule
from helpers import random_gaussian
from safetensors.torch import load_file, safe_open

from diem.diffusion.gaussian import Gaussian
from diem.diffusion.prior import Prior, build_denoiser, read_prior
from diem.diffusion.samplers import sigma_to_time
from diem.errors import DiemError
from diem.files.tensors import load_tensors, save_tensors

SCHEDULE = {"sigma_min": 0.01, "sigma_max": 10.0}
SHAPE = (1, 4, 4)
NETWORKS = [
    pytest.param({"name": "mlp", "hidden": [8, 8], "embedding": 4}, id="mlp"),
    pytest.param({"name": "residual_mlp", "width": 8, "blocks": 1}, id="residual_mlp"),
    pytest.param(
        {"name": "unet", "channels": [4, 8], "blocks": 1, "embedding": 8, "attention": {"1": 2}},
        id="unet",
    ),
]
MLP = NETWORKS[0].values[0]


def prior(network=MLP, seed=0):
    gaussian = random_gaussian(SHAPE, 2, torch.float32)
    if network is None:
        return Prior(gaussian, None, {"lap": 0})
    denoiser = build_denoiser(network, SCHEDULE, SHAPE, seed)
    return Prior(gaussian, denoiser, {"network": network, "schedule": SCHEDULE, "lap": 3})


def saved(path, network=MLP):
    prior(network).save(path)
    return path


def refused(path, **expected):
    """Returns the sentence with which a file is refused, which names the file."""
    with pytest.raises(DiemError) as error:
        read_prior(path, **expected)
    message = str(error.value)
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message
    return message


def rewritten(path, tensors=None, **header):
    """Writes a prior's file again with other tensors or another header."""
    stored, card = load_tensors(path)
    save_tensors(path, stored if tensors is None else tensors, {**card, **header})
    return path


@pytest.mark.parametrize("network", [*NETWORKS, pytest.param(None, id="gaussian")])
def test_a_prior_is_loaded_bit_by_bit(network, tmp_path):
    one = prior(network)
    one.save(tmp_path / "prior")

    other = read_prior(tmp_path / "prior", network=network, event_shape=SHAPE)

    for name in ("mean", "noise", "factors"):
        assert torch.equal(getattr(one.gaussian, name), getattr(other.gaussian, name))
    assert one.card.items() <= other.card.items()
    assert other.event_shape == SHAPE
    if network is None:
        assert other.denoiser is None
        return
    state = one.denoiser.backbone.state_dict()
    loaded = other.denoiser.backbone.state_dict()
    assert state.keys() == loaded.keys()
    assert all(torch.equal(state[key], loaded[key]) for key in state)
    x, t = torch.randn(3, *SHAPE), torch.tensor([0.5])
    assert torch.equal(one.denoiser.eval()(x, t).mean, other.denoiser(x, t).mean)


def test_saving_again_gives_the_same_bytes(tmp_path):
    one = saved(tmp_path / "one")
    read_prior(one).save(tmp_path / "two")

    assert one.read_bytes() == (tmp_path / "two").read_bytes()


def test_a_loaded_prior_is_ready_to_sample(tmp_path):
    loaded = read_prior(saved(tmp_path / "prior"))

    assert not loaded.denoiser.training
    assert not any(p.requires_grad for p in loaded.denoiser.parameters())
    schedule = loaded.denoiser.schedule
    assert (schedule.sigma_min, schedule.sigma_max) == (0.01, 10.0)


def test_levels_written_as_numbers_or_as_text(tmp_path):
    # YAML reads the levels of `attention: {1: 2}` as numbers; JSON has text alone.
    network = {**NETWORKS[2].values[0], "attention": {1: 2}}

    loaded = read_prior(saved(tmp_path / "prior", network), network=network)

    assert loaded.denoiser is not None


def test_the_file_holds_tensors_and_json_alone(tmp_path):
    path = saved(tmp_path / "prior")
    raw = path.read_bytes()

    assert not zipfile.is_zipfile(path)  # as torch.save would write
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    assert json.loads(header["__metadata__"]["diem"])["network"] == MLP
    assert set(header) - {"__metadata__"} == set(load_file(path))
    with pytest.raises(ValueError, match=r".+"):
        list(pickletools.genops(raw))


def test_fresh_weights_depend_on_the_seed_alone():
    def weights(seed):
        torch.rand(1)
        return torch.cat([p.flatten() for p in prior(seed=seed).denoiser.parameters()])

    before = torch.random.get_rng_state()
    one = prior(seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(weights(1), torch.cat([p.flatten() for p in one.denoiser.parameters()]))
    assert not torch.equal(weights(1), weights(2))


def test_moving_a_prior(tmp_path):
    loaded = read_prior(saved(tmp_path / "prior"))

    assert loaded.to("cpu").event_shape == SHAPE
    assert prior(None).to("cpu").denoiser is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sigma_to_time_inverts_the_schedule(dtype):
    schedule = VESchedule(1e-3, 1e2)
    t = torch.linspace(0, 1, 11, dtype=dtype)

    assert torch.allclose(sigma_to_time(schedule, schedule.sigma(t)), t, atol=1e-6)


# What is refused


def test_a_file_that_is_missing(tmp_path):
    assert "no such file" in refused(tmp_path / "prior")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.99, -1])
def test_a_file_that_is_truncated(tmp_path, keep):
    path = saved(tmp_path / "prior")
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw)) if isinstance(keep, float) else keep])

    refused(path)


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes(tmp_path, seed):
    path = tmp_path / "prior"
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randint(256, (5000,), generator=generator, dtype=torch.uint8)
    path.write_bytes(raw.numpy().tobytes())

    refused(path)


def test_a_pickle(tmp_path):
    torch.save(prior().denoiser.state_dict(), tmp_path / "prior")

    refused(tmp_path / "prior")


@pytest.mark.parametrize(
    ("key", "value"), [("hidden", [8, 9]), ("embedding", 6), ("name", "residual_mlp")]
)
def test_a_checkpoint_of_another_network(tmp_path, key, value):
    message = refused(saved(tmp_path / "prior"), network={**MLP, key: value})

    assert "another network" in message
    assert f"network.{key}" in message
    assert repr(value) in message
    assert repr(MLP[key]) in message


def test_a_checkpoint_of_a_network_with_another_key(tmp_path):
    network = {"name": "mlp", "hidden": [8, 8]}

    assert "network.embedding" in refused(saved(tmp_path / "prior"), network=network)


def test_another_event_shape(tmp_path):
    message = refused(saved(tmp_path / "prior"), event_shape=(1, 8, 8))

    assert "(1, 4, 4)" in message
    assert "(1, 8, 8)" in message


@pytest.mark.parametrize(
    "text",
    ["", "not json", "[]", "3", "{}", '{"event_shape": 4}', '{"event_shape": null}'],
)
def test_a_header_that_is_none(tmp_path, text):
    assert "no prior" in refused(rewritten(saved(tmp_path / "prior"), diem=text))


def test_a_missing_header(tmp_path):
    path = saved(tmp_path / "prior")
    save_tensors(path, load_tensors(path)[0], {})

    assert "no prior" in refused(path)


@pytest.mark.parametrize("key", ["gaussian.mean", "gaussian.noise", "gaussian.factors"])
def test_a_missing_gaussian(tmp_path, key):
    path = saved(tmp_path / "prior")
    tensors, _ = load_tensors(path)
    del tensors[key]

    assert key in refused(rewritten(path, tensors))


@pytest.mark.parametrize("what", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_the_network(tmp_path, what):
    path = saved(tmp_path / "prior")
    tensors, _ = load_tensors(path)
    if what == "missing":
        del tensors["network.first.bias"]
    elif what == "unexpected":
        tensors["network.more"] = torch.zeros(1)
    else:
        tensors["network.first.bias"] = torch.zeros(3)

    message = refused(rewritten(path, tensors))

    assert "more" in message if what == "unexpected" else "first.bias" in message


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("key", ["network.first.weight", "gaussian.mean"])
def test_weights_that_are_not_finite(tmp_path, key, value):
    path = saved(tmp_path / "prior")
    tensors, _ = load_tensors(path)
    tensors[key].view(-1)[0] = value

    message = refused(rewritten(path, tensors))

    assert key in message
    assert "finite" in message


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"network": {"name": "transformer"}}, id="unknown network"),
        pytest.param({"network": {"name": "mlp", "depth": 3}}, id="unknown key"),
        pytest.param({"schedule": None}, id="no schedule"),
    ],
)
def test_a_header_of_another_version(tmp_path, change):
    # A file from a newer diem may name what this one does not know.
    path = saved(tmp_path / "prior")
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["diem"])

    refused(rewritten(path, diem=json.dumps({**card, **change})))


def test_a_gaussian_of_another_shape_than_its_header(tmp_path):
    path = saved(tmp_path / "prior")
    tensors = load_tensors(path)[0] | {"gaussian.mean": torch.zeros(5)}

    refused(rewritten(path, tensors), event_shape=SHAPE)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(DiemError, match="cannot be written") as error:
        prior().save(tmp_path / "file" / "prior")

    assert str(tmp_path / "file" / "prior") in str(error.value)


def test_saving_a_standard_gaussian(tmp_path):
    Prior(Gaussian.standard(SHAPE), None, {}).save(tmp_path / "prior")

    assert read_prior(tmp_path / "prior").gaussian.factors.shape == (*SHAPE, 0)
