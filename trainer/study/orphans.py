"""A process that must not outlive the one that started it.

In: nothing. Out: nothing; the process ends with status 3 as soon as its parent does, however that
ends. No errors. Two processes never work on one cell, even where a study is killed and started
again at once.
"""

import os
import threading
from multiprocessing import connection, parent_process

ORPHAN_STATUS = 3


def end_with_parent() -> None:
    """Watch the parent from a thread of its own."""
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(ORPHAN_STATUS)
