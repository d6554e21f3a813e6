"""Prometheus metrics of one worker. Every name is defined here once, with its meaning for an operator.

Base units (seconds, bytes) and suffixes follow the naming conventions of Prometheus.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

STAGE_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """All metrics, in their own registry, so that tests and tools can hold several."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"synthgate_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"synthgate_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"synthgate_{name}", text, labels, buckets=buckets, registry=registry)

        # verdict, dead_letter, duplicate (a redelivered event that was already published), moved (its partition went
        # to another worker, which handles the event again).
        self.events = counter("events", "Events by outcome", "outcome")
        self.verdicts = counter("verdicts", "Verdicts by band", "band")
        self.dead_letters = counter("dead_letters", "Dead letters by reason", "stage", "code")
        # fetch, decode, infer: the stage alone; queued: until the worker received the event; total: from the record's
        # timestamp to the acknowledged publish.
        self.stage_seconds = histogram(
            "stage_duration_seconds", "Time of one event in a stage", STAGE_BUCKETS_S, "stage"
        )
        self.batch_images = histogram("batch_images", "Images in a batch", BATCH_BUCKETS)
        self.queue_depth = gauge("queue_depth", "Events waiting for a stage", "stage")
        self.in_flight_events = gauge("in_flight_events", "Events received and not yet published")
        self.in_flight_bytes = gauge("in_flight_bytes", "Bytes of the records in flight")
        self.paused = gauge("paused", "1 while partitions are paused because enough is in flight")
        # From the consumer's own high-water mark.
        self.lag = gauge("consumer_lag_records", "Records not yet received", "topic", "partition")
        self.assigned = gauge("assigned_partitions", "Partitions this worker owns")
        self.rebalances = counter("rebalances", "Rebalances by kind", "kind")
        self.commits = counter("offset_commits", "Offset commits", "result")
        self.publish_retries = counter("publish_retries", "Retries of publishing", "target")
        self.score_cache = counter("score_cache_lookups", "Look-ups in the score cache", "result")
        self.stale_verdicts = counter(
            "stale_verdicts", "Verdicts that Redis refused because it holds a newer one"
        )
        self.dependency_up = gauge("dependency_up", "1 if the dependency answers", "dependency")
        # By role: deciding, canary, shadow.
        self.engine = Info("synthgate_engine", "The installed engine", ("role",), registry=registry)
        # swapped; refused (must not be used: the installed engine stays); store_away (the download failed and is
        # tried again); broken (a canary or shadow that failed at run time and lost its slot).
        self.engine_swaps = counter(
            "engine_swaps", "New engine versions by outcome", "role", "outcome"
        )
        # published; dropped (the shadow is slower than the stream); failed. Never a part of ``events``.
        self.shadow_events = counter(
            "shadow_events", "Events submitted to the shadow, by outcome", "outcome"
        )

    def swapped(self, role: str, outcome: str) -> None:
        """Count a new engine version by its outcome."""
        self.engine_swaps.labels(role, outcome).inc()
