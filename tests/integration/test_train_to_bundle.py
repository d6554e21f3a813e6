"""From folders of images to a bundle that a worker loads: every command, in order."""

import json
import shutil
from pathlib import Path

import pytest

from engines.bundle.manifest import read_manifest
from engines.bundle.verify import load_bundle
from engines.preprocess import Limits, prepare
from tests.support.trainer import TINY, first_files, write_drawn, write_tiny_data
from trainer.cli import main

RATES = '[export]\nreview_fpr = 0.3\nblock_fpr = 0.25\n[export.card]\nsummary = "A tiny one."\n'
SETS = "[export.threshold_sets.few-misses]\nreview_fpr = 0.5\nblock_fpr = 0.3\n"
DRAWINGS = '[export.threshold_sets.drawings]\nreview_fpr = 0.3\nblock_fpr = 0.25\nreal = ["*"]\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, evaluated, calibrated and exported."""
    folder = tmp_path_factory.mktemp("whole")
    write_drawn(write_tiny_data(folder / "data"), "drawn_a", "drawn_b")
    text = TINY.replace("epochs = 3", "epochs = 10").replace(
        "[evaluation]", '[evaluation]\nout_of_domain = ["drawn_*"]'
    )
    text = text.replace('["d"]', '["d", "drawn_a"]').replace('["e"]', '["e", "drawn_b"]')
    head, tail = text.split("[export]\n")
    (folder / "tiny.toml").write_text(
        head + RATES.replace("[export.card]", tail + SETS + DRAWINGS + "[export.card]")
    )
    for command in ("train", "calibrate", "evaluate", "export"):
        more = ["--bundle", str(folder / "bundle")] if command == "export" else []
        assert main([command, *options(folder), *more], {}) == 0
    return folder


def options(folder: Path, **changed: Path) -> list[str]:
    """The options that all commands share, some of them with other paths."""
    names = {"config": "tiny.toml", "data": "data", "output": "run", "cache": "cache"}
    paths = {name: folder / path for name, path in names.items()} | changed
    return [part for name, path in paths.items() for part in (f"--{name}", str(path))]


def test_the_bundle_loads_and_tells_unseen_images_apart(folder: Path) -> None:
    """The worker's own code scores generated pictures of an unseen folder above real ones."""
    bundle = load_bundle(folder / "bundle")
    scores: dict[str, list[float]] = {}
    for kind in ("real/e", "fake/w"):
        for path in sorted((folder / "data" / kind).iterdir()):
            crops = prepare(path.read_bytes(), bundle.manifest.preprocess, Limits()).image_NHWC
            logit = float(bundle.runtime.infer(crops).mean())
            scores.setdefault(kind, []).append(bundle.manifest.score(logit))
    bundle.runtime.close()
    assert bundle.golden_max_difference < 1e-3
    above = [fake > real for fake in scores["fake/w"] for real in scores["real/e"]]
    assert sum(above) > 0.75 * len(above)  # the AUC of a training of moments; 0.5 is chance


def test_the_manifest_says_what_was_measured(folder: Path) -> None:
    """Metrics of the unseen family, native and aligned; thresholds in order; the lineage."""
    manifest = read_manifest(folder / "bundle")
    assert {(one.generator, one.condition) for one in manifest.metrics} == {
        ("w", "native"),
        ("w", "aligned"),
    }
    assert not any(one.seen_in_training for one in manifest.metrics)
    measured = json.loads((folder / "run" / "evaluate-test.json").read_text())
    assert [one.auc for one in manifest.metrics] == [one["auc"] for one in measured["families"]]
    point = manifest.threshold_set(None).review
    assert point.n_real == 12
    assert point.fpr <= 0.3
    assert manifest.lineage.config["loss.lambda_noise"] == 1.0
    assert manifest.lineage.teacher_id.startswith("random-tiny")
    assert manifest.calibration.n == 24


