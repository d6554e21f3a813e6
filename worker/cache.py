"""The worker's data in Redis: verdicts, marks of published messages, and scores by SHA-256.

Keys (``synthgate`` is redis.key_prefix):

- ``synthgate:verdict:{content_id}``: the content's verdict, a CloudEvent in JSON. A Lua script writes it: the verdict
  of a newer event stays, and for the same event that of a newer engine.
- ``synthgate:published:{id}``: this verdict or dead letter is on its topic, so a redelivered event is acknowledged
  without publishing it again.
- ``synthgate:score:{sha256}:{engine}``: the same bytes are not inferred twice by the same engine.

Raises :class:`Retryable` where Redis does not answer, and :class:`Fatal` where it refuses this worker.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import redis
from pydantic import TypeAdapter, ValidationError
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.errors import Fatal, Retryable
from worker.settings import RedisSettings
from worker.types import Score, ScoreKey

RECENT_SCORES = 4096

# Returns 'written', 'same' (the verdict is stored already) or 'stale' (a newer one is stored).
# A value of any type that is not a verdict is replaced: an error would block all later events.
WRITE_VERDICT = """
local old = redis.pcall('GET', KEYS[1])
if type(old) == 'string' then
  local readable, doc = pcall(cjson.decode, old)
  if readable and type(doc) == 'table' and type(doc.data) == 'table' then
    if doc.id == ARGV[2] then return 'same' end
    local event_time = doc.data.event_time or ''
    local built_at = (doc.data.model or {}).built_at or ''
    if event_time > ARGV[3] or (event_time == ARGV[3] and built_at > ARGV[4]) then return 'stale' end
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[5])
return 'written'
"""


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """A verdict as stored in Redis; the two times have a fixed width and compare as text."""

    id: str
    content_id: str
    document: bytes
    event_time: str
    built_at: str


@dataclass(frozen=True, slots=True)
class Published:
    """A message that is on its topic: its mark, and the verdict and score to store with it."""

    id: str
    verdict: StoredVerdict | None = None
    score_key: ScoreKey | None = None
    score: Score | None = None


def connect(settings: RedisSettings) -> "redis.Redis":
    """A Redis client; it connects at the first command."""
    tls = {
        "ssl_ca_certs": str(settings.tls_ca_file) if settings.tls_ca_file else None,
        "ssl_certfile": str(settings.tls_cert_file) if settings.tls_cert_file else None,
        "ssl_keyfile": str(settings.tls_key_file) if settings.tls_key_file else None,
    }
    return redis.Redis.from_url(
        settings.url,
        username=settings.username,
        password=settings.password.get_secret_value() if settings.password else None,
        socket_timeout=settings.timeout_s,
        socket_connect_timeout=settings.timeout_s,
        health_check_interval=30,
        # No retries here: the publisher retries with its own pauses and logs them.
        retry=Retry(NoBackoff(), 0),
        **(tls if settings.url.startswith("rediss://") else {}),
    )


class VerdictCache:
    """Reads and writes verdicts, marks and scores.

    Args:
        client: A Redis client; its pool is shared by all threads.
        settings: Prefix and times to live.
    """

    def __init__(self, client: "redis.Redis", settings: RedisSettings) -> None:
        self._client = client
        self._settings = settings
        self._write_verdict = client.register_script(WRITE_VERDICT)
        self._scores = TypeAdapter(Score)
        self._recent: OrderedDict[ScoreKey, Score] = OrderedDict()
        self._lock = threading.Lock()

    def ping(self) -> None:
        """Check the connection; raises Retryable or Fatal if Redis cannot be used."""
        with _classified():
            self._client.ping()

    def recent_score(self, key: ScoreKey) -> Score | None:
        """The score of these bytes by this engine, if this process has inferred them recently."""
        with self._lock:
            return self._recent.get(key)

    def remember_score(self, key: ScoreKey, score: Score) -> None:
        """Keep a score in memory, at least until it is in Redis."""
        with self._lock:
            self._recent[key] = score
            self._recent.move_to_end(key)
            while len(self._recent) > RECENT_SCORES:
                self._recent.popitem(last=False)

    def score(self, key: ScoreKey) -> Score | None:
        """The score of these bytes by this engine, from memory or from Redis.

        Raises:
            Retryable: Redis does not answer; the caller can infer instead.
        """
        if (score := self.recent_score(key)) is not None:
            return score
        with _classified():
            document = self._client.get(self._score_name(key))
        if document is None:
            return None
        try:
            score = self._scores.validate_json(document, strict=True)
        except ValidationError:
            return None  # not written by a worker: infer again
        self.remember_score(key, score)
        return score

    def published(self, ids: Sequence[str]) -> set[str]:
        """Those of the given verdict and dead-letter ids that are on their topic."""
        with _classified():
            marks = self._client.mget([self._mark_key(message_id) for message_id in ids])
        return {message_id for message_id, mark in zip(ids, marks, strict=True) if mark is not None}

    def record(self, published: Sequence[Published]) -> list[str]:
        """Write verdicts, marks and scores in one round trip; may be repeated.

        Returns:
            For each verdict among them: ``written``, ``same`` or ``stale``.
        """
        with _classified(), self._client.pipeline(transaction=False) as pipe:
            for item in published:
                if item.verdict is not None:
                    self._queue_verdict(pipe, item.verdict)
                pipe.set(self._mark_key(item.id), b"1", ex=self._settings.published_ttl_s)
                if item.score_key is not None and item.score is not None:
                    name = self._score_name(item.score_key)
                    pipe.set(name, json.dumps(asdict(item.score)), ex=self._settings.score_ttl_s)
            answers = pipe.execute()
        return [str(answer, "utf-8") for answer in answers if isinstance(answer, bytes)]

    def _queue_verdict(self, pipe: "redis.client.Pipeline", verdict: StoredVerdict) -> None:
        self._write_verdict(
            keys=[f"{self._settings.key_prefix}:verdict:{verdict.content_id}"],
            args=[
                verdict.document,
                verdict.id,
                verdict.event_time,
                verdict.built_at,
                self._settings.verdict_ttl_s,
            ],
            client=pipe,
        )

    def _mark_key(self, published_id: str) -> str:
        return f"{self._settings.key_prefix}:published:{published_id}"

    def _score_name(self, key: ScoreKey) -> str:
        return f"{self._settings.key_prefix}:score:{key.sha256}:{key.engine_id}"


@contextmanager
def _classified() -> Iterator[None]:
    """Turn Redis errors into Fatal (refused) or Retryable."""
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise Fatal(
            f"Redis refuses this worker (redis.username, redis.password): {error}"
        ) from error
    except redis.RedisError as error:
        raise Retryable(f"Redis: {error}") from error
