"""Open a bundle, lose the device by an assertion within a kernel, infer: prints the error's name."""

import sys
from pathlib import Path

import numpy as np
import torch

from engines.bundle.golden import read_golden
from engines.bundle.verify import verify_files
from engines.runtime.protocol import RuntimeFailure
from tests.gpu.conftest import OPENERS


def main() -> None:
    """See above."""
    directory, name = Path(sys.argv[1]), sys.argv[2]
    manifest = verify_files(directory)
    files = {entry.path: (directory / entry.path).read_bytes() for entry in manifest.files}
    runtime = OPENERS[name](manifest, files, 1)
    crop_NHWC = np.ascontiguousarray(read_golden(files[manifest.golden_file]).image_NHWC[:1])
    runtime.infer(crop_NHWC)
    table = torch.zeros(4, device="cuda")
    try:
        print(table[torch.tensor([10_000], device="cuda")].cpu())  # noqa: T201  must not get so far
    except RuntimeError as error:
        sys.stderr.write(f"torch: {error}\n")
    try:
        runtime.infer(crop_NHWC)
    except RuntimeFailure as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")


if __name__ == "__main__":
    main()
