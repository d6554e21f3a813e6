#!/usr/bin/env bash
# One retraining, from images to a channel, for whatever starts jobs: cron, a systemd timer, Kubernetes.
# `python -m trainer retrain` does the work, each step once; this sees to it that there is one at a time,
# that a job which is tried again goes on in the same folder, and that a SIGTERM reaches the training.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
readonly HELD=75 SETTINGS=78  # EX_TEMPFAIL, EX_CONFIG of sysexits.h

usage() {
  cat <<'TEXT'
usage: deploy/retrain/run.sh [options of python -m trainer retrain]

All of these are needed:
  SYNTHGATE_RETRAIN_RUN_ID   names the run's folder; the same when the job is tried again, which then goes on
  SYNTHGATE_RETRAIN_RUNS     the folder of all runs, on storage that outlives the job; it must be there
  SYNTHGATE_RETRAIN_CONFIG   the configuration (TOML)
  SYNTHGATE_RETRAIN_DATA     folders with real/* and fake/*, a colon between them
  SYNTHGATE_RETRAIN_KEY      the private key that signs (PEM), a file
  SYNTHGATE_RETRAIN_STORE    a directory, or s3://BUCKET/PREFIX

These are not:
  SYNTHGATE_RETRAIN_CHANNEL  what it is released to (canary)
  SYNTHGATE_RETRAIN_CACHE    targets of the teacher, kept from run to run (cache, beside the runs)
  SYNTHGATE_RETRAIN_PYTHON   the interpreter (.venv-dev/bin/python of this checkout)

Exit status: 0 if the channel is at the bundle, 75 if another retraining holds the folder of all runs,
78 for a setting that is missing or wrong, 143 after a SIGTERM; else that of the command.
TEXT
}

fail() {
  local status="$1"
  shift
  echo "run.sh: $*" >&2
  exit "$status"
}

need() {
  [[ -n "${!1:-}" ]] || fail "$SETTINGS" "$1 is not set: it is $2 (--help lists all settings)"
}

if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  usage
  exit 0
fi

need SYNTHGATE_RETRAIN_RUN_ID "a name for this run, the same when the job is tried again"
need SYNTHGATE_RETRAIN_RUNS "the folder of all runs"
need SYNTHGATE_RETRAIN_CONFIG "the configuration"
need SYNTHGATE_RETRAIN_DATA "the folders with real/* and fake/*, a colon between them"
need SYNTHGATE_RETRAIN_KEY "the private key that signs"
need SYNTHGATE_RETRAIN_STORE "where releases are kept"

run_id="$SYNTHGATE_RETRAIN_RUN_ID"
runs="$SYNTHGATE_RETRAIN_RUNS"
python="${SYNTHGATE_RETRAIN_PYTHON:-$root/.venv-dev/bin/python}"
IFS=: read -r -a data <<<"$SYNTHGATE_RETRAIN_DATA"

[[ "$run_id" =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ && "$run_id" != cache ]] ||
  fail "$SETTINGS" "SYNTHGATE_RETRAIN_RUN_ID is '$run_id': it names a folder, by letters, digits, '.', '_' and '-' ('cache' is taken)"
# A volume that is not mounted must not be taken for one without runs: the training would start anew.
[[ -d "$runs" && -w "$runs" ]] ||
  fail "$SETTINGS" "SYNTHGATE_RETRAIN_RUNS: $runs is no folder that can be written: mount or make it"
command -v "$python" >/dev/null ||
  fail "$SETTINGS" "there is no interpreter $python: make one by 'make dev', or name one by SYNTHGATE_RETRAIN_PYTHON"
command -v flock >/dev/null ||
  fail "$SETTINGS" "flock is not installed (Debian: apt-get install util-linux)"

# The training inherits the lock: should it outlive this shell, the next job still waits its turn.
exec 9>>"$runs/.lock"
flock --nonblock 9 ||
  fail "$HELD" "another retraining holds $runs/.lock: this one did nothing; start it again when that one is done"

# The name stands in the channel's history; a container's user has often none.
id -un >/dev/null 2>&1 || export LOGNAME="${LOGNAME:-retrain}"

child=
asked_to_end=
pass_on() {
  asked_to_end=yes
  [[ -z "$child" ]] || kill -TERM -- "-$child" 2>/dev/null || true
}
trap pass_on TERM INT HUP

echo "run.sh: run $run_id in $runs/$run_id" >&2
set -m # a process group of its own, so that the signal reaches what it started too
"$python" -m trainer retrain \
  --config "$SYNTHGATE_RETRAIN_CONFIG" --data "${data[@]}" --output "$runs/$run_id" \
  --cache "${SYNTHGATE_RETRAIN_CACHE:-$runs/cache}" --key "$SYNTHGATE_RETRAIN_KEY" \
  --store "$SYNTHGATE_RETRAIN_STORE" --channel "${SYNTHGATE_RETRAIN_CHANNEL:-canary}" \
  "$@" </dev/null &
child=$!
[[ -z "$asked_to_end" ]] || pass_on # it came before there was a child

# A signal ends a wait early; what the command ended with is what the last wait says.
while :; do
  asked_to_end=
  status=0
  wait "$child" || status=$?
  [[ -n "$asked_to_end" ]] || break
done
echo "run.sh: run $run_id ended with status $status" >&2
exit "$status"
