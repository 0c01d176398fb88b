"""`python -m modelyard.cli`: the same as the console script."""

from __future__ import annotations

import sys

from modelyard.cli import main

if __name__ == "__main__":
    sys.exit(main())
