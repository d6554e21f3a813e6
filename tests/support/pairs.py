"""Content-matched pairs on disk, as ``python -m trainer fakes`` leaves them."""

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data.pairs import PAIRS

FAMILIES = ("one", "two")


def write_pairs(root: Path, folder: Path, *photographs: str) -> Path:
    """Pairs of two families, of every photograph of some folders of real/."""
    lines = []
    for path in sorted(path for name in photographs for path in (root / "real" / name).iterdir()):
        name = f"{path.parent.name}-{path.stem}.png"
        fakes = {family: f"fake/{family}/{name}" for family in FAMILIES}
        line = {
            "photograph": f"real/{path.parent.name}/{path.name}",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "scale": 1.0,
            "real": f"real/{name}",
            "fake": fakes,
        }
        for add, file in enumerate([f"real/{name}", *fakes.values()]):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                pixels_HWC = np.asarray(image)[:64, :64] // 2 + add
            Image.fromarray(pixels_HWC).save(folder / file)
        lines.append(json.dumps(line))
    (folder / PAIRS).write_text("\n".join(lines) + "\n")
    return folder
