"""Random changes of training images: what they are, that each image has its own, and resuming."""

import colorsys

import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

from diem.diffusion.prior import build_denoiser
from diem.em.augmentations import AUGMENTATIONS, chosen
from diem.em.augmentations import augment as changed_by
from diem.em.augmentations.hsv import adjust_hsv
from diem.em.checkpoint import Checkpoint
from diem.em.training import Training, train
from diem.errors import DiemError

CASES = {
    "flip": {"flip": True},
    "shift": {"shift": 2},
    "hue": {"hue": 0.1},
    "saturation": {"saturation": [0.5, 1.5]},
    "all": {"flip": True, "shift": 2, "hue": 0.1, "saturation": [0.5, 1.5]},
}
every = pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())


def augment(x, settings, generator):
    return changed_by(x, chosen(settings), generator)


def check(settings, shape):
    for change in chosen(settings):
        change.check(shape)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=64, channels=3, size=(6, 8)):
    return 4 * torch.rand(count, channels, *size, generator=stream(1), dtype=torch.float64) - 2


@every
def test_the_stream_decides(settings):
    x = images()

    one, same, other = (augment(x, settings, stream(seed)) for seed in (0, 0, 1))

    assert one.shape == x.shape
    assert one.dtype == x.dtype
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@every
def test_every_image_draws_its_own(settings):
    x = images(1).expand(64, -1, -1, -1)

    changed = augment(x, settings, stream())

    distinct = {row.numpy().tobytes() for row in changed}
    assert len(distinct) >= (2 if settings == CASES["flip"] else 20)


@pytest.mark.parametrize("settings", [{}, {"flip": False, "shift": 0}])
def test_no_change_is_none_and_draws_nothing(settings):
    x, generator = images(), stream()
    before = generator.get_state()

    assert torch.equal(augment(x, settings, generator), x)
    assert torch.equal(generator.get_state(), before)


def test_half_of_the_images_are_flipped_from_left_to_right():
    x = images(2000)

    changed = augment(x, {"flip": True}, stream())

    flipped = (changed == x.flip(-1)).flatten(1).all(dim=1)
    kept = (changed == x).flatten(1).all(dim=1)
    assert (flipped ^ kept).all()
    assert abs(flipped.double().mean() - 0.5) <= 5 * 0.5 / np.sqrt(2000)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_shifts_are_uniform_and_reflect(channels):
    x, most = images(1000, channels), 2

    changed = augment(x, {"shift": most}, stream())

    # NumPy's reflection leaves out the edge too.
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (most, most), (most, most)), mode="reflect")
    counts = np.zeros((2 * most + 1, 2 * most + 1))
    for before, after in zip(padded, changed.numpy(), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(before, after.shape)[0]
        same = (windows == after).all(axis=(2, 3, 4))
        assert same.sum() == 1
        counts += same
    cells = counts.size
    error = np.sqrt(1000 * (1 / cells) * (1 - 1 / cells))
    assert (abs(counts - 1000 / cells) <= 5 * error).all()


def colours():
    """Returns colours in [0, 1], among them greys, black, white and pure colours."""
    x = torch.rand(5, 3, 6, 8, generator=stream(2), dtype=torch.float64)
    x[0, :, 0] = x[0, :1, 0]
    x[1, :, 0] = 0
    x[2, :, 0] = 1
    x[3, :, 0] = torch.eye(3, dtype=x.dtype).repeat(1, 3)[:, :8]
    x[4, :, 0] = 1 - x[3, :, 0]
    return x


def test_hue_and_saturation_are_those_of_matplotlib():
    x = colours()
    turns = torch.linspace(-0.6, 0.5, 5, dtype=x.dtype).reshape(5, 1, 1)
    factor = torch.linspace(0, 2, 5, dtype=x.dtype).reshape(5, 1, 1)

    changed = adjust_hsv(x, turns, factor)

    hsv = rgb_to_hsv(x.movedim(1, -1).numpy())
    hsv[..., 0] = (hsv[..., 0] + turns.numpy()) % 1
    hsv[..., 1] = np.clip(hsv[..., 1] * factor.numpy(), 0, 1)
    np.testing.assert_allclose(changed.movedim(1, -1), hsv_to_rgb(hsv), atol=1e-12)


def test_hue_and_saturation_are_those_of_colorsys():
    x = colours()

    changed = adjust_hsv(x, 0.2, 1.3)

    pixels = zip(
        x.movedim(1, -1).reshape(-1, 3), changed.movedim(1, -1).reshape(-1, 3), strict=True
    )
    for before, after in pixels:
        h, s, v = colorsys.rgb_to_hsv(*before.tolist())
        expected = colorsys.hsv_to_rgb((h + 0.2) % 1, min(1.3 * s, 1), v)
        assert after.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_colours_outside_of_the_range_keep_their_value():
    x = 3 * colours() - 1

    torch.testing.assert_close(adjust_hsv(x, 0.0, 1.0), x)
    changed = adjust_hsv(x, 0.3, 0.8)
    torch.testing.assert_close(changed.amax(dim=1), x.amax(dim=1))
    assert changed.isfinite().all()


def test_augmented_hues_and_saturations_lie_within_their_bounds():
    x = images(200)
    hue, low, high = 0.05, 0.9, 0.95

    changed = augment(x, {"hue": hue, "saturation": [low, high]}, stream())

    before, after = (rgb_to_hsv(((v + 2) / 4).movedim(1, -1).numpy()) for v in (x, changed))
    turn = (after[..., 0] - before[..., 0] + 0.5) % 1 - 0.5
    factor = after[..., 1] / before[..., 1]
    assert np.ptp(turn, axis=(1, 2)).max() < 1e-9  # all pixels of an image alike
    assert np.ptp(factor, axis=(1, 2)).max() < 1e-9
    assert -hue <= turn.min() < -0.9 * hue
    assert 0.9 * hue < turn.max() <= hue
    assert low - 1e-9 <= factor.min() < low + 0.005
    assert high - 0.005 < factor.max() <= high + 1e-9


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"hue": 0.1}, (1, 8, 8)),
        ({"saturation": [0.9, 1.1]}, (2, 8, 8)),
        ({"flip": True}, (5,)),
        ({"shift": 4}, (1, 4, 8)),
    ],
)
def test_data_that_cannot_be_augmented(settings, shape):
    with pytest.raises(DiemError, match=rf"m_step\.augment\.{next(iter(settings))}"):
        check(settings, shape)


