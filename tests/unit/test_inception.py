"""FID and Inception score: the numbers of torch-fidelity, and files that are refused."""

import builtins
import hashlib
import json

import pytest
import torch
from torch.utils.data import Dataset

from diem.data.sets.base import to_bytes
from diem.errors import DiemError
from diem.evaluation import feature_network
from diem.evaluation.feature_network import Reference, load_reference
from diem.evaluation.gaussians import feature_moments, frechet_distance_of_moments
from diem.evaluation.inception import load
from diem.evaluation.metrics.inception_score import inception_score
from diem.files.downloads import DOWNLOADS, INCEPTION_WEIGHTS
from diem.files.tensors import save_tensors

SEED = 11
STEP = 4 / 256


class Pixels(Dataset):
    """8-bit images, which torch-fidelity takes as they are."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        return self.pixels[i]


@pytest.fixture(scope="module")
def network(inception_weights):
    return load(inception_weights)


@pytest.fixture(scope="module")
def images():
    """Twelve and sixteen smooth images, of other colours, that leave [-2, 2] by a little."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(28, 3, 4, 4, generator=generator)
    x = 1.2 * torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    x[12:] += torch.tensor([0.5, 0.0, -0.5]).reshape(3, 1, 1)
    return x[:12], x[12:]


@pytest.fixture(scope="module")
def features(network, images):
    return [whole(network.features(x, STEP)) for x in images]


def whole(batches):
    """Returns features and logits of all images."""
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


@pytest.fixture(scope="module")
def expected(inception_weights, images):
    """What torch-fidelity gives for these images."""
    from torch_fidelity import calculate_metrics

    one, other = (Pixels(to_bytes(x, STEP)) for x in images)
    return calculate_metrics(
        input1=one,
        input2=other,
        cuda=False,
        fid=True,
        isc=True,
        batch_size=16,
        rng_seed=SEED,
        cache=False,
        save_cpu_ram=True,  # without worker processes
        verbose=False,
        feature_extractor_weights_path=str(inception_weights),
    )


@pytest.mark.slow
def test_the_fid_is_that_of_torch_fidelity(features, expected):
    (one, _), (other, _) = features

    value = frechet_distance_of_moments(feature_moments(one), feature_moments(other))

    assert one.shape == (12, 2048)
    assert value > 1
    # torch-fidelity's means and products are in single precision.
    assert value == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)


@pytest.mark.slow
def test_the_inception_score_is_that_of_torch_fidelity(features, expected):
    (_, logits), _ = features

    value = inception_score(logits.split(5), len(logits), SEED)

    assert logits.shape == (12, 1008)
    assert value > 1
    assert value == pytest.approx(expected["inception_score_mean"], rel=1e-6)


@pytest.mark.parametrize(("count", "other"), [(30, 40), (300, 40), (300, 400)])
def test_the_distance_of_moments_is_that_of_torch_fidelity(count, other):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    # Fewer samples than features, and more.
    a = torch.randn(count, 64, dtype=torch.float64)
    b = 0.5 + torch.randn(other, 64, dtype=torch.float64) @ torch.randn(64, 64, dtype=a.dtype) / 8

    value = frechet_distance_of_moments(feature_moments(a), feature_moments(b))

    statistics = (fid_features_to_statistics(x) for x in (a, b))
    theirs = fid_statistics_to_metric(*statistics, verbose=False)
    assert value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)


def test_scores_of_known_logits():
    certain = 1000 * torch.eye(5).repeat(20, 1)

    assert inception_score([torch.zeros(40, 7)], 40, 0) == pytest.approx(1)
    # Each split of ten holds each of the five classes now and then, and all of them at best.
    assert 1 < inception_score([certain], 100, 0) <= 5
    with pytest.raises(DiemError, match="10 images"):
        inception_score([certain[:9]], 9, 0)


@pytest.mark.parametrize("count", [10, 57, 400])
def test_the_score_of_parts_is_that_of_torch_fidelity(count):
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 3 * torch.randn(count, 20, generator=torch.Generator().manual_seed(0))

    theirs = isc_features_to_metric(logits, splits=10, rng_seed=SEED)["inception_score_mean"]
    for size in (1, 7, count):
        value = inception_score(iter(logits.split(size)), count, SEED)
        assert value == pytest.approx(theirs, rel=1e-12)