def test_every_threshold_set_is_in_the_bundle_its_card_and_its_evaluation(folder: Path) -> None:
    """The one that the configuration names beside the default, at its own rates."""
    manifest = read_manifest(folder / "bundle")
    ids = [one.id for one in manifest.threshold_sets]
    assert ids == ["tiny-0.1.0-default", "tiny-0.1.0-few-misses", "tiny-0.1.0-drawings"]
    default, other, _ = manifest.threshold_sets
    assert default.review.fpr <= 0.3 < other.review.fpr <= 0.5
    assert (
        f"| few-misses | review | {other.review.threshold:.4f} |"
        in (folder / "bundle" / "MODEL_CARD.md").read_text()
    )
    report = json.loads((folder / "run" / "report-test" / "report.json").read_text())
    assert {one["threshold_set"] for one in report["false_alarms"]} == set(ids)


def test_drawings_stand_apart(folder: Path) -> None:
    """They set the thresholds of their own set alone, and are counted in no figure but their alarms."""
    manifest = read_manifest(folder / "bundle")
    default, _, drawings = manifest.threshold_sets
    assert (default.measured_on, default.review.n_real) == ("real/d", 12)
    assert (drawings.measured_on, drawings.review.n_real) == ("real/d, real/drawn_a", 22)
    # They look like what is generated here: photographs' thresholds are passed by most of them.
    assert drawings.review.threshold > default.review.threshold
    report = json.loads((folder / "run" / "report-test" / "report.json").read_text())
    assert (report["measured"]["n_real"], report["measured"]["n_out_of_domain"]) == (12, 10)
    assert {(one["source"], one["n"]) for one in report["false_alarms_out_of_domain"]} == {
        ("drawn_b", 10)
    }
    assert "Real pictures of other kinds (drawn_b) at review" in (
        (folder / "bundle" / "MODEL_CARD.md").read_text()
    )


RATE = ("review_fpr = 0.5", "review_fpr = 0.4", "(few-misses): run python -m trainer calibrate")
GATE = ("[export]\n", '[export]\ngate = "on"\n')


