"""The worker: image event -> verdict. Start it with ``python -m worker run``."""

__version__ = "0.1.0"
