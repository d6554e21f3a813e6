#!/usr/bin/env bash
# One retraining, from images to a channel, started by cron, a systemd timer or Kubernetes.
# `synthgate trainer retrain` does the work, each step once. This script allows one retraining at a time,
# continues in the same folder after a failure, and passes SIGTERM on to the training.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
readonly HELD=75 SETTINGS=78  # EX_TEMPFAIL, EX_CONFIG of sysexits.h

usage() {
  cat <<'TEXT'
usage: deploy/retrain/run.sh [options of synthgate trainer retrain]

Required:
  SYNTHGATE_RETRAIN_RUN_ID   names the run's folder; use the same id to continue after a failure
  SYNTHGATE_RETRAIN_RUNS     the folder of all runs, on storage that outlives the job; it must exist
  SYNTHGATE_RETRAIN_CONFIG   the configuration (TOML)
  SYNTHGATE_RETRAIN_DATA     folders with real/* and fake/*, separated by colons
  SYNTHGATE_RETRAIN_KEY      the private key that signs (a PEM file)
  SYNTHGATE_RETRAIN_STORE    a directory, or s3://BUCKET/PREFIX

Optional:
  SYNTHGATE_RETRAIN_CHANNEL  the channel to release to (default: canary)
  SYNTHGATE_RETRAIN_CACHE    the teacher's targets, shared by all runs (default: RUNS/cache)
  SYNTHGATE_RETRAIN_PYTHON   the interpreter (default: .venv-dev/bin/python of this checkout)

Exit status: 0 if the channel is at the new bundle, 75 if another retraining holds the lock, 78 for a
missing or wrong setting, 143 after SIGTERM; otherwise the status of the command.
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

need SYNTHGATE_RETRAIN_RUN_ID "a name for this run; use the same one to continue after a failure"
need SYNTHGATE_RETRAIN_RUNS "the folder of all runs"
need SYNTHGATE_RETRAIN_CONFIG "the configuration"
need SYNTHGATE_RETRAIN_DATA "the folders with real/* and fake/*, separated by colons"
need SYNTHGATE_RETRAIN_KEY "the private key that signs"
need SYNTHGATE_RETRAIN_STORE "where releases are kept"

run_id="$SYNTHGATE_RETRAIN_RUN_ID"
runs="$SYNTHGATE_RETRAIN_RUNS"
python="${SYNTHGATE_RETRAIN_PYTHON:-$root/.venv-dev/bin/python}"
IFS=: read -r -a data <<<"$SYNTHGATE_RETRAIN_DATA"

[[ "$run_id" =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ && "$run_id" != cache ]] ||
  fail "$SETTINGS" "SYNTHGATE_RETRAIN_RUN_ID is '$run_id': it must name a folder with letters, digits, '.', '_' and '-' ('cache' is reserved)"
# Without this check, an unmounted volume would look like one without runs, and the training would start anew.
[[ -d "$runs" && -w "$runs" ]] ||
  fail "$SETTINGS" "SYNTHGATE_RETRAIN_RUNS: $runs is not a writable directory: mount or create it"
command -v "$python" >/dev/null ||
  fail "$SETTINGS" "the interpreter $python does not exist: run 'make dev', or set SYNTHGATE_RETRAIN_PYTHON"
command -v flock >/dev/null ||
  fail "$SETTINGS" "flock is not installed (Debian: apt-get install util-linux)"

# The training inherits the lock: if it outlives this shell, the next job is still refused.
exec 9>>"$runs/.lock"
flock --nonblock 9 ||
  fail "$HELD" "another retraining holds $runs/.lock: this one did nothing; start it again after the other has ended"

# The channel's history records the user's name, which a container's user often lacks.
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
[[ -z "$asked_to_end" ]] || pass_on # the signal came before the child existed

# A signal ends a wait early; only the last wait returns the command's status.
while :; do
  asked_to_end=
  status=0
  wait "$child" || status=$?
  [[ -n "$asked_to_end" ]] || break
done
echo "run.sh: run $run_id ended with status $status" >&2
exit "$status"
