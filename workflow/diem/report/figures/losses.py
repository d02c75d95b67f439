"""The figure of training and validation losses by optimizer step, over the laps of each run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.report.figures.base import Figure, Reads, Source

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["LossCurves"]


class LossCurves(Figure):
    """Training and validation loss of every lap, and whether any lap overfits."""

    name = "losses"
    reads = Reads(losses=True, chosen=True)
    caption = """\
The loss of every lap's training, by optimizer step: of the training samples, and of validation
samples that the weights never see. Each lap is trained on new samples, so losses compare within a
lap. A lap overfits if its validation loss ends above its lowest, by more than the share that the
note names; the line is then thick and purple from the lowest on, and the panel's heading says so.
The shaded lap is the chosen one.
"""

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        from diem.report.drawing.losses import loss_curves

        title = f"{source.experiment}: training and validation loss, lap by lap"
        return loss_curves(source.losses, source.labels, source.chosen, title)
