"""Looks into an HDF5 file of another program, in a process of its own that may be ended.

    python -P probe.py FILE [--links]

Damage can have HDF5 follow a structure for ever, or end the process; neither then ends a run. It
prints a sentence without the file's name if there is a reason not to read the file, and nothing if
there is none. It imports nothing of the library, so that it starts at once.
"""

import contextlib
import resource
import sys
from pathlib import Path

import h5py

SECONDS = 8
"""The most CPU time to look into a file for."""

LARGEST_CHUNK = 2**30
"""A chunk is decompressed as a whole, into so many bytes of memory at most."""

SMALL = 2**26
"""Of a larger data set the first and the last row are read, and not all."""

COMPRESSION = 2000
"""No usual filter makes data so much smaller; what declares more was not written."""

UNREADABLE = (OSError, RuntimeError, KeyError, TypeError, ValueError)
"""What h5py raises of damage; whoever reads the file tells more of it."""


def problem(path: str, links: bool) -> str | None:
    """Returns why a file should not be read, if there is a reason.

    Arguments:
        path: The file.
        links: Whether it may read other files: by links, external storage or virtual data sets.
    """
    with h5py.File(path, "r") as file:
        list(file.attrs.items())
        return _of_group(file, file.id.get_filesize(), links)


def _of_group(group: h5py.Group, size: int, links: bool) -> str | None:
    for name in group:
        place = f"{group.name.rstrip('/')}/{name}".lstrip("/")
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink) and not links:
            return f"{place!r} is a link to another file ({link.filename!r})"
        if isinstance(link, h5py.SoftLink) and group.get(name) is None:
            return f"{place!r} is a link to what is not there ({link.path!r})"
        # Hard links can make circles: only the layout's depth is read.
        item = group.get(name)
        if isinstance(item, h5py.Dataset):
            found = _of_dataset(item, place, size, links)
        elif isinstance(item, h5py.Group) and place.count("/") < 3:
            found = _of_group(item, size, links)
        else:
            found = None
        if found:
            return found
    return None


def _of_dataset(dataset: h5py.Dataset, place: str, size: int, links: bool) -> str | None:
    if dataset.is_virtual and not links:
        return f"{place!r} is a virtual data set, whose values lie in other files"
    if dataset.external and not links:
        return f"{place!r} has its values in another file ({dataset.external[0][0]!r})"
    if dataset.is_virtual:
        for source in dataset.virtual_sources():
            name = source.file_name
            if name != "." and not (Path(dataset.file.filename).parent / name).is_file():
                return f"{place!r} has values in {name!r}, which is not there"
    elif dataset.size and not dataset.external and not dataset.id.get_storage_size():
        return f"{place!r} declares the shape {dataset.shape} and holds no values"
    if not dataset.is_virtual and dataset.nbytes > max(2**30, COMPRESSION * size):
        return f"{place!r} declares {dataset.nbytes:,} bytes, in a file of {size:,}"
    if dataset.chunks:
        chunk = dataset.dtype.itemsize
        for length in dataset.chunks:
            chunk *= length
        if chunk > LARGEST_CHUNK:
            return f"{place!r} has chunks of {chunk:,} bytes, more than {LARGEST_CHUNK:,}"
    if dataset.size:
        with contextlib.suppress(*UNREADABLE):
            whole = not dataset.ndim or dataset.nbytes <= SMALL
            for row in ((),) if whole else (0, -1):
                dataset[row]
    return None


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    with contextlib.suppress(*UNREADABLE):
        print(problem(sys.argv[1], "--links" in sys.argv[2:]) or "")