@pytest.mark.parametrize(
    ("command", "old", "new", "why"),
    [
        ("evaluate", *RATE),
        ("export", *RATE),
        ("evaluate", *GATE, "calibrate.json was measured with other options than"),
        ("export", *GATE, "evaluate-test.json was measured with other options than"),
    ],
)
def test_thresholds_of_another_configuration_are_refused(
    folder: Path, command: str, old: str, new: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set, a rate or a graph that was changed since calibrate is named, and what to do."""
    changed = folder / "changed.toml"
    changed.write_text((folder / "tiny.toml").read_text().replace(old, new))
    more = ["--bundle", str(folder / "other")] if command == "export" else []
    assert main([command, *options(folder, config=changed), *more], {}) == 1
    assert why in capsys.readouterr().err
    assert not (folder / "other").exists()


def test_other_photographs_may_judge_a_finished_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its thresholds and its test are measured anew, by other crops too, and no training for it."""
    shutil.copytree(folder / "run", tmp_path / "run")
    text = (folder / "tiny.toml").read_text()
    text = text.replace('["d", "drawn_a"]', '["d"]').replace('["e", "drawn_b"]', '["e"]')
    text = text.replace("[export]\n", '[export]\ncrop_policy = "five_crop"\nmax_crops = 5\n')
    (tmp_path / "tiny.toml").write_text(text)
    changed = options(folder, config=tmp_path / "tiny.toml", output=tmp_path / "run")
    exported = ["export", *changed, "--bundle", str(tmp_path / "bundle")]
    assert main(["evaluate", *changed], {}) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "data.splits.threshold.real was" in told
    assert "run python -m trainer calibrate again" in told
    assert main(["calibrate", *changed], {}) == 0
    assert main(exported, {}) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "data.splits.test.real was" in told
    assert "run python -m trainer evaluate again" in told
    assert main(["evaluate", *changed], {}) == 0
    assert main(exported, {}) == 0
    manifest = read_manifest(tmp_path / "bundle")
    assert {one.measured_on for one in manifest.threshold_sets} == {"real/d"}
    assert manifest.preprocess.max_crops == 5
    report = json.loads((tmp_path / "run" / "report-test" / "report.json").read_text())
    assert (report["measured"]["n_real"], report["measured"]["n_out_of_domain"]) == (12, 0)


def test_what_trains_and_chooses_is_that_of_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another validation split would have chosen other weights."""
    other = (folder / "tiny.toml").read_text().replace('real = ["b"]', "real = []")
    (folder / "other.toml").write_text(other)
    assert main(["calibrate", *options(folder, config=folder / "other.toml")], {}) == 1
    assert "data.splits.validation.real differ" in " ".join(capsys.readouterr().err.split())


def test_nothing_in_the_bundle_says_where_it_was_made(folder: Path) -> None:
    """No path of the training machine is in any file."""
    for path in (folder / "bundle").iterdir():
        assert str(folder).encode() not in path.read_bytes()


def test_the_card_gives_the_figures(folder: Path) -> None:
    """Its table holds the measured AUC, and the words come from the configuration."""
    card = (folder / "bundle" / "MODEL_CARD.md").read_text()
    assert f"{read_manifest(folder / 'bundle').metrics[0].auc:.3f}" in card
    assert "A tiny one." in card
    assert "Wilson" in card


def test_the_report_holds_every_figure_with_its_interval(folder: Path) -> None:
    """Thresholds came before it, so false alarms are in it; the card tells its findings."""
    report = json.loads((folder / "run" / "report-test" / "report.json").read_text())
    (family,) = report["families"]["native"]["families"]
    auc = family["figures"]["auc"]
    assert auc["low"] <= auc["value"] <= auc["high"]
    assert auc["value"] == pytest.approx(read_manifest(folder / "bundle").metrics[0].auc)
    assert {one["source"] for one in report["false_alarms"]} == {"e"}
    assert report["subject"]["training_data_digest"]
    for name in ("roc", "robustness", "scores", "reliability", "attention"):
        assert (folder / "run" / "report-test" / f"{name}.png").stat().st_size > 1000
    card = (folder / "bundle" / "MODEL_CARD.md").read_text()
    assert "Photographs of other sources at review" in card


def test_a_bundle_is_evaluated_through_its_runtime(folder: Path) -> None:
    """Anybody with the images gets the figures of the card; the run's own results stay."""
    before = (folder / "run" / "evaluate-test.json").read_text()
    more = ["--bundle", str(folder / "bundle"), "--report", str(folder / "checked")]
    assert main(["evaluate", *options(folder), *more], {}) == 0
    checked = json.loads((folder / "checked" / "evaluate-test.json").read_text())
    metrics = read_manifest(folder / "bundle").metrics
    assert [one["auc"] for one in checked["families"]] == pytest.approx(
        [one.auc for one in metrics], abs=0.02
    )
    assert (folder / "run" / "evaluate-test.json").read_text() == before
    text = (folder / "checked" / "report.md").read_text()
    assert "What the bundle's manifest says" in text
    assert not (folder / "checked" / "attention.png").exists()


def test_a_void_evaluation_is_a_warning_and_fails_where_strictness_is_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkerboard of these fakes fills bytes. What was measured is written either way."""
    write_tiny_data(tmp_path / "data", count=20)
    text = (folder / "tiny.toml").read_text().replace('["d", "drawn_a"]', '["d"]')
    text = text.replace('["e", "drawn_b"]', '["e"]').replace(
        "probe_limit = 1.0", "probe_limit = 0.5"
    )
    for strict, status in (("false", 0), ("true", 1)):
        config = tmp_path / f"{strict}.toml"
        config.write_text(text.replace("[evaluation]\n", f"[evaluation]\nstrict = {strict}\n"))
        report = tmp_path / strict
        changed = options(folder, config=config, data=tmp_path / "data")
        more = ["--bundle", str(folder / "bundle"), "--report", str(report)]
        assert main(["evaluate", *changed, *more], {}) == status
        told = capsys.readouterr()
        assert "VOID" in (told.err if status else told.out)
        assert (report / "report.md").read_text().startswith("# VOID: ")
        (finding, *_) = json.loads((report / "evaluate-test.json").read_text())["findings"]
        assert finding.startswith("**The evaluation is VOID**")  # as the card has it


def test_a_run_that_did_not_learn_its_target_is_not_called_anl(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its card says so, run.json too, and a strict configuration refuses the export."""
    assert "not ANL" in (folder / "bundle" / "MODEL_CARD.md").read_text()
    assert (
        "does not count as ANL" in json.loads((folder / "run" / "run.json").read_text())["unlearnt"]
    )
    strict = (folder / "tiny.toml").read_text().replace("[export]\n", "[export]\nstrict = true\n")
    (folder / "strict.toml").write_text(strict)
    arguments = options(folder, config=folder / "strict.toml")
    assert main(["export", *arguments, "--bundle", str(folder / "strict")], {}) == 1
    assert "set export.strict = false" in " ".join(capsys.readouterr().err.split())
    assert not (folder / "strict").exists()


def test_a_second_export_into_the_same_folder_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is there is never mixed or written over."""
    assert main(["export", *options(folder), "--bundle", str(folder / "bundle")], {}) == 1
    assert "not empty" in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def successor(folder: Path) -> Path:
    """A run that starts from the first one's weights and leaves no generator out."""
    text = (folder / "tiny.toml").read_text().replace("epochs = 10", "epochs = 1")
    manifest = first_files(folder / "data/fake/w", 6, "train", "test")
    text = text.replace("[data.splits.train]", f"{manifest}[data.splits.train]", 1)
    for part, name in (("train", "start_from"), ("export", "development")):
        text = text.replace(f"[{part}]\n", f'[{part}]\n{name} = "{folder / "run"}"\n')
    (folder / "successor.toml").write_text(text)
    for command in ("train", "calibrate", "evaluate", "export"):
        more = ["--bundle", str(folder / "later")] if command == "export" else []
        assert main([command, *of_the_successor(folder), *more], {}) == 0
    return folder / "later"


def of_the_successor(folder: Path) -> list[str]:
    """The options that all commands share."""
    return options(folder, config=folder / "successor.toml", output=folder / "second")


def test_a_bundle_that_knows_every_generator_says_how_one_did_that_did_not(
    folder: Path, successor: Path
) -> None:
    """The card gives the other run's figures as that run's; its own generators count as seen."""
    card = (successor / "MODEL_CARD.md").read_text()
    auc = read_manifest(folder / "bundle").metrics[0].auc
    section = card.split("## Generators that training never saw")[1].split("\n## ")[0]
    assert f"| w | native | 12 | 12 | {auc:.3f} |" in section
    assert "`train.epochs` 10 there, 1 here" in section
    assert "Training knew these generators by other files of theirs: w." in card
    manifest = read_manifest(successor)
    assert all(one.seen_in_training for one in manifest.metrics)
    assert str(manifest.lineage.config["train.start_from"]).startswith("sha256:")
    assert str(folder) not in (successor / "manifest.json").read_text() + card


def test_a_development_run_that_knew_its_test_generators_is_refused(
    folder: Path, successor: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second run cannot stand for what it was trained on itself."""
    text = (folder / "successor.toml").read_text()
    text = text.replace(f'development = "{folder / "run"}"', f'development = "{folder / "second"}"')
    (folder / "successor.toml").write_text(text)
    assert main(["export", *of_the_successor(folder), "--bundle", str(folder / "none")], {}) == 1
    assert "was trained on w, which its own test split judges" in capsys.readouterr().err
    assert not (folder / "none").exists()
