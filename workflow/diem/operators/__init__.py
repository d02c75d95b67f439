"""Linear forward operators ``A`` of ``y = A x + n``: one file an operator, see :mod:`.base`."""

from diem.operators.base import OPERATORS, Operator, build, find, simulate
from diem.operators.partial import Partial
from diem.operators.sparse import csr_parameters

__all__ = ["OPERATORS", "Operator", "Partial", "build", "csr_parameters", "find", "simulate"]
