"""``python -m worker``: see :mod:`worker.cli`."""

import os
import sys

from worker.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
