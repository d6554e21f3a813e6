"""Which failure belongs to which arrow, and what happens to the event.

    topic ──> consume ──> event ──> fetch ──> decode ──> batch ──> infer ──> decide ──> publish ──> commit
      │                     │         │          │                   │                    │           │
      │                  Poison    Poison     Poison              Poison              (retried     (retried at
      │               (malformed) (dead link (not an image,   (an image that alone     until it     the next
      │                            after its  too large,       breaks the engine)      succeeds)    interval)
      │                            attempts)  truncated)          Fatal                Fatal
      │                                                        (every image breaks   (not authorised)
    (kafka-python reconnects)                                   the engine)

- :class:`Poison`: this event can never work. It goes to the dead-letter topic with stage and code, and
  is acknowledged as any other. No other event of its batch is harmed.
- :class:`Retryable`: the same call may work later. The stage tries again with growing pauses; nothing
  is acknowledged meanwhile.
- :class:`Fatal`: this process cannot go on. It ends with a non-zero status and commits nothing that it
  has not published, so that another worker takes the events over. :class:`DeviceGone` is one that a restart
  may mend, and has an exit status of its own. A canary or a shadow that breaks only
  loses its seat.
"""


class WorkerError(Exception):
    """Base of the three kinds."""


class Poison(WorkerError):
    """This event can never work.

    Args:
        stage: The stage that found out: event, fetch, decode or infer.
        code: A short, stable name of the reason, for metrics and for ``replay --code``.
        message: What is wrong and what its sender can do; never holds payload or credentials.
        attempts: How often the stage tried.
    """

    def __init__(self, stage: str, code: str, message: str, attempts: int = 1) -> None:
        super().__init__(message)
        self.stage = stage
        self.code = code
        self.message = message
        self.attempts = attempts


class Retryable(WorkerError):
    """The same call may work later."""


class Fatal(WorkerError):
    """The process cannot go on; it ends non-zero and loses nothing."""


class DeviceGone(Fatal):
    """The engine's device is lost to this process: a restart helps, perhaps on another machine."""
