"""``dry-run``: checks bundle, cache, broker, topics and events without publishing anything.

Prints one result per check: on a terminal as text, elsewhere one JSON object per line (``check``, ``ok``, and
``detail`` or ``error``). Each event file (a CloudEvent or a bucket notification in JSON) runs through the stages up
to the decision.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from kafka import KafkaConsumer
from kafka.errors import KafkaError
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from engines.bundle.manifest import BundleError
from engines.bundle.verify import Bundle
from worker.cache import VerdictCache, connect
from worker.decide import decide
from worker.engine import load_bundle_in_force
from worker.errors import Poison, WorkerError
from worker.event import Record, parse_event
from worker.infer import Item, infer_batch
from worker.intake import build_fetcher, checked_sha256, decode, limits_of
from worker.kafka import connection_options
from worker.settings import Settings
from worker.types import Score

Detail = dict[str, object]


def dry_run(settings: Settings, events: Sequence[Path], out: TextIO, *, offline: bool) -> bool:
    """Run all checks.

    Args:
        settings: The settings of the worker to check.
        events: Files that hold one event each.
        out: Where the results go.
        offline: Whether to skip cache and broker.

    Returns:
        Whether every check passed.
    """
    passed = []

    def check(name: str, step: Callable[[], Detail]) -> None:
        try:
            result: Detail = {"check": name, "ok": True, "detail": step()}
        except (WorkerError, BundleError, KafkaError, OSError) as error:
            result = {"check": name, "ok": False, "error": str(error) or repr(error)}
        passed.append(result["ok"])
        _write(result, out)

    bundles: list[Bundle] = []
    check("bundle", lambda: _check_bundle(settings, bundles))
    if not offline:
        check("redis", lambda: _check_redis(settings))
        check("kafka", lambda: _check_kafka(settings))
    for path in events if bundles else ():
        check(f"event {path}", lambda path=path: _check_event(settings, bundles[0], path))  # type: ignore[misc]
    return all(passed)


def _write(result: Detail, out: TextIO) -> None:
    if out.isatty():
        _show(result, Console(file=out, highlight=False))
    else:
        out.write(json.dumps(result, ensure_ascii=False) + "\n")
    out.flush()


def _show(result: Detail, console: Console) -> None:
    state = ("ok", "green") if result["ok"] else ("failed", "red")
    console.print(Text.assemble(state, f" {result['check']}"))
    detail = result.get("detail", result.get("error"))
    lines = detail.items() if isinstance(detail, dict) else [("error", detail)]
    for name, value in lines:
        text = value if isinstance(value, str) else json.dumps(value)
        console.print(Padding(Text(f"{name}: {text}", overflow="fold"), (0, 0, 0, 3), expand=False))


def _check_bundle(settings: Settings, loaded: list[Bundle]) -> Detail:
    bundle = load_bundle_in_force(settings)
    # ``run`` stops at an unknown threshold set, so this check must fail too, with or without an event.
    thresholds = bundle.manifest.threshold_set(settings.decide.threshold_set)
    loaded.append(bundle)
    size_px = bundle.manifest.preprocess.crop_px
    grey_NHWC = np.full((1, size_px, size_px, 3), 128, dtype=np.uint8)
    started_s = time.monotonic()
    bundle.runtime.infer(grey_NHWC)
    return {
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "sha256": bundle.sha256,
        "runtime": bundle.runtime.name,
        "golden_max_difference": bundle.golden_max_difference,
        "threshold_set": thresholds.id,
        "infer_one_ms": round((time.monotonic() - started_s) * 1000, 3),
    }


def _check_redis(settings: Settings) -> Detail:
    VerdictCache(connect(settings.redis), settings.redis).ping()
    return {"url": settings.redis.url}


def _check_kafka(settings: Settings) -> Detail:
    consumer = KafkaConsumer(**connection_options(settings.kafka))
    try:
        topics = consumer.topics()
        missing = [topic for topic in settings.topics if topic not in topics]
        if missing:
            raise WorkerError(
                f"topics missing: {', '.join(missing)}: create them, or correct kafka.*_topic"
            )
        return {
            "bootstrap_servers": settings.kafka.bootstrap_servers,
            "partitions": {
                topic: len(consumer.partitions_for_topic(topic) or ()) for topic in settings.topics
            },
        }
    finally:
        consumer.close(autocommit=False)


def _check_event(settings: Settings, bundle: Bundle, path: Path) -> Detail:
    record = Record("dry-run", 0, 0, int(time.time() * 1000), None, path.read_bytes(), ())
    event = parse_event(record)
    data = event.payload
    if data is None:
        data = build_fetcher(settings, threading.Event().wait).fetch(event.uri or "")
    sha256 = checked_sha256(event, data)
    image = decode(data, bundle.manifest.preprocess, limits_of(settings.decode))
    score = infer_batch(bundle.runtime, [Item(sha256, image)])[0]
    if isinstance(score, Poison):
        raise score
    identity = {"event_id": event.event_id, "content_id": event.content_id, "sha256": sha256}
    return identity | _decision(settings, bundle, score)


def _decision(settings: Settings, bundle: Bundle, score: Score) -> Detail:
    thresholds = bundle.manifest.threshold_set(settings.decide.threshold_set)
    decision = decide(bundle.manifest.score(score.logit), thresholds, settings.decide.block)
    return {
        "score": decision.probability,
        "logit": score.logit,
        "band": decision.band,
        "reasons": list(decision.reasons),
    }
