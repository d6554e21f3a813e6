"""From images to a channel by one command, which never does a step twice."""

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.bundle.keys import Trust, generate_key, key_id, read_private_key
from engines.bundle.manifest import read_manifest, weights_file
from engines.release.channels import fetch
from engines.release.records import Change, history, parse_channel
from engines.release.store import open_store
from tests.support.pairs import write_pairs
from tests.support.trainer import TINY, command_options, tiny_picture, write_tiny_data
from trainer.cli import main
from trainer.training.checkpoint import read_initial_weights

STEPS = ["train", "calibrate", "evaluate", "export", "compile", "verify", "sign", "release"]
RATES = "review_fpr = 0.3\nblock_fpr = 0.25\n"
BEFORE = "done before"


@dataclass(frozen=True)
class Job:
    """A retraining job's folder: images, a configuration, a key, and a store once it is made."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def write(self, name: str, before: str, after: str) -> str:
        """Another configuration: the tiny one with one text replaced."""
        text = TINY.replace("[export]\n", f"[export]\n{RATES}")
        assert before in text
        (self.folder / name).write_text(text.replace(before, after))
        return name

    def run(self, config: str = "tiny.toml", *more: str) -> tuple[int, dict[str, str], str]:
        """Exit status, what was said of each step, and the error."""
        paths = {"config": config, "data": "data", "output": "run", "cache": "cache"}
        paths |= {"key": "release.pem", "store": "store"}
        options = [
            text for name, at in paths.items() for text in (f"--{name}", str(self.folder / at))
        ]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(["retrain", *options, *more], self.environment)
        lines = [line.split(": ", 1) for line in out.getvalue().splitlines() if ": " in line]
        said = {line[0]: line[1] for line in lines if line[0] in (*STEPS, "quantize")}
        return status, said, " ".join(err.getvalue().split())

    def changes(self) -> list[Change]:
        """What happened to the channel."""
        return history(open_store(str(self.folder / "store")), parse_channel("canary"))


@pytest.fixture(scope="module")
def tries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, list[tuple[int, dict[str, str]]]]:
    """A job that was started three times: without a store, with one, and once more."""
    job = Job(tmp_path_factory.mktemp("retrain"))
    write_tiny_data(job.folder / "data")
    job.write("tiny.toml", "seed = 3", "seed = 3")
    generate_key(job.folder / "release.pem")
    first = job.run()
    (job.folder / "store").mkdir()
    return job, [one[:2] for one in (first, job.run(), job.run())]


def test_a_store_that_is_away_costs_no_second_training(
    tries: tuple[Job, list[tuple[int, dict[str, str]]]],
) -> None:
    """The first try ends at the release, the second does that alone, the third nothing at all."""
    job, [(status, first), (again, second), (once_more, third)] = tries
    assert (status, again, once_more) == (1, 0, 0)
    assert list(first) == STEPS[:-1]
    assert [name for name, text in second.items() if text == BEFORE] == STEPS[:-1]
    assert second["release"].startswith("done in")
    assert third == dict.fromkeys(STEPS, BEFORE)
    change = job.changes()[0]
    assert (change.action, change.after.version) == ("promote", "0.1.0")
    assert change.signed_by is not None


def test_a_file_that_was_lost_is_made_again_and_what_follows_stands(
    tries: tuple[Job, list[tuple[int, dict[str, str]]]],
) -> None:
    """The same thresholds come out, so nothing after them has changed."""
    job, _ = tries
    (job.folder / "run" / "calibrate.json").unlink()
    status, said, _ = job.run()
    assert status == 0
    assert [name for name, text in said.items() if text != BEFORE] == ["calibrate"]


def test_a_new_version_is_exported_and_released_without_a_training(
    tries: tuple[Job, list[tuple[int, dict[str, str]]]],
) -> None:
    """Everything that depends on the export is done again; the training is not."""
    job, _ = tries
    status, said, _ = job.run(job.write("next.toml", "[export]\n", '[export]\nversion = "0.2.0"\n'))
    assert status == 0
    assert [name for name, text in said.items() if text == BEFORE] == ["train"]
    assert [one.after.version for one in job.changes()] == ["0.1.0", "0.2.0"]
    assert list(json.loads((job.folder / "run" / "retrain.json").read_text())) == STEPS


def test_int8_joins_the_bundle_of_that_version(
    tries: tuple[Job, list[tuple[int, dict[str, str]]]],
) -> None:
    """Between export and compile, for the runtime asked for; the same pictures again do nothing."""
    job, _ = tries
    config = job.write("int8.toml", "[export]\n", '[export]\nversion = "0.3.0"\n')
    pictures = str(job.folder / "data")
    asked = ["--quantize", "int8", "--skip-latency"]
    asked += ["--calibration", pictures, "--evaluation", pictures]
    status, said, error = job.run(config, *asked)
    assert status == 0, error
    assert list(said) == [*STEPS[:4], "quantize", *STEPS[4:]]
    manifest = read_manifest(job.folder / "run" / "signed" / "tiny-0.3.0")
    assert manifest.version == "0.3.0"
    assert ("onnxruntime-cpu", "int8") in {(one.runtime, one.precision) for one in manifest.engines}
    assert set(job.run(config, *asked)[1].values()) == {BEFORE}


def test_plans_are_made_in_the_precisions_asked_for_and_judged(
    tries: tuple[Job, list[tuple[int, dict[str, str]]]],
) -> None:
    """By a library that builds without a GPU; its cost stands in the manifest."""
    job, _ = tries
    config = job.write("plans.toml", "[export]\n", '[export]\nversion = "0.4.0"\n')
    asked = ["--compile", "tensorrt-rtx", "--compile-precisions", "fp16", "fp32"]
    asked += ["--evaluation", str(job.folder / "data"), "--skip-latency"]
    status, _, error = job.run(config, *asked)
    assert status == 0, error
    manifest = read_manifest(job.folder / "run" / "signed" / "tiny-0.4.0")
    assert [one.precision for one in manifest.engines] == ["fp16", "fp32"]
    assert "fp16.auc_difference.tensorrt-rtx" in manifest.lineage.config


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--quantize", "int8"), "int8 must be compared with fp32: name --evaluation DIR"),
        (("--quantize", "bf16"), "bf16 must be compared with fp32: name --evaluation DIR"),
        (("--quantize", "int8", "--evaluation", "."), "int8 needs ranges: name --calibration DIR"),
        (
            ("--compile", "tensorrt", "--compile-precisions", "fp16"),
            "fp16 must be compared with fp32",
        ),
        (("--quantize", "bf16", "--evaluation", "/nowhere"), "/nowhere is not a directory"),
    ],
)
def test_a_precision_that_cannot_be_compared_costs_no_training(
    tmp_path: Path, asked: tuple[str, ...], message: str
) -> None:
    """What is missing is named before the first step."""
    job = Job(tmp_path)
    job.write("tiny.toml", "seed = 3", "seed = 3")
    status, said, error = job.run("tiny.toml", *asked)
    assert (status, said) == (1, {})
    assert message in error


def test_another_training_needs_another_folder(
    tries: tuple[Job, list[tuple[int, dict[str, str]]]],
) -> None:
    """A run is never trained on with other options, nor silently thrown away."""
    job, _ = tries
    status, said, error = job.run(job.write("other.toml", "lr = 0.01", "lr = 0.02"))
    assert (status, said) == (1, {})
    assert "name another --output" in error


REFERENCE = Path(__file__).parents[2] / "trainer" / "configs" / "reference.toml"
# The folders of the reference's configuration that its settings name, with fewer pictures in each.
FOLDERS = {
    'real = ["a"]': 'real = ["camera_crops"]',
    'fake = ["x"]': 'fake = ["sdxl"]',
    'real = ["b"]': 'real = ["lowlight"]',
    'fake = ["y"]': 'fake = ["playground2"]',
    'real = ["c"]': 'real = ["cameras"]',
    'fake = ["z"]': 'fake = ["kandinsky3"]',
    'real = ["d"]': 'real = ["bsds", "deb_story"]',
    'real = ["e"]': 'real = ["people_web", "deb_game"]',
    'fake = ["w"]': 'fake = ["dalle3", "flux1"]',
    "epochs = 3": "steps = 2",
    "min_explained_variance = 1.0\n": "",
}


def write_reference_job(folder: Path) -> Job:
    """The data and the settings of the shipped reference: what it measures, its thresholds, its card."""
    names = {"camera_crops": 12, "lowlight": 12, "cameras": 12, "bsds": 300, "people_web": 24}
    names |= {"deb_story": 4, "deb_game": 4}
    for number, (name, count) in enumerate(names.items()):
        write_pictures(folder / "data" / "real" / name, number, count, generated=False)
    for number, name in enumerate(("sdxl", "playground2", "kandinsky3", "dalle3", "flux1")):
        write_pictures(folder / "data" / "fake" / name, 50 + number, 12, generated=True)
    write_pairs(folder / "data", folder / "fakes", "people_web")
    text = TINY[: TINY.index("[evaluation]")]
    for before, after in FOLDERS.items():
        assert before in text
        text = text.replace(before, after)
    settings = REFERENCE.read_text()
    settings = settings[settings.index("[evaluation]") :]
    assert "probe_limit" not in settings
    settings = settings.replace(
        "[evaluation]\n", "[evaluation]\nresamples = 20\nattention_images = 0\n"
    )
    (folder / "reference.toml").write_text(text + settings)
    (folder / "development.toml").write_text(text + settings)
    generate_key(folder / "release.pem")
    (folder / "store").mkdir()
    return Job(folder)


def write_pictures(folder: Path, seed: int, count: int, *, generated: bool) -> None:
    """Small pictures, no two of them alike."""
    folder.mkdir(parents=True)
    for index in range(count):
        random = np.random.default_rng([seed, index])
        Image.fromarray(tiny_picture(random, generated=generated)).save(folder / f"{index:03}.png")


@pytest.mark.timeout(600)
def test_the_references_own_settings_reach_the_store(
    tmp_path: Path,
) -> None:
    """Its test split is VOID, and so short a run is not ANL: the card says both, and nothing refuses."""
    job = write_reference_job(tmp_path)
    environment = {
        "TRAINER_FAKES_TEST": str(tmp_path / "fakes"),
        "TRAINER_DEVELOPMENT": str(tmp_path / "development"),
    }
    for command in ("train", "calibrate", "evaluate"):
        options = command_options(tmp_path, "development", "development")
        assert main([command, *options], environment) == 0
    job = replace(job, environment=environment)
    status, steps, error = job.run("reference.toml")
    assert status == 0, error
    assert list(steps) == STEPS
    (change,) = job.changes()
    assert change.after.name == "reference"
    signed = tmp_path / "run" / "signed" / f"reference-{change.after.version}"
    manifest = read_manifest(signed)
    assert [one.id.rsplit("0-", 1)[1] for one in manifest.threshold_sets] == [
        "default",
        "few-alarms",
        "few-misses",
        "drawings",
    ]
    card = (signed / "MODEL_CARD.md").read_text()
    assert "The evaluation is VOID" in card
    assert "not ANL" in card
    fetch(open_store(str(tmp_path / "store")), "canary", tmp_path / "fetched", trust_of(job))
    assert weights_file(tmp_path / "fetched").read_bytes() == weights_file(signed).read_bytes()
    assert read_initial_weights(tmp_path / "fetched").seen.generators == {"sdxl"}


def trust_of(job: Job) -> Trust:
    """The job's own key."""
    public = read_private_key(job.folder / "release.pem").public_key()
    return Trust({key_id(public): public})


def test_a_key_that_is_not_there_costs_no_training(tmp_path: Path) -> None:
    """It is asked for before the first step."""
    job = Job(tmp_path)
    job.write("tiny.toml", "seed = 3", "seed = 3")
    status, said, error = job.run()
    assert (status, said) == (1, {})
    assert "release.pem" in error
