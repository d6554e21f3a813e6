"""The brokers and the cache: they answer when started, and never outlive who started them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from redis import Redis

from deploy.embedded.child import Child
from deploy.embedded.services import Server, ServiceError, free_port, tansu_broker, valkey_cache
from deploy.embedded.topics import create_topics
from tests.support.services import BrokerKind, MakeTopics, make_broker

ROOT = Path(__file__).resolve().parents[2]
# Starts a command under each guard, tells its pid, and waits to be ended.
# A shell's background job starts with SIGINT ignored, and so would everything below it.
PARENT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from deploy.embedded.child import Child
child = Child(["sleep", "600"], log_path=Path(sys.argv[1]) / "child.log", guard=sys.argv[2])
sys.stdout.write(f"{child.pid}\\n")
sys.stdout.flush()
time.sleep(600)
"""


def processes_in_group(leader_pid: int) -> list[int]:
    """The living members of a process group (a zombie holds nothing and does not count)."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in listing.splitlines()]
    return [int(pid) for pid, group, stat in rows if int(group) == leader_pid and stat[0] != "Z"]


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Whether the condition comes true in time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_records_come_back_from_the_broker_of_this_session(
    bootstrap: str, topics: MakeTopics
) -> None:
    """A created topic has its partitions, and gives back what was produced to it."""
    (name,) = topics("roundtrip", partitions=2)
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for partition in (0, 1):
        producer.send(name, value=b"%d" % partition, partition=partition).get(timeout=10)
    producer.close()
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    try:
        assert consumer.partitions_for_topic(name) == {0, 1}
        consumer.assign([TopicPartition(name, 0), TopicPartition(name, 1)])
        values: set[bytes] = set()

        def all_read() -> bool:
            for records in consumer.poll(timeout_ms=200).values():
                values.update(record.value for record in records)
            return values == {b"0", b"1"}

        assert wait_for(all_read)
    finally:
        consumer.close()


def test_a_topic_is_not_created_twice(bootstrap: str, topics: MakeTopics) -> None:
    """A name that exists already is an error: its partitions may not be what was asked for."""
    (name,) = topics("twice")
    with pytest.raises(Exception, match=r"(?i)exists"):
        create_topics(bootstrap, {name: 1})


def test_cache_keeps_a_value(redis_url: str) -> None:
    """The cache is a Redis for its clients."""
    with Redis.from_url(redis_url) as client:
        client.set("key", "value")
        assert client.get("key") == b"value"


@pytest.mark.parametrize("make", [tansu_broker, valkey_cache])
def test_a_server_keeps_its_port_through_restart_and_kill(
    make: Callable[[Path], Server], tmp_path: Path
) -> None:
    """Clients find a restarted server where it was."""
    with make(tmp_path) as server:
        address, pid = server.address, server.pid
        server.restart()
        assert server.address == address
        assert server.pid != pid
        server.kill()
        assert not server.is_running
        server.start()
        assert server.address == address
        group = server.pid
    assert not server.is_running
    assert processes_in_group(group) == []


def test_a_broker_of_the_kind_under_test_restarts(broker_kind: BrokerKind, tmp_path: Path) -> None:
    """A broker answers on the same address after a restart; Apache Kafka still has its topics."""
    with make_broker(broker_kind, tmp_path) as server:
        address = server.address
        create_topics(address, {"kept": 2})
        server.restart()
        assert server.address == address
        consumer = KafkaConsumer(bootstrap_servers=address)
        try:
            kept = consumer.topics()
        finally:
            consumer.close()
        assert ("kept" in kept) == (broker_kind is BrokerKind.KAFKA)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error carries the end of the server's own log."""
    server = Server(
        "a server without a program",
        command=lambda _port: ["/no/such/program"],
        answers=lambda _host, _port: False,
        log_path=tmp_path / "log",
    )
    with pytest.raises(ServiceError, match=r"(?s)ended with status 127.*No such file"):
        server.start()


def test_a_server_refuses_a_port_that_another_has(cache: Server, tmp_path: Path) -> None:
    """What answers on the port would be the other server, not the one just started."""
    with pytest.raises(ServiceError, match=f"port {cache.port}.*in use"):
        valkey_cache(tmp_path, port=cache.port).start()


def test_a_server_that_never_answers_is_ended(tmp_path: Path) -> None:
    """A silent server is an error after its time, and does not stay behind."""
    pids: list[int] = []

    def answers(_host: str, _port: int) -> bool:
        pids.append(server.pid)
        return False

    server = Server(
        "a silent server",
        command=lambda _port: ["sleep", "600"],
        answers=answers,
        log_path=tmp_path / "silent.log",
        start_timeout_s=0.2,
    )
    with pytest.raises(ServiceError, match="did not answer within"):
        server.start()
    assert processes_in_group(pids[0]) == []


@pytest.mark.parametrize("guard", ["exec", "watch"])
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_orphan_however_the_parent_ends(
    guard: str, ending: signal.Signals, tmp_path: Path
) -> None:
    """The child ends with a parent that is killed, terminated or interrupted."""
    if guard == "exec" and sys.platform != "linux":
        return  # elsewhere there is only one way, and it is the other parameter
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), guard],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    child_pid = int(parent.stdout.readline())
    assert processes_in_group(child_pid)
    parent.send_signal(ending)
    parent.wait(timeout=10)
    parent.stdout.close()
    assert wait_for(lambda: processes_in_group(child_pid) == [])


@pytest.mark.parametrize("guard", ["exec", "watch"])
def test_a_child_may_finish_at_sigterm(guard: str, tmp_path: Path) -> None:
    """SIGTERM reaches the command itself under either guard, and its exit status comes back."""
    script = "trap 'echo drained; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    child = Child(
        ["bash", "-c", script],
        log_path=tmp_path / "log",
        guard="exec" if guard == "exec" else "watch",
    )
    assert wait_for(lambda: "ready" in child.log_tail())
    assert child.stop() == 3
    assert "drained" in child.log_tail()


def test_free_ports_are_free() -> None:
    """A free port can be bound by a server at once."""
    assert 0 < free_port() < 65536
