"""TensorRT and TensorRT-RTX: two libraries with one API, imported only on request.

In: which of the two. Out: its module, which other modules receive and never import themselves.
Errors: ``BundleError``, which says what to install.

The builder and the runtime of a library both log through ``make_logger``, so that a refusal of a
graph or plan can repeat the library's reasons.
"""

import ctypes
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import Any, Final

import structlog

from engines.bundle.manifest import BundleError

_log = structlog.get_logger(__name__)
_DRIVER: Final = "libcuda.so.1"
_ERRORS_SHOWN: Final = 4  # the first ones name the cause, the others follow from them


@dataclass(frozen=True)
class Target:
    """One of the two libraries.

    Attributes:
        name: the target of a compilation, and the runtime's name in manifests.
        module: what is imported.
        least_major: the first major version with strongly typed networks.
        ahead_of_time: whether plans are built without a GPU, for named architectures.
        times_tactics: whether building measures kernels, which a timing cache saves next time.
    """

    name: str
    module: str
    least_major: int
    ahead_of_time: bool
    times_tactics: bool


TENSORRT: Final = Target("tensorrt", "tensorrt", 11, ahead_of_time=False, times_tactics=True)
TENSORRT_RTX: Final = Target(
    "tensorrt-rtx", "tensorrt_rtx", 1, ahead_of_time=True, times_tactics=False
)
TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {target.name: target for target in (TENSORRT, TENSORRT_RTX)}
)


def import_api(target: Target) -> ModuleType:
    """The library's module; ``BundleError`` if it is missing, broken or too old."""
    try:
        api = importlib.import_module(target.module)
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        raise BundleError(
            f"{target.name} cannot be imported ({error}): install it with "
            f"`pip install {target.name}-cu13`"
        ) from error
    major = str(api.__version__).split(".", 1)[0]
    if int(major) < target.least_major:
        raise BundleError(
            f"{target.name} {api.__version__} is too old: plans need {target.least_major} or later"
        )
    return api


def version_of(api: ModuleType) -> str:
    """The exact release; plans are bound to it."""
    return str(api.__version__)


def require_driver(what: str) -> None:
    """Raise ``BundleError`` without an NVIDIA driver, where the libraries would crash."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError as error:
        raise BundleError(
            f"{what} needs an NVIDIA GPU, and this machine has no driver for one ({_DRIVER} is not "
            "found): install the driver, or start the container with access to the GPU"
        ) from error


@dataclass
class LogCapture:
    """The errors that a library logged, oldest first."""

    errors: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """The first errors, for the message of a refusal."""
        return "; ".join(self.errors[:_ERRORS_SHOWN]) or "the library gave no reason"


def make_logger(api: ModuleType, captured: LogCapture) -> object:
    """The library's logger: errors go to ``captured``, warnings to the log."""
    base: Any = api.ILogger

    class _Logger(base):  # type: ignore[misc]  # the library's classes are untyped
        def __init__(self) -> None:
            base.__init__(self)  # pybind11 needs exactly this call

        def log(self, severity: object, message: str) -> None:
            if severity in {api.ILogger.INTERNAL_ERROR, api.ILogger.ERROR}:
                captured.errors.append(message.strip())
            elif severity == api.ILogger.WARNING:
                _log.warning("tensorrt_warning", library=api.__name__, message=message.strip())

    return _Logger()
