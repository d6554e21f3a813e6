"""``python -m worker replay``: dead letters back to the input, as an operator uses it."""

import json

import pytest

from tests.support.events import Outgoing, binary, picture, structured
from tests.support.image_server import ImageServer
from tests.support.lane import Lane
from tests.support.worker_process import environment, run_cli
from worker.cli import main


def test_replay_sends_back_what_is_asked_for_and_nothing_twice(
    lane: Lane,
    images: ImageServer,
    capsys: pytest.CaptureFixture[str],
    own_logging: None,
) -> None:
    """By stage, by code, up to a limit; listed first; what was fixed gets its verdict, the rest comes back."""
    changes = {
        "fetch__schemes": "http",
        "fetch__allow_private_networks": "true",
        "fetch__attempts": 1,
    }
    dead = [structured(f"link-{at}", uri=f"{images.url}/{at}.png") for at in range(3)]
    text = [binary(f"text-{at}", b"this is a text, not an image") for at in range(2)]
    odd = Outgoing(b"odd", b"{", (("synthgate.replays", b"often"), ("nothing", None), ("x", b"y")))
    worker = lane.start(**changes)
    variables = environment(lane.settings())

    def replayed(*options: str) -> dict[str, int]:
        status = main(["replay", *options], variables)
        written = capsys.readouterr()
        assert status == 0, written.err
        counts: dict[str, int] = json.loads(written.out)
        return counts

    with lane.dead_letters() as letters, lane.verdicts() as verdicts:
        assert replayed() == {}
        lane.send(*dead, *text, odd)
        letters.wait_for(6)
        assert replayed("--list") == {"listed": 6}
        assert replayed("--list", "--stage", "decode") == {"listed": 2, "filtered": 4}
        assert letters.to_end() == letters.got[:6]
        images.routes |= {f"/{at}.png": picture(at) for at in range(3)}
        first = replayed("--code", "not_found", "--limit", "1")
        assert first["replayed"] == 1
        verdicts.wait_for(1)
        second = replayed("--stage", "fetch")
        assert second == {"filtered": 3, "already_replayed": 1, "replayed": 2}
        verdicts.wait_for_keys([f"link-{at}" for at in range(3)])
        assert replayed("--stage", "fetch") == {"filtered": 3, "already_replayed": 3}
        assert replayed("--code", "malformed_json")["replayed"] == 1
        again = letters.wait_for(7)[6]
        assert again.key == b"odd"
        assert again.header("synthgate.replays") == "1"
        assert again.header("x") == "y"
        assert replayed("--code", "malformed_json")["replayed"] == 1
        assert letters.wait_for(8)[7].header("synthgate.replays") == "2"
        assert worker.drain() == 0
        assert len(verdicts.to_end()) == 3
        assert len(letters.to_end()) == 8


def test_replay_says_what_it_cannot_send_back(lane: Lane) -> None:
    """A dead letter without its value stays where it is, and the status says so."""
    lane.start(kafka__max_message_bytes=100_000)
    lane.send(Outgoing(b"large", b"{" + b" " * 300_000))
    with lane.dead_letters() as letters:
        letters.wait_for(1)
    done = run_cli(["replay"], lane.settings())
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"value_omitted": 1}
    assert "offset" in done.stderr


def test_replay_without_its_topic_is_a_clear_error(lane: Lane) -> None:
    """Status 1 and the name of the topic."""
    done = run_cli(["replay"], lane.settings(kafka__dead_letter_topic="no.such.topic"))
    assert done.returncode == 1
    assert "no.such.topic" in done.stderr
    assert "Traceback" not in done.stderr
