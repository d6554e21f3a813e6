"""The demo's traffic: sends records to the input topic and reads verdicts and dead letters."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from deploy.embedded.demo.events import OutgoingRecord
from deploy.embedded.demo.ledger import DemoDeadLetter, DemoVerdict, Outcome
from deploy.embedded.demo.pictures import DemoError

STAGE_HEADER = "__connect.errors.stage"
CODE_HEADER = "synthgate.error.code"
MAX_REQUEST_BYTES = 32 * 1024 * 1024
ACK_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Topics:
    """The three topics of the worker's defaults."""

    uploaded: str = "images.uploaded"
    verdicts: str = "images.verdicts"
    dead_letters: str = "images.uploaded.DLT"


class RecordSender(threading.Thread):
    """Sends all records as fast as the broker accepts them and waits for the acknowledgements."""

    def __init__(self, bootstrap: str, topic: str, sends: Sequence[OutgoingRecord]) -> None:
        """Connect; ``start`` begins to send."""
        super().__init__(name="sender", daemon=True)
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            max_request_size=MAX_REQUEST_BYTES,
        )
        self._topic = topic
        self._sends = sends
        self.error: Exception | None = None

    def run(self) -> None:
        """Send all records; an error is kept for the main thread."""
        try:
            futures = [
                self._producer.send(self._topic, record.value, record.key, list(record.headers))
                for record in self._sends
            ]
            for future in futures:
                future.get(timeout=ACK_TIMEOUT_S)
        except KafkaError as error:
            self.error = error

    def close(self) -> None:
        """Close the connection."""
        self._producer.close(timeout=2)

    def raise_error(self) -> None:
        """Raise the error of the sending thread, if any."""
        if self.error is not None:
            raise DemoError(f"an event could not be sent: {self.error!r}") from self.error


class OutcomeReader:
    """Reads both outcome topics from their beginning, outside every consumer group."""

    def __init__(self, bootstrap: str, topics: Topics, partitions: int) -> None:
        """Connect."""
        self._topics = topics
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=None,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=MAX_REQUEST_BYTES,
        )
        names = (topics.verdicts, topics.dead_letters)
        self._consumer.assign(
            [TopicPartition(name, partition) for name in names for partition in range(partitions)]
        )

    def read(self, timeout_s: float) -> list[Outcome]:
        """The outcomes that arrive within ``timeout_s``; possibly none."""
        polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        return [self._outcome(record) for records in polled.values() for record in records]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._consumer.close()

    def _outcome(self, record: Any) -> Outcome:  # noqa: ANN401 (kafka-python has no types)
        if record.topic == self._topics.dead_letters:
            headers = {name: value.decode() for name, value in record.headers}
            return DemoDeadLetter(
                record.key.decode(), headers.get(STAGE_HEADER, ""), headers.get(CODE_HEADER, "")
            )
        return parse_verdict(record.value)


def parse_verdict(value: bytes) -> DemoVerdict:
    """Read the fields of a verdict that the demo uses.

    Raises:
        DemoError: The document does not follow the contract.
    """
    try:
        document = json.loads(value)
        data = document["data"]
        return DemoVerdict(
            verdict_id=document["id"],
            content_id=data["content_id"],
            event_id=data["event_id"],
            band=data["band"],
            score=data["scores"][0]["score"],
            total_ms=data["latency_ms"]["total"],
            queued_ms=data["latency_ms"]["queued"],
            bundle_sha256=data["model"]["bundle_sha256"],
        )
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DemoError(f"a verdict breaks the contract: {error!r}") from error
