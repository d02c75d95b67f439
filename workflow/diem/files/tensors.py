"""Files of tensors: safetensors with a checksum, weights of others, and digests."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diem.errors import DiemError
from diem.files.atomic import REMEDY, atomic

__all__ = ["content_digest", "load_tensors", "load_weights", "save_tensors"]

CHECKSUM = "sha256"
"""The tensor with the checksum of all others."""


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]
) -> None:
    """Writes tensors and text to a safetensors file, whole or not at all, with their checksum."""
    tensors = {k: v.detach().to("cpu").contiguous() for k, v in tensors.items()}
    owners = {v.untyped_storage().data_ptr(): k for k, v in tensors.items()}
    # Safetensors refuses tensors that share memory, such as tied weights.
    tensors = {
        k: v if owners[v.untyped_storage().data_ptr()] == k else v.clone()
        for k, v in tensors.items()
    }
    # No entry of the header, whose order safetensors does not keep: equal files have equal bytes.
    checksum = {CHECKSUM: _checksum(tensors, header)}
    with atomic(path) as temporary:
        # Safetensors makes files that nobody else may read.
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(tensors | checksum, temporary, metadata=dict(header))
        temporary.chmod(mode)


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> Tensor:
    """Returns the SHA-256 of tensors, their names and a header."""
    total = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        total.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return torch.tensor(list(total.digest()), dtype=torch.uint8)


def load_tensors(path: str | Path, ours: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads the tensors and the header of a safetensors file.

    Arguments:
        path: The file.
        ours: Whether :func:`save_tensors` must have written it, and so its checksum.

    Raises:
        DiemError: If the file is missing, damaged, of another format, or not finite.
    """
    if not Path(path).is_file():
        raise DiemError(f"{path}: there is no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise DiemError(
            f"{path}: this is no complete safetensors file ({error}): {REMEDY}."
        ) from None
    checksum = tensors.pop(CHECKSUM, None) if ours else None
    if ours and (checksum is None or not torch.equal(checksum, _checksum(tensors, header))):
        reason = "it has no checksum" if checksum is None else "its checksum is another"
        raise DiemError(f"{path}: this file is damaged, or is not diem's ({reason}): {REMEDY}.")
    for key, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise DiemError(f"{path}: {key!r} holds non-finite values.")
    return tensors, header


def load_weights(path: str | Path) -> dict[str, Any]:
    """Reads a PyTorch file of weights, from which nothing but tensors and plain values is loaded.

    Raises:
        DiemError: If the file is of another kind, or would have code run.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch have no common one
        reason = " ".join(str(error).split())[:200]
        raise DiemError(f"{path}: this file holds no weights ({reason}).") from None


def content_digest(paths: Sequence[str | Path], *settings: Any) -> str:
    """Returns a fingerprint of files' bytes and settings (JSON): 16 hexadecimal digits."""
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in paths:
        with Path(path).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]
