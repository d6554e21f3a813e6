"""The boundary between trainer and worker: what a bundle is, how it is built, checked and run."""

# The one version of the whole project: pyproject.toml reads it here.
__version__ = "0.2.0"
