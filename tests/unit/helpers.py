"""Dense formulas that several tests compare with, and comparisons with sampled moments."""

import itertools
import json
import math

import h5py
import numpy as np
import torch
from scipy.sparse import csr_array

from diem import operators
from diem.data.observations import Observed
from diem.diffusion.gaussian import Gaussian
from diem.files.hdf5 import ATTRIBUTES

SIGMAS = 5
"""Standard errors that a sampled moment may be off: by chance, once in two million."""


def attributes(path):
    """Returns the attributes of a file that diem wrote."""
    with h5py.File(path) as file:
        return json.loads(file.attrs[ATTRIBUTES])


def set_attributes(path, **changes):
    """Writes a file's attributes one by one, as other programs do, with changes; none removes."""
    with h5py.File(path, "r+") as file:
        told = json.loads(file.attrs.pop(ATTRIBUTES)) if ATTRIBUTES in file.attrs else {}
        for name, value in {**told, **changes}.items():
            if value is not None:
                file.attrs[name] = value
            elif name in file.attrs:
                del file.attrs[name]


def random_gaussian(shape, rank, dtype=torch.float64, seed=0):
    """Returns a Gaussian with an isotropic variance of 0.3 and orthogonal factors."""
    generator = torch.Generator().manual_seed(seed)
    size = math.prod(shape)
    q, _ = torch.linalg.qr(torch.randn(size, rank, generator=generator, dtype=torch.float64))
    factors = q * torch.linspace(0.5, 1.5, rank, dtype=torch.float64)
    mean = torch.randn(*shape, generator=generator, dtype=torch.float64)
    noise = torch.tensor(0.3, dtype=torch.float64)
    return Gaussian(mean, noise, factors.reshape(*shape, rank)).to(dtype)


def dense(gaussian):
    """Returns the covariance of a Gaussian as a matrix."""
    v = gaussian.factors.flatten(0, -2)
    return gaussian.noise * torch.eye(len(v), dtype=v.dtype) + v @ v.T


def simulate(spec, shape, count, dtype=torch.float64, seed=0):
    """Draws operators, whose real parameters get a type."""
    operator = operators.simulate(spec, shape, count, np.random.default_rng(seed))
    parameters = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in operator.parameters.items()
    }
    return type(operator)(shape, parameters)


