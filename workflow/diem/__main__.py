"""The command ``diem``, as ``python -m diem``."""

import sys

from diem.cli import main

sys.exit(main())
