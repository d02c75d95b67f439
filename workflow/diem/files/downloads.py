"""Files that the workflow downloads where the config gives no place of theirs.

A file is known by its SHA256, and appears only once its bytes have it. Connections are encrypted,
to wherever the first address sends them.
"""

import hashlib
import http.client
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from diem.errors import DiemError
from diem.files.atomic import atomic

__all__ = ["CIFAR10", "DINOV2_WEIGHTS", "DOWNLOADS", "INCEPTION_WEIGHTS", "Download", "download"]

TIMEOUT = 60  # seconds without a byte


class Download(NamedTuple):
    """Where a file comes from, and what it must be."""

    url: str
    sha256: str


CIFAR10 = "cifar-10-binary.tar.gz"
DINOV2_WEIGHTS = "dinov2_vitl14_pretrain.pth"
INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"

DOWNLOADS = {
    CIFAR10: Download(
        f"https://www.cs.toronto.edu/~kriz/{CIFAR10}",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    # Its authors tell no SHA256; this is the one that others check it by, as finegrain-ai/refiners.
    DINOV2_WEIGHTS: Download(
        f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/{DINOV2_WEIGHTS}",
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    ),
    INCEPTION_WEIGHTS: Download(
        f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_WEIGHTS}",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
}
"""The files by name."""


def download(
    source: Download, path: str | Path, progress: Callable[[int], None] = lambda count: None
) -> None:
    """Downloads a file, whole and unaltered or not at all.

    Arguments:
        source: Where it comes from, and its SHA256.
        path: Where it goes.
        progress: Called with the number of bytes of each part.

    Raises:
        DiemError: If it cannot be reached, or is not what it should be.
    """
    sha256 = hashlib.sha256()
    with atomic(path) as temporary, temporary.open("wb") as file:
        for part in _parts(source.url):
            sha256.update(part)
            file.write(part)
            progress(len(part))
        if sha256.hexdigest() != source.sha256:
            raise DiemError(
                f"{source.url}: what was downloaded has the SHA256 {sha256.hexdigest()}, and"
                f" {source.sha256} is expected."
            )


def _opener() -> urllib.request.OpenerDirector:
    """Returns what opens https addresses, and no others that it may be redirected to."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _parts(url: str) -> Iterator[bytes]:
    try:
        with _opener().open(url, timeout=TIMEOUT) as response:
            while part := response.read(2**20):
                yield part
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DiemError(
            f"{url} cannot be downloaded ({reason}): fetch it by other means, and name its place in"
            " the config."
        ) from error
