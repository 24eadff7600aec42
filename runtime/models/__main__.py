"""`python -m runtime.models`: check the bundled files against models.json."""

from __future__ import annotations

import sys

from . import check

sys.stdout.write(f"{check()} bundled models match models.json\n")
