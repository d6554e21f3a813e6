"""The bare engine: the same images, decoding, batches and processes as the workers, without a broker.

Each process (``python -m deploy.embedded.demo.bare``) loads the bundle and its share of the files, then waits. All
start together, so that neither loading nor reading from disk is timed.
"""

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.embedded.child import Child
from deploy.embedded.demo.pictures import DemoError
from deploy.embedded.demo.workers import Tuning
from engines.bundle.verify import Bundle, load_bundle
from engines.preprocess import ImageError, Limits, prepare

POLL_S = 0.002
LOAD_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 300.0
SHORTEST_RUN_S = 1.0  # a shorter run would be mostly noise
LONGEST_RUN_S = 6.0  # a slow machine need not score every image to know its rate

MEMORY_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class BareResult:
    """Images that all processes scored, and the sum of their rates."""

    images: int
    images_per_s: float


def time_bare_engine(
    bundle: Path, files: Sequence[Path], *, processes: int, tuning: Tuning, directory: Path
) -> BareResult:
    """Score every file in ``processes`` processes, as fast as possible.

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
            result_path = directory / f"result-{index}.json"
            command = _command(bundle, share, result_path, go, tuning)
            child = Child(command, log_path=directory / f"bare-{index}.log")
            stack.callback(child.kill)
            children.append((child, result_path))
        for child, result_path in children:
            _wait_for(child, result_path.with_suffix(".ready"), LOAD_TIMEOUT_S)
        go.touch()
        for child, result_path in children:
            _wait_for(child, result_path, RUN_TIMEOUT_S)
        results = [json.loads(result_path.read_text()) for _, result_path in children]
    # Each rate uses its own duration: a process with fewer files ends earlier.
    return BareResult(
        sum(result["images"] for result in results),
        sum(result["images"] / result["duration_s"] for result in results),
    )


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
    """Run one process of the measurement."""
    options = _parse(sys.argv[1:])
    bundle = load_bundle(options.bundle, threads=options.engine_threads)
    images = _read([Path(name) for name in json.loads(options.files.read_text())])
    options.result.with_suffix(".ready").touch()
    while not options.go.exists():
        time.sleep(POLL_S)
    started_s = time.monotonic()
    scored = 0
    while images and (scored == 0 or time.monotonic() - started_s < SHORTEST_RUN_S):
        newly_scored = _score_all(
            bundle,
            images,
            decode_threads=options.decode_threads,
            batch_images=options.batch_images,
            until_s=started_s + LONGEST_RUN_S,
        )
        if newly_scored == 0:
            break  # no image of this share can be decoded
        scored += newly_scored
    answer = {"images": scored, "duration_s": time.monotonic() - started_s}
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


def _read(paths: Sequence[Path]) -> list[bytes]:
    """The files' bytes, up to MEMORY_BYTES: reading from disk must not be timed."""
    images: list[bytes] = []
    left_bytes = MEMORY_BYTES
    for path in paths:
        left_bytes -= path.stat().st_size
        if images and left_bytes < 0:
            break
        images.append(path.read_bytes())
    return images


def _score_all(
    bundle: Bundle,
    images: Sequence[bytes],
    *,
    decode_threads: int,
    batch_images: int,
    until_s: float,
) -> int:
    """Score the images, decoding in threads while a batch is inferred; returns how many were scored."""
    scored = 0
    pool = ThreadPoolExecutor(decode_threads)
    try:
        decoded = _in_order(pool, lambda data: _decoded(bundle, data), images, 4 * batch_images)
        usable = (crops_NHWC for crops_NHWC in decoded if crops_NHWC is not None)
        for batch in _batches(usable, batch_images):
            crops_NHWC = np.concatenate(batch)
            step = bundle.runtime.batch_max
            for start in range(0, len(crops_NHWC), step):
                bundle.runtime.infer(crops_NHWC[start : start + step])
            scored += len(batch)
            if time.monotonic() > until_s:
                break
    finally:
        pool.shutdown(cancel_futures=True)
    return scored


def _in_order(
    pool: ThreadPoolExecutor,
    decode: Callable[[bytes], NDArray[np.uint8] | None],
    images: Sequence[bytes],
    ahead: int,
) -> Iterator[NDArray[np.uint8] | None]:
    """Decoded images in order, with at most ``ahead`` of them waiting in memory."""
    waiting: deque[Future[NDArray[np.uint8] | None]] = deque()
    for image in images:
        waiting.append(pool.submit(decode, image))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()


def _decoded(bundle: Bundle, data: bytes) -> NDArray[np.uint8] | None:
    try:
        return prepare(data, bundle.manifest.preprocess, Limits()).image_NHWC
    except ImageError:
        return None  # the workers make it a dead letter


def _batches(items: Iterator[NDArray[np.uint8]], size: int) -> Iterator[list[NDArray[np.uint8]]]:
    while batch := list(islice(items, size)):
        yield batch


if __name__ == "__main__":
    sys.exit(main())
