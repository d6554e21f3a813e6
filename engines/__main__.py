"""``python -m engines``: see ``engines.cli``."""

import os
import sys

from engines.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
