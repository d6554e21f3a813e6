"""Prints the newest verdict on a content id, as Redis holds it.

Usage: look_up_verdict.py CONTENT_ID    Environment: REDIS (URL), KEY_PREFIX
"""

import json
import os
import sys

import redis

PREFIX = os.environ.get("KEY_PREFIX", "synthgate")


def main(arguments: list[str]) -> int:
    """Print the verdict; exits 1 if there is none (not scored yet, or expired)."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    url = os.environ.get("REDIS", "redis://localhost:6379/0")
    with redis.Redis.from_url(url) as client:
        stored = client.get(f"{PREFIX}:verdict:{arguments[0]}")
    if stored is None:
        print(f"no verdict on {arguments[0]}", file=sys.stderr)
        return 1
    print(json.dumps(json.loads(stored), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
