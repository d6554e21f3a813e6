"""Where each kind of failure occurs, and what happens to the event.

    topic ──> consume ──> event ──> fetch ──> decode ──> batch ──> infer ──> decide ──> publish ──> commit
      │                     │         │          │                   │                    │           │
      │                  Poison    Poison     Poison              Poison              (retried     (retried at
      │               (malformed) (dead link (not an image,   (an image that alone     until it     the next
      │                            after its  too large,       breaks the engine)      succeeds)    interval)
      │                            attempts)  truncated)          Fatal                Fatal
      │                                                        (every image breaks   (not authorised)
    (kafka-python reconnects)                                   the engine)

- :class:`Poison`: this event will fail at every attempt. It goes to the dead-letter topic with stage and code, and is
  acknowledged like any other. Other events of its batch are not affected.
- :class:`Retryable`: the same call may succeed later. The stage retries with growing pauses; nothing is acknowledged
  meanwhile.
- :class:`Fatal`: this process cannot continue. It ends with a non-zero status and commits nothing unpublished, so
  another worker takes over its events. A restart may cure :class:`DeviceGone`, which has an exit status of its own.
  A canary or a shadow that breaks only loses its slot.
"""


class WorkerError(Exception):
    """Base of the three kinds."""


class Poison(WorkerError):
    """This event will fail at every attempt.

    Args:
        stage: The stage that failed: event, fetch, decode or infer.
        code: A short, stable name of the reason, for metrics and for ``replay --code``.
        message: What is wrong and what the sender can do; never contains payload or credentials.
        attempts: The number of attempts that the stage made.
    """

    def __init__(self, stage: str, code: str, message: str, attempts: int = 1) -> None:
        super().__init__(message)
        self.stage = stage
        self.code = code
        self.message = message
        self.attempts = attempts


class Retryable(WorkerError):
    """The same call may succeed later."""


class Fatal(WorkerError):
    """The process cannot continue; it ends with a non-zero status and loses nothing."""


class DeviceGone(Fatal):
    """The engine's device is lost to this process: restart it, perhaps on another machine."""
