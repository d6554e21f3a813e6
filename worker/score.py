"""``score``: scores image files and prints one JSON line per image, without broker or cache.

Lines have the order of the paths: ``{path, score, logit, band}`` or ``{path, error, code}``. A directory means all
files below it. A bad image does not affect the others.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TextIO

from engines.bundle.verify import Bundle
from worker.decide import decide
from worker.errors import Poison
from worker.infer import Item, infer_batch
from worker.intake import decode, limits_of
from worker.settings import Settings
from worker.types import Score

Line = dict[str, object]


def score_paths(settings: Settings, bundle: Bundle, paths: Sequence[Path], out: TextIO) -> int:
    """Write a line for each image; returns the number of images without a score."""
    failed = 0
    for line in _lines(settings, bundle, _files(paths)):
        failed += "error" in line
        text = json.dumps(line, ensure_ascii=False)
        # A file name that is not UTF-8 becomes a JSON escape, from which a reader gets it back.
        out.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
        out.flush()
    return failed


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.is_file()]
            yield from files or [path]
        else:
            yield path


def _lines(settings: Settings, bundle: Bundle, paths: Iterable[Path]) -> Iterator[Line]:
    thresholds = bundle.manifest.threshold_set(settings.decide.threshold_set)
    remaining = iter(paths)
    with ThreadPoolExecutor(settings.decode.threads, "decode") as pool:
        while group := list(islice(remaining, settings.batch.max_images)):
            decoded = list(pool.map(lambda path: _decoded(path, settings, bundle), group))
            images = [image for image in decoded if isinstance(image, Item)]
            scores = iter(infer_batch(bundle.runtime, images) if images else [])
            for path, image in zip(group, decoded, strict=True):
                result = next(scores) if isinstance(image, Item) else image
                if isinstance(result, Score):
                    probability = bundle.manifest.score(result.logit)
                    band = decide(probability, thresholds, settings.decide.block).band
                    yield {
                        "path": str(path),
                        "score": probability,
                        "logit": result.logit,
                        "band": band,
                    }
                else:
                    yield {"path": str(path), "error": result.message, "code": result.code}


def _decoded(path: Path, settings: Settings, bundle: Bundle) -> Item | Poison:
    limits = limits_of(settings.decode)
    if path.is_dir():
        return Poison(
            "fetch", "empty_directory", "the directory contains no files: name another one"
        )
    try:
        with path.open("rb") as stream:
            data = stream.read(limits.max_bytes + 1)
        image = decode(data, bundle.manifest.preprocess, limits)
    except OSError as error:
        return Poison("fetch", "unreadable", f"{error.strerror}: check the path")
    except Poison as error:
        return error
    return Item(hashlib.sha256(data).hexdigest(), image)
