"""Tables as CSV with a digest: what was cut, zeroed or edited is told when it is read."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from diem.errors import DiemError
from diem.files.atomic import REMEDY, atomic

__all__ = ["DIGEST", "read_csv", "write_csv"]

DIGEST = "digest"
"""The last column, with the digest of all others in every row, so that a cut file lacks none."""


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Writes a table as CSV with its digest, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(_signed(table), encoding="utf-8")


def _signed(table: pd.DataFrame) -> str:
    """Returns a table as CSV, with its digest in a column."""
    text = _as_text(io.StringIO(table.to_csv(index=False)))
    return text.assign(**{DIGEST: _digest(text)}).to_csv(index=False)


def read_csv(path: str | Path, former: Sequence[str] = (), **options: Any) -> pd.DataFrame:
    """Reads a table of :func:`write_csv`, without its digest.

    Arguments:
        path: The file.
        former: The columns of tables that were written without a digest, by diem 0.3.
        options: As for :func:`pandas.read_csv`.

    Raises:
        DiemError: If the file is missing, damaged or was edited.
    """
    try:
        text = _as_text(path)
    except FileNotFoundError:
        raise DiemError(f"{path}: there is no such file.") from None
    except (OSError, ValueError) as error:  # pandas' errors of parsing, and of text, are these
        reason = " ".join(str(error).split())
        raise DiemError(f"{path}: this is no table ({reason}): {REMEDY}.") from None
    if list(text.columns) != list(former):
        stored = set(text.pop(DIGEST)) if DIGEST in text else None
        if stored != {_digest(text)}:
            raise DiemError(f"{path}: this table is damaged, or was edited: {REMEDY}.")
    return pd.read_csv(path, **options).drop(columns=DIGEST, errors="ignore")


def _as_text(source: str | Path | io.StringIO) -> pd.DataFrame:
    return pd.read_csv(source, dtype=str, keep_default_na=False)


def _digest(text: pd.DataFrame) -> str:
    return hashlib.sha256(text.to_csv(index=False).encode()).hexdigest()[:16]
