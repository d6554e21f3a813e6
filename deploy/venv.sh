#!/usr/bin/env bash
# Makes or updates a virtual environment: exactly what a lock names, checked against its hashes,
# and this checkout itself (editable), so that `python -m worker` works from any directory.
#
#   deploy/venv.sh DIRECTORY LOCK     PYTHON=/path/to/python names the interpreter to use
set -euo pipefail

directory="$1"
lock="$2"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bootstrap="$root/deploy/locks/bootstrap.txt"

fail() {
  echo "venv.sh: $*" >&2
  exit 1
}

# The locks name wheels for these versions. Runs each candidate: a name on PATH may be a shim for a version that is not installed.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 to 3.14 among: ${PYTHON:-python3.11, python3.12, python3.13, python3.14, python3, python}. Install one, or name it: make PYTHON=/path/to/python3.11 ..."
}

if [[ ! -x "$directory/bin/pip" ]]; then
  python="$(find_python)"
  "$python" -m venv "$directory" ||
    fail "$python cannot make a virtual environment: install its venv module (Debian: apt-get install python3-venv)"
fi

echo "venv.sh: installing $(basename "$lock" .txt) into $directory" >&2
# pip only brings uv, which installs the rest many times faster.
"$directory/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
  --requirement "$bootstrap"
uv=("$directory/bin/uv" pip install --quiet --python "$directory/bin/python")
"${uv[@]}" --require-hashes --requirement "$lock"
"${uv[@]}" --no-deps --no-build-isolation --editable "$root"
