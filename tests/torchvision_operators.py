"""Lets torchvision be imported where its compiled operators do not fit the PyTorch at hand.

torch-fidelity imports torchvision, whose operators nothing here needs. Where torchvision was built
for another PyTorch, such as one with CUDA, they cannot be loaded, and its import fails for want of
two declarations.
"""

import importlib
import sys


class _Finder:
    """Finds no module; it declares the operators once torchvision is asked for."""

    def find_spec(self, name, path=None, target=None):
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        try:
            importlib.import_module(name)
        except RuntimeError:
            import torch

            for module in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
                del sys.modules[module]
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _KEPT.append(library)


_KEPT = []


def declare_when_needed():
    sys.meta_path.insert(0, _Finder())
