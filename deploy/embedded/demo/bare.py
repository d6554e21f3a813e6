"""The bare engine: the same images, decode, batches and processes as the workers, and no broker.

In: a bundle and the files to score. Out: :class:`BareResult`. Errors: :class:`DemoError`.

Each process first loads its bundle and its share of the files, then waits; all start at once, so
that neither loading nor reading the disk is timed. ``python -m deploy.embedded.demo.bare`` is one
such process.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.embedded.child import Child
from deploy.embedded.demo.pictures import DemoError
from deploy.embedded.demo.workers import Tuning
from engines.preprocess import ImageError, Limits, prepare
from engines.verify import Bundle, load_bundle

POLL_S = 0.002
LOAD_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 300.0
SHORTEST_RUN_S = 1.0  # a shorter one would be mostly noise


@dataclass(frozen=True)
class BareResult:
    """Images that the bare processes scored together, and the time from first start to last end."""

    images: int
    duration_s: float

    @property
    def images_per_s(self) -> float:
        """The rate of all processes together."""
        return self.images / self.duration_s if self.duration_s else 0.0


def time_bare_engine(
    bundle: Path, files: Sequence[Path], *, processes: int, tuning: Tuning, directory: Path
) -> BareResult:
    """Score every file in ``processes`` processes, as fast as they can.

    Raises:
        DemoError: A process failed; the message holds the end of its log.
    """
    directory.mkdir(parents=True, exist_ok=True)
    go = directory / "go"
    with ExitStack() as stack:
        children: list[tuple[Child, Path]] = []
        for index in range(processes):
            share = directory / f"files-{index}.json"
            share.write_text(json.dumps([str(path) for path in files[index::processes]]))
            result = directory / f"result-{index}.json"
            command = _command(bundle, share, result, go, tuning)
            child = Child(command, log_path=directory / f"bare-{index}.log")
            stack.callback(child.kill)
            children.append((child, result))
        for child, result in children:
            _wait_for(child, result.with_suffix(".ready"), LOAD_TIMEOUT_S)
        go.touch()
        for child, result in children:
            _wait_for(child, result, RUN_TIMEOUT_S)
        results = [json.loads(result.read_text()) for _, result in children]
    begin_s = min(each["started_s"] for each in results)
    end_s = max(each["ended_s"] for each in results)
    return BareResult(sum(each["images"] for each in results), end_s - begin_s)


def _command(bundle: Path, share: Path, result: Path, go: Path, tuning: Tuning) -> list[str]:
    options = {
        "--bundle": bundle,
        "--files": share,
        "--result": result,
        "--go": go,
        "--engine-threads": tuning.engine_threads,
        "--decode-threads": tuning.decode_threads,
        "--batch-images": tuning.batch_images,
    }
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-m", "deploy.embedded.demo.bare", *words]


def _wait_for(child: Child, path: Path, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not path.exists():
        ended = child.poll() is not None and not path.exists()
        if ended or time.monotonic() > deadline_s:
            raise DemoError(f"the bare engine failed: {child.log_tail()}")
        time.sleep(POLL_S)


def main() -> int:
    """One process of the measurement."""
    options = _parse(sys.argv[1:])
    bundle = load_bundle(options.bundle, threads=options.engine_threads)
    images = [Path(name).read_bytes() for name in json.loads(options.files.read_text())]
    options.result.with_suffix(".ready").touch()
    while not options.go.exists():
        time.sleep(POLL_S)
    started_s = time.monotonic()
    scored = 0
    # monotonic() is the machine's clock: processes can be compared with each other.
    while images and (scored == 0 or time.monotonic() - started_s < SHORTEST_RUN_S):
        done = _score_all(bundle, images, options.decode_threads, options.batch_images)
        if done == 0:
            break  # no image of this share can be decoded
        scored += done
    answer = {"started_s": started_s, "ended_s": time.monotonic(), "images": scored}
    unfinished = options.result.with_suffix(".part")
    unfinished.write_text(json.dumps(answer))
    unfinished.replace(options.result)
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.embedded.demo.bare")
    for name in ("--bundle", "--files", "--result", "--go"):
        parser.add_argument(name, type=Path, required=True)
    for name in ("--engine-threads", "--decode-threads", "--batch-images"):
        parser.add_argument(name, type=int, required=True)
    return parser.parse_args(arguments)


def _score_all(
    bundle: Bundle, images: Sequence[bytes], decode_threads: int, batch_images: int
) -> int:
    """How many images were scored: decoding goes on in threads while a batch is inferred."""
    scored = 0
    with ThreadPoolExecutor(decode_threads) as pool:
        decoded = pool.map(lambda data: _decoded(bundle, data), images)
        usable = (crops_NHWC for crops_NHWC in decoded if crops_NHWC is not None)
        for batch in _batches(usable, batch_images):
            crops_NHWC = np.concatenate(batch)
            step = bundle.runtime.batch_max
            for start in range(0, len(crops_NHWC), step):
                bundle.runtime.infer(crops_NHWC[start : start + step])
            scored += len(batch)
    return scored


def _decoded(bundle: Bundle, data: bytes) -> NDArray[np.uint8] | None:
    try:
        return prepare(data, bundle.manifest.preprocess, Limits()).image_NHWC
    except ImageError:
        return None  # the workers' dead letter


def _batches(items: Iterator[NDArray[np.uint8]], size: int) -> Iterator[list[NDArray[np.uint8]]]:
    while batch := list(islice(items, size)):
        yield batch


if __name__ == "__main__":
    sys.exit(main())
