"""Sends image files as upload events: the record's value is the image, the headers are a CloudEvent.

Usage: send_upload.py FILE...    Environment: KAFKA (host:port), UPLOAD_TOPIC
"""

import os
import sys
import uuid
from pathlib import Path

from kafka import KafkaProducer

TOPIC = os.environ.get("UPLOAD_TOPIC", "images.uploaded")


def main(paths: list[str]) -> int:
    """Send each file; the content id is the file's name."""
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    producer = KafkaProducer(bootstrap_servers=os.environ.get("KAFKA", "localhost:9092"))
    for path in map(Path, paths):
        headers = {
            "ce_specversion": "1.0",
            "ce_id": str(uuid.uuid4()),
            "ce_source": "/examples",
            "ce_type": "io.synthgate.image.uploaded.v1",
        }
        sent = producer.send(
            TOPIC,
            key=path.name.encode(),  # the content id: a verdict carries it
            value=path.read_bytes(),
            headers=[(name, text.encode()) for name, text in headers.items()],
        )
        place = sent.get(timeout=30)  # raises where the broker refuses the record
        print(f"{path.name}: partition {place.partition}, offset {place.offset}")
    producer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
