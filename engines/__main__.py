"""``python -m engines``: see ``engines.cli``."""

import sys

from engines.cli import main

if __name__ == "__main__":
    sys.exit(main())
