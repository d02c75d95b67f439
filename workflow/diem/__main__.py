"""The command ``diem``, as ``python -m diem``."""

import sys

from .cli import main

sys.exit(main())