def matrices(operator):
    """Returns the matrices ``A`` in double precision, from the definitions of the operators."""
    if "mask" in operator.parameters:
        mask = operator.parameters["mask"].expand(-1, *operator.event_shape)
        return torch.diag_embed(mask.flatten(1).double())
    if "kernel" in operator.parameters:
        kernel = operator.parameters["kernel"].double()
        if "reflect" in operator.parameters:
            return _reflected(kernel, *operator.event_shape)
        return _circulants(kernel, *operator.event_shape)
    if "factor" in operator.parameters:
        channels, height, width = operator.event_shape
        factor = int(operator.parameters["factor"][0])
        rows, columns = (
            _reduction(n, factor, "bicubic" in operator.parameters) for n in (height, width)
        )
        matrix = torch.block_diag(*[torch.kron(rows, columns)] * channels)
        return matrix.expand(len(operator), *matrix.shape)
    if "columns" in operator.parameters:
        return _transforms(operator)
    if "indptr" in operator.parameters:
        size = math.prod(operator.event_shape)
        parts = (operator.parameters[name].numpy() for name in ("data", "indices", "indptr"))
        rows = [
            csr_array(csr, shape=(len(csr[2]) - 1, size)).toarray()
            for csr in zip(*parts, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).double()
    return operator.parameters["matrix"].double()


def _transforms(operator):
    """Returns the matrices of centred Fourier transforms, from sines and cosines."""
    channels, height, width = operator.event_shape

    def transform(n):
        place = torch.arange(n, dtype=torch.float64) - n // 2
        angle = -2 * torch.pi * torch.outer(place, place) / n
        return torch.polar(torch.full_like(angle, n**-0.5), angle)

    full = torch.kron(transform(height), transform(width))
    columns = operator.parameters["columns"][:, None].expand(-1, height, -1).flatten(1)
    matrix = columns[..., None] * full  # (B, pixels, pixels)
    maps = operator.parameters.get("maps")
    if maps is None:
        coils = [matrix]
    else:
        maps = torch.complex(maps[:, :, 0], maps[:, :, 1]).flatten(2).to(matrix)
        coils = [matrix * coil[:, None, :] for coil in maps.unbind(dim=1)]
    rows = []
    for coil in coils:
        # Real and imaginary parts of the image, if it is complex, are apart.
        parts = [coil, 1j * coil][:channels]
        rows += [torch.cat([part.real for part in parts], dim=2)]
        rows += [torch.cat([part.imag for part in parts], dim=2)]
    return torch.cat(rows, dim=1)


def _circulants(kernel, channels, height, width):
    """Returns the matrices of convolutions with (B, size, size) kernels that wrap around."""
    half = kernel.shape[-1] // 2
    matrix = kernel.new_zeros(len(kernel), height, width, height, width)
    for i, j in itertools.product(range(height), range(width)):
        for di, dj in itertools.product(range(-half, half + 1), repeat=2):
            at = (i - di) % height, (j - dj) % width
            matrix[:, i, j, *at] += kernel[:, half + di, half + dj]
    matrix = matrix.reshape(len(kernel), height * width, height * width)
    return torch.stack([torch.block_diag(*[m] * channels) for m in matrix])


def repeated(operator, count):
    """Returns the first operator of a batch many times."""
    return operator[torch.zeros(count, dtype=torch.long)]


def _reflected(kernel, channels, height, width):
    """Returns the matrices of the convolution of reflected images: padded, convolved, cropped."""
    margin = kernel.shape[-1] // 2
    pixels = np.arange(height * width).reshape(height, width)
    sources = torch.from_numpy(np.pad(pixels, margin, "reflect"))
    padding = torch.nn.functional.one_hot(sources.flatten(), height * width).double()
    kept = torch.zeros_like(sources, dtype=torch.bool)
    kept[margin : margin + height, margin : margin + width] = True
    one = _circulants(kernel, 1, *sources.shape)[:, kept.flatten()] @ padding
    return torch.stack([torch.block_diag(*[matrix] * channels) for matrix in one])


def _reduction(size, factor, bicubic):
    """Returns what reduces a side: averages, or PyTorch's cubics of what is mirrored far enough."""
    if not bicubic:
        return torch.eye(size // factor, dtype=torch.float64).repeat_interleave(factor, 1) / factor
    margin = 2 * factor
    mirrored = np.pad(np.eye(size), [(0, 0), (margin, margin)], "symmetric")
    shape = (size, mirrored.shape[1] // factor)
    x = torch.from_numpy(mirrored)[None, None]
    reduced = torch.nn.functional.interpolate(x, shape, mode="bicubic", antialias=True)[0, 0]
    return reduced[:, margin // factor : -(margin // factor)].T


def analytic_posterior(gaussian, a, y, sigma_y):
    """Returns the mean and the covariance of ``x`` given one ``y``, flattened, in double."""
    gaussian, a, y = gaussian.to(torch.float64), a.double(), y.double().flatten()
    prior, mean = dense(gaussian), gaussian.mean.flatten()
    var_y = torch.as_tensor(sigma_y, dtype=torch.float64).square().flatten().expand(len(y))
    gain = torch.linalg.solve(a @ prior @ a.T + torch.diag(var_y), a @ prior).T
    return mean + gain @ (y - a @ mean), prior - gain @ a @ prior


def assert_moments(x, mean, covariance, allowance=0.0):
    """Asserts that samples ``(N, *event)`` have a mean and a covariance.

    The standard errors are those of Gaussian samples: ``sqrt(C_ii / N)`` of a mean and
    ``sqrt((C_ii C_jj + C_ij^2) / N)`` of a covariance.

    Arguments:
        x: The samples.
        mean: The mean expected, flattened.
        covariance: The covariance expected, a matrix.
        allowance: An error beside the sampling error: of the mean in standard deviations, of the
            covariance relative to the variances.
    """
    x = x.double().flatten(1)
    variance = covariance.diagonal()
    deviation = (x.mean(dim=0) - mean).abs()
    bound = (SIGMAS / math.sqrt(len(x)) + allowance) * variance.sqrt()
    # A direction without variance has its mean up to rounding alone.
    assert (deviation <= bound + 1e-6).all(), (deviation / variance.sqrt()).max()
    product = variance[:, None] * variance
    deviation = (torch.cov(x.T) - covariance).abs()
    bound = SIGMAS * torch.sqrt((product + covariance.square()) / len(x))
    assert (deviation <= bound + allowance * product.sqrt() + 1e-6).all(), (
        deviation / product.sqrt()
    ).max()


def observe(gaussian, spec, count, sigma_y, seed=0):
    """Returns observations of samples of a Gaussian, in single precision, and the samples."""
    generator = torch.Generator().manual_seed(seed)
    shape = tuple(gaussian.mean.shape)
    x = gaussian.to(torch.float32).sample(count, generator)
    operator = simulate(spec, shape, count, torch.float32, seed)
    sigma_y = torch.as_tensor(sigma_y, dtype=torch.float32)
    y = operator.forward(x)
    noise = torch.randn(y.shape, generator=generator) * operator.observed()
    return Observed(operator, y + sigma_y * noise, sigma_y, np.arange(count)), x