def test_one_sample_is_too_few():
    with pytest.raises(DiemError, match="two samples"):
        feature_moments(torch.zeros(1, 4))


@pytest.mark.slow
def test_batches_change_nothing(network, images, features, monkeypatch):
    monkeypatch.setattr(feature_network, "BATCH", 5)

    for one, other in zip(
        whole(network.features(images[0].numpy(), STEP)), features[0], strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_card_names_the_weights(network, inception_weights, monkeypatch):
    sha256 = hashlib.sha256(inception_weights.read_bytes()).hexdigest()

    assert network.digest == sha256[:16]
    assert network.name == "inception-v3-compat with other weights"
    known = DOWNLOADS[INCEPTION_WEIGHTS]._replace(sha256=sha256)
    monkeypatch.setitem(DOWNLOADS, INCEPTION_WEIGHTS, known)
    assert load(inception_weights).name == "inception-v3-compat"


@pytest.mark.parametrize("official", [True, False])
def test_a_network_of_other_weights_is_called_so(tmp_path, monkeypatch, official):
    import torch_fidelity.feature_extractor_inceptionv3 as theirs

    path = tmp_path / "weights.pth"
    torch.save({}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(theirs, "FeatureExtractorInceptionV3", lambda *_, **__: torch.nn.Identity())
    if official:
        known = DOWNLOADS[INCEPTION_WEIGHTS]._replace(sha256=sha256)
        monkeypatch.setitem(DOWNLOADS, INCEPTION_WEIGHTS, known)

    found = load(path)

    other = "" if official else " with other weights"
    assert (found.name, found.digest) == (f"inception-v3-compat{other}", sha256[:16])


class Malicious:
    def __reduce__(self):
        return print, ("unpickled",)


def malicious(path):
    torch.save({"fc.bias": Malicious()}, path)


def other_network(path):
    torch.save({"fc.bias": torch.zeros(1008)}, path)


def no_dictionary(path):
    torch.save(torch.zeros(3), path)


def cut(path):
    torch.save({"fc.bias": torch.zeros(1008)}, path)
    path.write_bytes(path.read_bytes()[:-100])


def text(path):
    path.write_text("<!doctype html>")


@pytest.mark.parametrize("write", [malicious, other_network, no_dictionary, cut, text])
def test_files_that_are_no_weights(tmp_path, write, capsys):
    path = tmp_path / "weights.pth"
    write(path)

    with pytest.raises(DiemError, match="these are no weights of inception-v3-compat") as error:
        load(path)

    assert str(path) in str(error.value)
    assert "unpickled" not in capsys.readouterr().out


def test_a_torchvision_of_another_pytorch_is_told(monkeypatch):
    # The public torchvision is a CUDA build: beside a CPU build of PyTorch its import fails.
    def fail(name, *arguments, original=builtins.__import__):
        if name.startswith("torch_fidelity"):
            raise RuntimeError("operator torchvision::nms does not exist")
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(DiemError, match=r"built for this PyTorch .*::nms does not .* same index"):
        load("weights")


def test_weights_that_are_missing(tmp_path):
    with pytest.raises(DiemError, match="no such file"):
        load(tmp_path / "weights.pth")


@pytest.fixture
def reference(network, features):
    moments = feature_moments(features[0][0])
    return Reference(moments, 12, "train", (network.name, network.digest))


@pytest.mark.slow
def test_a_reference_is_kept(network, images, reference, tmp_path):
    path = tmp_path / "reference"
    Reference.of(images[0], "train", network, STEP).save(path)

    kept = load_reference(path, network)

    for one, other in zip(kept.moments, reference.moments, strict=True):
        assert one.dtype == torch.float64
        torch.testing.assert_close(one, other)
    assert (kept.samples, kept.split, kept.extractor) == (12, "train", reference.extractor)


@pytest.mark.slow
def test_references_that_are_refused(network, reference, tmp_path):
    path = tmp_path / "reference"
    tensors = reference.moments._asdict()
    card = {"samples": 12, "split": "train", "extractor": [network.name, "0123"]}
    for header, words in (
        ({"reference": json.dumps(card)}, "0123"),
        ({"reference": json.dumps({"samples": 12})}, "no reference"),
        ({"reference": "{"}, "no reference"),
        ({}, "no reference"),
    ):
        save_tensors(path, tensors, header)
        with pytest.raises(DiemError, match=words) as error:
            load_reference(path, network)
        assert str(path) in str(error.value)
