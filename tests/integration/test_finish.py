"""From a trained run to a bundle by one command, which does each step once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engines.bundle.keys import generate_key
from engines.bundle.manifest import read_manifest, weights_file
from engines.bundle.signatures import read_signatures
from tests.support.trainer import TINY, command_options, write_config, write_tiny_data
from trainer.cli import main

RATES = "[export]\nreview_fpr = 0.3\nblock_fpr = 0.25\n"
STEPS = ["calibrate", "evaluate", "export", "verify", "sign"]
BEFORE = "done before"
Finish = Callable[..., tuple[int, dict[str, str], str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, and a key."""
    folder = tmp_path_factory.mktemp("finish")
    write_tiny_data(folder / "data", count=24)
    # A limit that chance passes makes the evaluation VOID.
    text = TINY.replace("probe_limit = 1.0", "probe_limit = 0.1").replace("[export]\n", RATES)
    write_config(folder, "tiny", text)
    generate_key(folder / "key.pem")
    assert main(["train", *command_options(folder, "tiny", "run")], {}) == 0
    return folder


@pytest.fixture
def finish(folder: Path, capsys: pytest.CaptureFixture[str]) -> Finish:
    """The command: its exit status, what it says of each step, and all of its output."""

    def run(config: str = "tiny", bundle: str = "bundle") -> tuple[int, dict[str, str], str]:
        options = command_options(folder, config, "run")
        more = ["--bundle", str(folder / bundle), "--key", str(folder / "key.pem")]
        status = main(["finish", *options, *more], {})
        output = capsys.readouterr()
        lines = [line.split(": ", 1) for line in output.out.splitlines() if ": " in line]
        steps = {line[0]: line[1] for line in lines if line[0] in STEPS}
        return status, steps, " ".join((output.out + output.err).split())

    return run


def test_a_run_becomes_a_signed_bundle_once(finish: Finish, folder: Path) -> None:
    """Its failings are warnings, which the card repeats; a second call does nothing."""
    status, steps, output = finish()
    assert (status, list(steps)) == (0, STEPS)
    assert "VOID: " in output
    assert "not ANL: " in output
    card = (folder / "bundle" / "MODEL_CARD.md").read_text()
    assert "not ANL" in card
    assert "The evaluation is VOID" in card
    assert read_signatures(folder / "bundle") is not None
    assert weights_file(folder / "bundle").exists()
    assert finish()[:2] == (0, dict.fromkeys(STEPS, BEFORE))


def test_what_has_changed_is_done_again(finish: Finish, folder: Path) -> None:
    """Another card text makes another bundle, and is no reason to measure again."""
    finish()
    text = (folder / "tiny.toml").read_text()
    write_config(folder, "said", f'{text}[export.card]\nsummary = "Said anew."\n')
    status, steps, output = finish("said")
    assert status == 0, output
    assert [name for name, said in steps.items() if said != BEFORE] == ["export", "verify", "sign"]
    assert "Said anew." in (folder / "bundle" / "MODEL_CARD.md").read_text()
    write_config(folder, "next", text.replace("[export]\n", '[export]\nversion = "0.2.0"\n'))
    assert finish("next")[0] == 0
    assert read_manifest(folder / "bundle").version == "0.2.0"


def test_a_directory_of_something_else_is_left_alone(finish: Finish, folder: Path) -> None:
    """Only a bundle that this command wrote is replaced."""
    (folder / "photographs").mkdir()
    (folder / "photographs" / "one.jpg").write_text("mine")
    status, _, output = finish(bundle="photographs")
    assert status == 1
    assert "photographs is not empty" in output
    assert [path.name for path in (folder / "photographs").iterdir()] == ["one.jpg"]


def test_a_strict_configuration_refuses_before_it_measures(finish: Finish, folder: Path) -> None:
    """A run that is not ANL costs no evaluation."""
    text = (folder / "tiny.toml").read_text()
    write_config(folder, "strict", text.replace("[export]\n", "[export]\nstrict = true\n"))
    status, steps, output = finish("strict", bundle="strict")
    assert (status, steps) == (1, {})
    assert "set export.strict = false" in output
