"""A training that goes on from a bundle, whose run's folder is not at hand."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from engines.bundle.manifest import manifest_sha256, read_manifest, weights_file, write_manifest
from tests.support.trainer import TINY, write_tiny_data
from trainer.bundle.export import with_weights
from trainer.cli import main
from trainer.training.checkpoint import read_best

RATES = "[export]\nreview_fpr = 0.3\nblock_fpr = 0.25\n"  # which twelve photographs support


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, and the run that made it."""
    folder = tmp_path_factory.mktemp("first")
    write_tiny_data(folder / "data")
    (folder / "tiny.toml").write_text(TINY.replace("[export]\n", RATES))
    for command in ("train", "calibrate", "evaluate", "export"):
        more = ["--bundle", str(folder / "bundle")] if command == "export" else []
        assert main([command, *places(folder, folder, "tiny", "run"), *more], {}) == 0
    return folder


def places(folder: Path, own: Path, config: str, output: str | None = None) -> list[str]:
    """The options that all commands share: data and cache of the first run, a folder of one's own for the rest."""
    found = {
        "config": own / f"{config}.toml",
        "data": folder / "data",
        "output": own / (output or config),
        "cache": folder / "cache",
    }
    return [part for name, path in found.items() for part in (f"--{name}", str(path))]


def from_the_bundle(folder: Path, tmp_path: Path, bundle: Path, **changes: str) -> list[str]:
    """The options of a run that starts from a bundle, whose own folder of weights is not there."""
    text = (folder / "tiny.toml").read_text().replace("epochs = 3", "epochs = 1")
    text = text.replace("[train]\n", f'[train]\nstart_from = "{bundle}"\n')
    for before, after in changes.items():
        text = re.sub(rf"^{before} = .*$", f"{before} = {after}", text, flags=re.MULTILINE)
    (tmp_path / "onward.toml").write_text(text)
    return places(folder, tmp_path, "onward")