def test_data_that_can_be_augmented():
    check({}, (5,))
    check(CASES["all"], (3, 8, 8))
    check({"flip": True, "shift": 3}, (2, 4, 4))


def test_an_augmented_training_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("diem.em.training.CHUNK", 4)
    x = images(40).float()
    network = {"name": "unet", "channels": [4], "blocks": 1, "embedding": 8, "dropout": 0.3}
    schedule = {"sigma_min": 0.01, "sigma_max": 10.0}

    def run(checkpoint=None, stop=None, settings=CASES["all"]):
        def progress(step, loss):
            if step == stop:
                raise KeyboardInterrupt

        denoiser = build_denoiser(network, schedule, tuple(x.shape[1:]), 0)
        training = Training(12, 8, 1e-3, augment=chosen(settings))
        kept = Checkpoint(checkpoint, "same", 0.0)
        average, _ = train(denoiser, x, x[:8], training, 0, 1, kept, progress)
        return torch.nn.utils.parameters_to_vector(average.parameters())

    whole, path = run(), tmp_path / "resume"
    with pytest.raises(KeyboardInterrupt):
        run(path, stop=12)
    assert path.is_file()
    assert torch.equal(run(path), whole)
    assert not torch.equal(run(settings={}), whole)


def test_changes_come_in_their_own_order():
    names = ["saturation", "shift", "hue", "flip"]
    changes = chosen({name: CASES[name][name] for name in names})

    assert [change.name for change in changes] == ["flip", "shift", "hue", "saturation"]
    assert {change.name for change in changes} == set(AUGMENTATIONS.names)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hue": 0.7}, "m_step.augment.hue is 0.7, and must be at most 0.5."),
        ({"shift": -1}, "m_step.augment.shift is -1, and must be at least 0."),
        ({"flip": 1}, "m_step.augment.flip is 1, where a value of type boolean is needed."),
        ({"saturation": [1.2, 0.8]}, "the lower factor comes first."),
        ({"saturation": [1.2]}, "m_step.augment.saturation is [1.2], and must be a list of at"),
        ({"turn": 1}, "m_step.augment.turn is 'turn', which is unknown"),
    ],
)
def test_values_that_are_none(settings, sentence):
    with pytest.raises(DiemError) as error:
        chosen(settings)
    assert sentence in str(error.value)
