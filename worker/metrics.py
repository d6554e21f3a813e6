"""Prometheus metrics of one worker. Every name is defined here once, with its meaning for an operator.

Base units (seconds, bytes) and suffixes follow Prometheus' naming conventions.
"""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

STAGE_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Metrics:
    """All metrics, in a registry of their own so that tests and tools can hold several."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    # Outcomes: verdict, dead_letter, duplicate (a redelivered event that was already published), moved (its
    # partition went to another worker, which handles the event again).
    events: Counter = field(init=False)
    verdicts: Counter = field(init=False)
    dead_letters: Counter = field(init=False)
    # fetch, decode, infer: the stage alone; queued: until the worker received the event; total: from the record's
    # timestamp to the acknowledged publish.
    stage_seconds: Histogram = field(init=False)
    batch_images: Histogram = field(init=False)
    queue_depth: Gauge = field(init=False)
    in_flight_events: Gauge = field(init=False)
    in_flight_bytes: Gauge = field(init=False)
    paused: Gauge = field(init=False)
    # From the consumer's own high-water mark: records on the partition that were not received yet.
    lag: Gauge = field(init=False)
    assigned: Gauge = field(init=False)
    rebalances: Counter = field(init=False)
    commits: Counter = field(init=False)
    publish_retries: Counter = field(init=False)
    score_cache: Counter = field(init=False)
    stale_verdicts: Counter = field(init=False)
    dependency_up: Gauge = field(init=False)
    # By role: deciding, canary, shadow.
    engine: Info = field(init=False)
    # swapped; refused (must not be used: the installed engine stays); store_away (the download failed and is tried
    # again); broken (a canary or shadow that failed at run time and lost its slot).
    engine_swaps: Counter = field(init=False)
    # published; dropped (the shadow is slower than the stream); failed. Never a part of ``events``.
    shadow_events: Counter = field(init=False)

    def __post_init__(self) -> None:
        registry = self.registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"synthgate_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"synthgate_{name}", text, labels, registry=registry)

        made: dict[str, Counter | Gauge | Histogram | Info] = {
            "events": counter("events", "Events by outcome", "outcome"),
            "verdicts": counter("verdicts", "Verdicts by band", "band"),
            "dead_letters": counter("dead_letters", "Dead letters by reason", "stage", "code"),
            "stage_seconds": Histogram(
                "synthgate_stage_duration_seconds",
                "Time of one event in a stage",
                ("stage",),
                buckets=STAGE_BUCKETS_S,
                registry=registry,
            ),
            "batch_images": Histogram(
                "synthgate_batch_images",
                "Images in a batch",
                buckets=BATCH_BUCKETS,
                registry=registry,
            ),
            "queue_depth": gauge("queue_depth", "Events waiting for a stage", "stage"),
            "in_flight_events": gauge("in_flight_events", "Events received and not yet published"),
            "in_flight_bytes": gauge("in_flight_bytes", "Bytes of the records in flight"),
            "paused": gauge("paused", "1 while partitions are paused because enough is in flight"),
            "lag": gauge("consumer_lag_records", "Records not yet received", "topic", "partition"),
            "assigned": gauge("assigned_partitions", "Partitions this worker owns"),
            "rebalances": counter("rebalances", "Rebalances by kind", "kind"),
            "commits": counter("offset_commits", "Offset commits", "result"),
            "publish_retries": counter("publish_retries", "Retries of publishing", "target"),
            "score_cache": counter("score_cache_lookups", "Look-ups in the score cache", "result"),
            "stale_verdicts": counter(
                "stale_verdicts", "Verdicts that Redis refused because it holds a newer one"
            ),
            "dependency_up": gauge("dependency_up", "1 if the dependency answers", "dependency"),
            "engine": Info(
                "synthgate_engine", "The installed engine", ("role",), registry=registry
            ),
            "engine_swaps": counter(
                "engine_swaps", "New engine versions by outcome", "role", "outcome"
            ),
            "shadow_events": counter(
                "shadow_events", "Events submitted to the shadow, by outcome", "outcome"
            ),
        }
        for name, metric in made.items():
            object.__setattr__(self, name, metric)

    def swapped(self, role: str, outcome: str) -> None:
        """Count a new engine version by its outcome."""
        self.engine_swaps.labels(role, outcome).inc()