def published(folder: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, with its weights beside it."""
    bundle = tmp_path / "published"
    shutil.copytree(folder / "bundle", bundle)
    shutil.copyfile(weights_file(folder / "bundle"), weights_file(bundle))
    return bundle


def test_a_training_goes_on_from_a_bundle(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a learning rate of next to nothing it ends with the bundle's weights; all that followed says so."""
    arguments = from_the_bundle(folder, tmp_path, published(folder, tmp_path), lr="1e-12")
    for command in ("train", "calibrate", "evaluate", "export"):
        more = ["--bundle", str(tmp_path / "later")] if command == "export" else []
        assert main([command, *arguments, *more], {}) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "(bundle tiny 0.1.0, which has seen x)" in said
    assert "does not list the files it was trained on" in said
    first, later = (
        load_file(weights_file(bundle)) for bundle in (folder / "bundle", tmp_path / "later")
    )
    assert first.keys() == later.keys()
    # The norms' statistics follow the batches of one epoch; everything else stays where it began.
    for name in (name for name in first if "running" not in name and "batches" not in name):
        torch.testing.assert_close(later[name], first[name], atol=1e-6, rtol=0)
    origin = f"bundle tiny 0.1.0, manifest sha256:{manifest_sha256(folder / 'bundle')}"
    assert read_manifest(tmp_path / "later").lineage.config["train.start_from"] == origin
    assert (
        f"its first weights were those of the {origin}"
        in (tmp_path / "later" / "MODEL_CARD.md").read_text()
    )


def test_noise_heads_begin_alike_for_every_seed(folder: Path, tmp_path: Path) -> None:
    """Else the mean of two runs from one bundle would know little of the noise."""
    heads = []
    for seed in ("3", "4"):
        (tmp_path / seed).mkdir()
        arguments = from_the_bundle(
            folder, tmp_path / seed, folder / "bundle", lr="1e-12", seed=seed
        )
        assert main(["train", *arguments], {}) == 0
        weights = read_best(tmp_path / seed / "onward")[0].weights
        heads.append(
            {k: v for k, v in weights.items() if k.startswith("head.") and k.endswith("weight")}
        )
    assert heads[0]
    for name, value in heads[0].items():
        torch.testing.assert_close(heads[1][name], value, atol=1e-6, rtol=0)


def test_what_a_bundle_knows_is_not_unseen_later(folder: Path, tmp_path: Path) -> None:
    """A generator of its training is marked, wherever it stands now."""
    arguments = from_the_bundle(folder, tmp_path, folder / "bundle", lr="1e-12")
    text = (tmp_path / "onward.toml").read_text()
    for before, after in (("x", "?"), ("w", "x"), ("?", "w")):
        text = text.replace(f'fake = ["{before}"]', f'fake = ["{after}"]')
    (tmp_path / "onward.toml").write_text(text)
    for command in ("train", "calibrate", "evaluate"):
        assert main([command, *arguments], {}) == 0
    report = json.loads((tmp_path / "onward" / "report-test" / "report.json").read_text())
    families = report["families"]["native"]["families"]
    assert [(one["family"], one["seen_in_training"]) for one in families] == [("x", True)]


def change_a_file(bundle: Path) -> None:
    """One byte of it."""
    (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes()[:-1] + b"?")


def claim_int8(bundle: Path) -> None:
    """As a bundle does whose own graph is quantised."""
    changed = {"precision": "int8", "tolerances": {"int8": 1.0}}
    write_manifest(bundle, read_manifest(bundle).model_copy(update=changed))


def forget_what_it_knows(bundle: Path) -> None:
    """As a release did that had no lists yet."""
    manifest = read_manifest(bundle)
    config = {k: v for k, v in manifest.lineage.config.items() if k != "known_generators"}
    lineage = manifest.lineage.model_copy(update={"config": config})
    write_manifest(bundle, manifest.model_copy(update={"lineage": lineage}))


def swap_weights(bundle: Path) -> None:
    """Of two channels: every digest is right, and the golden file is that of other weights."""
    weights = load_file(weights_file(bundle))
    weights["classifier.weight"] = weights["classifier.weight"].flip(1).contiguous()
    data = save(weights)
    weights_file(bundle).write_bytes(data)
    write_manifest(bundle, with_weights(read_manifest(bundle), data))


def change_the_weights(bundle: Path) -> None:
    """One byte of them."""
    path = weights_file(bundle)
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def lose_the_weights(bundle: Path) -> None:
    """They were not copied with the bundle."""
    weights_file(bundle).unlink()


def forget_their_digest(bundle: Path) -> None:
    """As the shipped bundle's manifest does; the file is then broken."""
    weights_file(bundle).write_bytes(b"?")
    manifest = read_manifest(bundle)
    config = {k: v for k, v in manifest.lineage.config.items() if k != "weights.sha256"}
    lineage = manifest.lineage.model_copy(update={"config": config})
    write_manifest(bundle, manifest.model_copy(update={"lineage": lineage}))


@pytest.mark.parametrize(
    ("spoil", "changes", "why"),
    [
        (change_a_file, {}, "model.onnx"),
        (claim_int8, {}, "computes in int8: train.start_from needs the fp32 bundle"),
        (forget_what_it_knows, {}, "does not say which generators it has seen"),
        (swap_weights, {}, "do not give its golden outputs here"),
        (change_the_weights, {}, "not the file that the bundle's manifest names"),
        (lose_the_weights, {}, "published.weights.safetensors cannot be read"),
        (forget_their_digest, {}, "copy them too"),
        (
            lambda _: None,
            {"backbone": '"test_resnet"'},
            "needs the [detector] that they were trained",
        ),
    ],
)
def test_a_bundle_that_no_training_can_go_on_from_is_refused(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    changes: dict[str, str],
    why: str,
) -> None:
    """It is named, with the reason and what to do; no run is begun."""
    arguments = from_the_bundle(folder, tmp_path, published(folder, tmp_path), **changes)
    spoil(tmp_path / "published")
    assert main(["train", *arguments], {}) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert why in error
    assert str(tmp_path / "published") in error
    assert not (tmp_path / "onward" / "best.pt").exists()


def test_a_bundle_with_its_gate_on_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its graph computes what the plain detector does not."""
    shutil.copytree(folder / "run", tmp_path / "run")
    text = (folder / "tiny.toml").read_text().replace("[export]\n", '[export]\ngate = "on"\n')
    (tmp_path / "gated.toml").write_text(text)
    run = places(folder, tmp_path, "gated", "run")
    for command in ("calibrate", "evaluate", "export"):
        more = ["--bundle", str(tmp_path / "gated")] if command == "export" else []
        assert main([command, *run, *more], {}) == 0
    assert main(["train", *from_the_bundle(folder, tmp_path, tmp_path / "gated")], {}) == 1
    assert "do not give its golden outputs here" in " ".join(capsys.readouterr().err.split())
