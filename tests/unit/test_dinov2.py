"""FD-DINOv2: features of the authors' code, images as Pillow resizes them, and refused files."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from diem.config.inputs import Inputs
from diem.config.resolve import resolve
from diem.errors import DiemError
from diem.evaluation.dinov2 import VisionTransformer, load, resized
from diem.files.downloads import DINOV2_WEIGHTS, DOWNLOADS

NAME = "dinov2-vit-l-14"


def weights(width=64, depth=2):
    """Returns random weights, the same everywhere, by the authors' names."""
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in VisionTransformer(width, depth).state_dict().items()}
    rng, found = np.random.default_rng(0), {}
    for name in sorted(shapes):
        value = rng.standard_normal(tuple(shapes[name]))
        plain = value.ndim == 1 or "token" in name or "pos" in name
        scale = 0.5 if plain else np.prod(value.shape[1:]) ** -0.5
        found[name] = torch.tensor(value * scale, dtype=torch.float32)
    return found


def pixels(count=2, side=32):
    values = np.random.default_rng(1).integers(0, 256, (count, 3, side, side))
    return torch.tensor(values, dtype=torch.uint8)


@pytest.fixture
def path(tmp_path):
    torch.save(weights(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_features_are_those_of_the_authors_code(path):
    # Of facebookresearch/dinov2, commit b8931f7, as its hub builds the network: block_chunks=0,
    # init_values=1, interpolate_offset=0.1, but of 64 features, 2 blocks and one head.
    expected = [
        [-0.24913078546524048, -1.4661753177642822, -0.17522090673446655, 0.21728123724460602],
        [-0.2488798052072525, -1.4812710285186768, -0.17162515223026276, 0.22136856615543365],
    ]

    (found,) = load(path).network(pixels())

    assert found.shape == (2, 64)
    torch.testing.assert_close(found[:, :4], torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert float(found.double().square().mean()) == pytest.approx(0.46689101408702577, rel=1e-4)


def test_a_large_network_has_as_many_weights_as_is_told():
    with torch.device("meta"):
        network = VisionTransformer(1024, 24)

    count = sum(value.numel() for value in network.parameters())
    assert count == 304_368_640
    # The file of the published weights is of that size, in single precision.
    assert 4 * count == pytest.approx(1_217_586_395, rel=1e-4)


@pytest.mark.parametrize("shape", [(32, 32), (40, 28), (256, 256)])
def test_images_are_resized_as_pillow_does(shape):
    x = np.random.default_rng(0).integers(0, 256, (3, *shape, 3)).astype(np.uint8)
    size = 224, 224
    expected = [np.asarray(Image.fromarray(i).resize(size, Image.Resampling.BICUBIC)) for i in x]

    found = resized(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()

    difference = np.abs(found - np.stack(expected).astype(float))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_parts_of_images_change_nothing(path):
    network = load(path)
    x = 4 * torch.rand(35, 3, 8, 8) - 2

    ((found,),) = network.features(x, 4 / 256)

    ((first,),) = network.features(x[:3], 4 / 256)
    assert found.shape == (35, 64)
    torch.testing.assert_close(found[:3], first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("official", [True, False])
def test_a_network_of_other_weights_is_called_so(path, monkeypatch, official):
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if official:
        known = DOWNLOADS[DINOV2_WEIGHTS]._replace(sha256=sha256)
        monkeypatch.setitem(DOWNLOADS, DINOV2_WEIGHTS, known)

    found = load(path)

    assert found.name == (NAME if official else f"{NAME} with other weights")
    assert found.card == {"extractor": found.name, "extractor_digest": sha256[:16]}


class Malicious:
    def __reduce__(self):
        return print, ("unpickled",)


REFUSED = {
    "code": {"cls_token": Malicious()},
    "another network": {"fc.bias": torch.zeros(1008)},
    "no dictionary": torch.zeros(3),
    "no tensor": {**weights(), "norm.bias": None},
    "another shape": {**weights(), "norm.bias": torch.zeros(32)},
    "integers": {**weights(), "norm.bias": torch.zeros(64, dtype=torch.int64)},
    "no whole heads": weights(96, 1),
    "no blocks": {k: v for k, v in weights().items() if not k.startswith("blocks.")},
    "no finite ones": {**weights(), "norm.bias": torch.full((64,), torch.nan)},
    "complex ones": {**weights(), "norm.bias": torch.zeros(64, dtype=torch.complex64)},
    "sparse ones": {**weights(), "norm.bias": torch.zeros(64).to_sparse()},
    "a weight too many": {**weights(), "register_tokens": torch.zeros(1, 4, 64)},
    "a weight too few": {k: v for k, v in weights().items() if k != "blocks.0.mlp.fc1.weight"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_no_weights(tmp_path, name, capsys):
    path = tmp_path / "weights.pth"
    torch.save(REFUSED[name], path)

    with pytest.raises(DiemError, match="no weights") as error:
        load(path)

    assert str(path) in str(error.value)
    assert "unpickled" not in capsys.readouterr().out


def test_weights_that_are_missing(tmp_path):
    with pytest.raises(DiemError, match="no such file"):
        load(tmp_path / "weights.pth")


@pytest.mark.parametrize("given", [None, "mine.pth"])
def test_an_evaluation_reads_the_given_weights_or_those_that_are_downloaded(given):
    entry = {
        "data": {"name": "cifar10"},
        "observations": {"half": {"operator": {"name": "mask", "missing": 0.5}, "sigma_y": 0.01}},
        "recipe": "fast",
        "network": {"name": "unet"},
        "laps": 1,
        "runs": {"base": {"observations": "half"}},
        "evaluation": {"metrics": ["fd_dinov2"], "dinov2_weights": given},
    }
    inputs = Inputs(resolve({"results": "out", "experiments": {"some": entry}}, "some.yaml"))
    names = SimpleNamespace(experiment="some", observations="half")

    files = inputs.floor_input(names)

    assert files["dinov2_weights"] == (given or f"out/downloads/{DINOV2_WEIGHTS}")
    assert files["dinov2_reference"] == "out/some/dinov2_reference.safetensors"
    # The place of the weights changes no number.
    assert "dinov2_weights" not in inputs.evaluation(names)
