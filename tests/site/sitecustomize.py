"""Python imports this at its start where the folder is on PYTHONPATH: the tests' jobs."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from torchvision_operators import declare_when_needed

declare_when_needed()
