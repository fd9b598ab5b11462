"""What holds for every test."""

from __future__ import annotations

import os

# A make that a test calls answers for itself, also where it was make that began the tests.
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
    os.environ.pop(name, None)
