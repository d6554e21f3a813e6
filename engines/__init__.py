"""The boundary between trainer and worker: what a bundle is, how it is built, checked and run.

Worker and trainer import from these modules; everything else is internal:

- ``engines.bundle``: ``manifest`` (``Manifest`` and its parts, ``BundleError``), ``golden``,
  ``signatures``, ``keys``, ``verify`` (``load_bundle``) and ``files`` (atomic writes).
- ``engines.preprocess``: from uploaded bytes to crops, ``ImageError``, ``Limits``.
- ``engines.runtime``: ``Runtime`` and ``RuntimeFailure`` (``protocol``: ``DeviceLost``),
  ``open_candidate``, ``machine``, ``selection``.
- ``engines.release``: ``store``, ``records``, ``layout``, ``channels``, and the gate's options in ``cli``.
- ``engines.compile.quantize``: what the trainer checks before it adds int8 or bf16.
- ``engines.cli`` and ``engines.terminal``: the command line, and helpers that command lines share.
"""

# The one version of the whole project: pyproject.toml reads it here.
__version__ = "0.2.0"
