#!/usr/bin/env bash
# Runs one Apache Kafka broker (KRaft: broker and controller in one process) on the loopback
# address. Needs Java 17 or newer and, the first time, Maven to fetch the jars (46 files, 44 MB).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
libs="$root/build/kafka/libs"
port=9092
controller_port=
data_dir="$root/build/kafka/data"
heap=512m
prepare_only=no
properties=()

usage() {
  cat <<TEXT
usage: deploy/kafka/start.sh [options]

  --port N              port of the broker (default $port)
  --controller-port N   port of the controller (default: the broker's port + 1)
  --data-dir DIR        directory of the log; kept between starts (default build/kafka/data)
  --heap SIZE           Java heap, as for java -Xmx (default $heap)
  --property KEY=VALUE  an extra line of the broker's configuration (may be repeated)
  --prepare             fetch the jars and exit
TEXT
}

fail() {
  echo "start.sh: $*" >&2
  exit 1
}

while (($#)); do
  case "$1" in
    --prepare) prepare_only=yes; shift; continue ;;
    -h | --help) usage; exit 0 ;;
    --port | --controller-port | --data-dir | --heap | --property) ;;
    *) usage >&2; fail "unknown option $1" ;;
  esac
  (($# >= 2)) || fail "$1 needs a value"
  case "$1" in
    --port) port="$2" ;;
    --controller-port) controller_port="$2" ;;
    --data-dir) data_dir="$2" ;;
    --heap) heap="$2" ;;
    --property) properties+=("$2") ;;
  esac
  shift 2
done
controller_port="${controller_port:-$((port + 1))}"

check_java() {
  command -v java >/dev/null ||
    fail "java is not installed. Apache Kafka needs Java 17 or newer: apt-get install openjdk-17-jre-headless, or brew install openjdk@17"
  local version
  version="$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)"
  if [[ ! "$version" =~ ^[0-9]+$ ]] || ((version < 17)); then
    fail "java is version ${version:-unknown}, Apache Kafka needs 17 or newer: install one and put it first on PATH"
  fi
}

# The marker's name holds the pom's digest: another pom fetches anew.
fetch_jars() {
  local marker
  marker="$libs/.complete-$(cksum <"$here/pom.xml" | tr ' ' '-')"
  [[ -e "$marker" ]] && return
  command -v mvn >/dev/null ||
    fail "mvn is not installed, and the jars of Apache Kafka are not in build/kafka/libs yet. Install Maven: apt-get install maven, or brew install maven"
  echo "start.sh: fetching the jars of Apache Kafka (44 MB) to build/kafka/libs" >&2
  rm -rf "$libs"
  mkdir -p "$libs"
  mvn --batch-mode --quiet --file "$here/pom.xml" dependency:copy-dependencies \
    "-DoutputDirectory=$libs" >&2 ||
    fail "Maven could not fetch the jars (see above): it needs the Maven Central repository"
  touch "$marker"
}

write_configuration() {
  cat >"$1" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$data_dir/log
# Topics are created on purpose, with the partitions they need.
auto.create.topics.enable=false
# One node: nothing can be replicated, and few partitions start faster.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
# The first member of a group need not wait for a second.
group.initial.rebalance.delay.ms=0
# An image of 20 MiB, in base64, with its envelope.
message.max.bytes=33554432
replica.fetch.max.bytes=33554432
PROPERTIES
  local property
  for property in ${properties[@]+"${properties[@]}"}; do
    echo "$property" >>"$1"
  done
}

check_java
fetch_jars
[[ "$prepare_only" == yes ]] && exit 0

mkdir -p "$data_dir"
data_dir="$(cd "$data_dir" && pwd)"
configuration="$data_dir/server.properties"
write_configuration "$configuration"
java_options=(
  "-Xmx$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true
  -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true
)
if [[ ! -e "$data_dir/log/meta.properties" ]]; then
  cluster_id="$(java "${java_options[@]}" -cp "$libs/*" kafka.tools.StorageTool random-uuid)"
  java "${java_options[@]}" -cp "$libs/*" kafka.tools.StorageTool format \
    --cluster-id "$cluster_id" --config "$configuration" >&2
fi
# exec: the broker takes this process's place, so that a signal to it reaches the broker.
exec java "${java_options[@]}" -cp "$libs/*" kafka.Kafka "$configuration"
