"""Prints one line for each verdict of the results topic, from its beginning, until stopped.

A verdict may arrive twice after a crash, with the same `id`: a consumer that acts on verdicts
keeps the ids that it has handled.

Usage: follow_verdicts.py [COUNT]    Environment: KAFKA (host:port), VERDICT_TOPIC
"""

import json
import os
import sys

from kafka import KafkaConsumer

TOPIC = os.environ.get("VERDICT_TOPIC", "images.verdicts")


def main(arguments: list[str]) -> int:
    """Print all verdicts, or the first COUNT."""
    limit = int(arguments[0]) if arguments else None
    consumer = KafkaConsumer(
        TOPIC,
        bootstrap_servers=os.environ.get("KAFKA", "localhost:9092"),
        group_id=None,  # reads all partitions by itself and commits nothing
        auto_offset_reset="earliest",
    )
    handled: set[str] = set()
    for record in consumer:
        event = json.loads(record.value)
        if event["id"] in handled:
            continue
        handled.add(event["id"])
        verdict = event["data"]
        score = verdict["scores"][0]["score"]
        print(f"{verdict['content_id']}: {verdict['band']}, score {score:.3f}", flush=True)
        if len(handled) == limit:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
