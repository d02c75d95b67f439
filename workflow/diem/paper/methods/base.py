"""What every posterior sampler of a comparison declares."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from diem.components import Component

if TYPE_CHECKING:
    from azula.denoise import Denoiser
    from azula.sample import Sampler
    from torch import Tensor

    from diem.operators.base import Operator

__all__ = ["Method", "Problem"]


class Problem(NamedTuple):
    """Some observations of a task.

    Attributes:
        operator: The forward operators, one an observation.
        y: The observations of images in [-1, 1], of shape ``(B, *observation)``.
        sigma_y: The noise's standard deviation.
    """

    operator: Operator
    y: Tensor
    sigma_y: float


class Method(Component):
    """A posterior sampler.

    Attributes:
        title: Its name in tables and figures, as it is published; by default the class's name.
        ours: Whether it is this project's own method, which figures emphasize.
    """

    title: ClassVar[str]
    ours: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        if not hasattr(cls, "title"):
            cls.title = cls.__name__

    @property
    def iterations_shown(self) -> str:
        """The solver iterations, where tables and figures tell its entries apart by them.

        A published number is of the same number of iterations, or of none.
        """
        return ""

    @property
    def label(self) -> str:
        """The name of one entry, such as "MMPS (3)" with the iterations that are shown."""
        return f"{self.title} ({self.iterations_shown})" if self.iterations_shown else self.title

    @abstractmethod
    def sampler(self, denoiser: Denoiser, problem: Problem, **grid: Any) -> Sampler:
        """Builds azula's sampler of the posterior.

        Arguments:
            denoiser: The prior's denoiser of images in [-1, 1], on a variance-preserving schedule.
            problem: The observations, on the denoiser's device.
            grid: What azula's samplers take beside a denoiser, such as ``steps``.
        """
