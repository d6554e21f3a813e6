"""A process that keeps its memory does not fault the same pages in at every step."""

import platform
import subprocess
import sys

import pytest

_ROUNDS = """
import resource, sys
from trainer.memory import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
for _ in range(8):
    b"x" * (64 * 2**20)  # a block of its own, written to the last page, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def _faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _ROUNDS, how], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's malloc")
def test_a_freed_block_is_used_again_without_the_kernel() -> None:
    assert _faults("kept") < _faults("left") / 3
