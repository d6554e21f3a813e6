"""The worker: image event -> verdict. Start it with ``python -m worker run``."""

from engines import __version__

__all__ = ["__version__"]
