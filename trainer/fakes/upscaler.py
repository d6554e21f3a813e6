"""Super-resolvers in ncnn's format: Real-ESRGAN, SPAN, RealSR, waifu2x.

In: uint8 RGB, sides multiples of the factor. Out: the same size. Errors: ``RegeneratorError``.
The photograph is shrunk by the factor and drawn anew. Needs the extra ``fakes``.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.fakes.regenerator import RegeneratorError, shrunk


class Upscaler:
    """One network of ncnn, on the CPU."""

    def __init__(self, param: Path, factor: int, pad_px: int, threads: int) -> None:
        """Load ``param`` and the ``.bin`` beside it.

        Args:
            param: the graph; its weights lie beside it.
            factor: how many times larger the network's output is.
            pad_px: what the network takes off each side of its input.
            threads: of the CPU.
        """
        try:
            import ncnn  # noqa: PLC0415  an optional extra, and slow to import
        except ImportError as error:
            raise RegeneratorError("ncnn is not installed: pip install ncnn") from error
        self._matrix, self._factor, self._pad_px = ncnn.Mat, factor, pad_px
        self.multiple_px = factor
        weights = param.with_suffix(".bin")
        if not weights.exists():
            raise RegeneratorError(f"{weights} does not exist: an ncnn network is .param and .bin")
        self.digest = hashlib.sha256(param.read_bytes() + weights.read_bytes()).hexdigest()
        self._net = ncnn.Net()
        self._net.opt.use_vulkan_compute = False
        self._net.opt.num_threads = threads
        if self._net.load_param(str(param)) or self._net.load_model(str(weights)):
            raise RegeneratorError(f"ncnn cannot load {param}: give a network of its own format")
        self._input, self._output = self._net.input_names()[0], self._net.output_names()[0]

    def regenerate(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Shrink by the factor and draw at full size again."""
        small_HWC = shrunk(pixels_HWC, self._factor)
        pad = (self._pad_px, self._pad_px)
        small_HWC = np.pad(small_HWC, (pad, pad, (0, 0)), mode="reflect")
        x_CHW = np.ascontiguousarray(small_HWC.transpose(2, 0, 1), dtype=np.float32) / 255
        extractor = self._net.create_extractor()
        # The clone owns its pixels: a view of numpy's memory is read after it is freed.
        extractor.input(self._input, self._matrix(x_CHW).clone())
        status, out = extractor.extract(self._output)
        drawn_CHW = np.array(out)
        if status or drawn_CHW.shape != (3, *pixels_HWC.shape[:2]):
            raise RegeneratorError(
                f"the network gave {drawn_CHW.shape} for {pixels_HWC.shape}: set factor and pad_px "
                "to what it does"
            )
        clipped: NDArray[np.uint8] = (drawn_CHW * 255).round().clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(clipped.transpose(1, 2, 0))
