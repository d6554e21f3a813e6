"""A report says what was measured, what was not, and first of all whether it is void."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.bundle.manifest import GeneratorMetric
from engines.preprocess import crop_image
from tests.unit.trainer.evaluation.pictures import SPEC, deployed, noisy, stored
from trainer.config import EvaluationConfig
from trainer.data.dataset import Picture
from trainer.data.pairs import Pair
from trainer.evaluation.report import as_json, findings, logits_by_key, markdown, write_report
from trainer.evaluation.run import (
    DetectorInfo,
    EvaluatedModel,
    EvaluatedSet,
    Evaluation,
    run_evaluation,
)
from trainer.evaluation.scoring import EvaluationError

CONFIG = EvaluationConfig(
    resamples=30, changes=("jpeg50", "resize0.5", "blur1", "jpeg75+resize0.5"), photo_like=("x",)
)
SUBJECT = DetectorInfo(
    "run", "mine", "ab" * 32, "c" * 40, "d" * 64, "teacher@0", 0.42, ("sd*",), ()
)


def grain(image_NHWC: np.ndarray) -> np.ndarray:
    """A detector of fine checkers: the mean difference of neighbouring pixels."""
    step = np.abs(np.diff(image_NHWC.astype(np.float32), axis=2)).mean(axis=(1, 2, 3))
    logit_N: np.ndarray = ((step - 12) / 3).astype(np.float32)
    return logit_N


def pictures(root: Path) -> list[Picture]:
    """Grainy photographs; fakes with a checkerboard, and with stripes that survive a resize."""
    found = []
    for index in range(20):
        real = noisy(np.random.default_rng(index), 48, 64)
        fake = noisy(np.random.default_rng(100 + index), 48, 64).astype(int)
        squares = np.indices((48, 64)).sum(axis=0)
        fake += (20 * (squares % 2) + 60 * (squares // 4 % 2))[:, :, None]
        found.append(stored(root, 0, "a" if index % 2 else "b", f"{index}.png", real))
        pixels = fake.clip(0, 255).astype(np.uint8)
        found.append(stored(root, 1, "x" if index % 2 else "sd1", f"{index}.png", pixels))
    return found


@pytest.fixture(scope="module")
def material(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[EvaluatedModel, list[Picture], Evaluation]:
    """A detector that is no network, everything measured of it."""
    found = pictures(tmp_path_factory.mktemp("pictures"))
    judged = EvaluatedModel(SUBJECT, grain, SPEC, deployed(loose=(0.05, 0.5)), None, ())
    real, fake = found[0].pixels_HWC, found[1].pixels_HWC
    pairs = [Pair("real/a/0.png", real, fake, "span")]
    measured = EvaluatedSet("test", 20, 20, "e" * 64)
    told: list[str] = []
    evaluation = run_evaluation(judged, found, pairs, measured, CONFIG, told.append)
    assert any("robustness: blur1" in one for one in told)
    return judged, found, evaluation


def test_the_folder_holds_the_report_its_figures_and_its_plots(
    tmp_path: Path, material: tuple[EvaluatedModel, list[Picture], Evaluation]
) -> None:
    judged, _, evaluation = material
    path = write_report(tmp_path / "r", evaluation, judged, {"config": {"seed": 1}}, 4)
    text = path.read_text()
    for name in ("roc", "robustness", "scores", "reliability"):
        assert f"({name}.png)" in text
        with Image.open(path.parent / f"{name}.png") as image:
            assert min(image.size) > 200
            assert len(image.convert("L").getcolors() or []) > 2  # something is drawn
    content = json.loads((path.parent / "report.json").read_text())
    family = next(one for one in content["families"]["native"]["families"] if one["family"] == "x")
    assert (family["n_fake"], family["seen_in_training"]) == (10, False)
    assert set(family["figures"]["auc"]) == {"value", "low", "high"}
    assert content["robustness"]["blur1"]["table"]["mean"]["auc"]["value"] <= 1
    assert content["subject"]["sha256"] == "ab" * 32
    assert content["config"] == {"seed": 1}
    assert not list(path.parent.glob("*.part"))


def test_every_image_has_its_logit_by_key(
    material: tuple[EvaluatedModel, list[Picture], Evaluation],
) -> None:
    """So that two detectors can be compared image by image."""
    _, found, evaluation = material
    logits = logits_by_key(evaluation)
    assert set(logits) == {"native", "aligned"}
    expected = {one.source.key: float(grain(crop_image(one.pixels_HWC, SPEC))[0]) for one in found}
    assert logits["native"] == pytest.approx(expected, abs=1e-6)


def test_every_table_is_in_the_text(
    material: tuple[EvaluatedModel, list[Picture], Evaluation],
) -> None:
    """Families with a mark for seen ones, photo-like, pairs, alarms, robustness, probes."""
    text = markdown(material[2], (), {})
    for words in (
        "sd1 (seen)",
        "Photo-like pictures",
        "against their own regenerations",
        "False alarms",
        "`jpeg75+resize0.5`",
        "Shortcut probes",
        "42.0% of its variance",
        "A bundle holds no noise head",
    ):
        assert words in text, words
    assert "nan" not in text


def test_other_kinds_of_pictures_count_as_false_alarms_alone(
    material: tuple[EvaluatedModel, list[Picture], Evaluation], tmp_path: Path
) -> None:
    """They are no part of the tables, the probes or the curves; their alarms are named by source."""
    judged, found, whole = material
    drawn = [stored(tmp_path, 0, "drawn", f"{one}.png", found[one].pixels_HWC) for one in range(4)]
    config = CONFIG.model_copy(update={"out_of_domain": ("dra*", "scans")})
    measured = EvaluatedSet("test", 20, 20, "e" * 64, 4)
    evaluation = run_evaluation(judged, [*found, *drawn], [], measured, config, lambda _text: None)
    assert evaluation.families == whole.families
    assert evaluation.alarms == whole.alarms
    assert evaluation.robustness == whole.robustness
    assert evaluation.probes == whole.probes
    assert {(one.source, one.n) for one in evaluation.out_of_domain} == {("drawn", 4)}
    reached = evaluation.out_of_domain[0].reached
    assert reached == sum(float(grain(crop_image(one.pixels_HWC, SPEC))[0]) >= 0 for one in drawn)
    text = markdown(evaluation, (), {})
    assert "20 real, 20 generated, 4 real of other kinds" in text
    section = text.split("False alarms on other kinds of pictures")[1].split("\n## ")[0]
    assert section.count(f"\n| drawn | 4 | {reached} (") == 1
    assert section.count("\n| drawn | 4 |") == 2  # for each set
    assert "`evaluation.out_of_domain` names scans" in text
    told = [one for one in findings(evaluation) if "Real pictures of other kinds" in one]
    assert len(told) == 3  # review and block of the default set, then the other set
    assert f"other kinds (drawn) at review: {reached} of 4" in told[0]
    assert "at the thresholds of `loose`: review" in told[2]
    assert "other kinds" not in " ".join(findings(whole))


def test_photographs_must_be_left(
    material: tuple[EvaluatedModel, list[Picture], Evaluation],
) -> None:
    """Generated pictures cannot be compared with nothing."""
    judged, found, whole = material
    config = CONFIG.model_copy(update={"out_of_domain": ("*",)})
    with pytest.raises(EvaluationError, match="leave photographs"):
        run_evaluation(judged, found, [], whole.evaluated, config, lambda _text: None)


def test_every_shipped_set_is_in_the_table_of_false_alarms(
    material: tuple[EvaluatedModel, list[Picture], Evaluation],
) -> None:
    """A row for each threshold, sources for each set; the figures are those of report.json."""
    evaluation = material[2]
    text = markdown(evaluation, (), {})
    content = json.loads(json.dumps(as_json(evaluation, {})))
    assert [one["id"] for one in content["threshold_sets"]] == ["default", "loose"]
    assert "By source, at `default` (the default):" in text
    assert "By source, at `loose`:" in text
    for thresholds, at in (("default", "0.5000"), ("loose", "0.0500")):
        whole, caught = (
            next(
                one
                for one in content[name]
                if (one["threshold_set"], one["threshold"]) == (thresholds, "review")
                and one["source"] == source
            )
            for name, source in (("false_alarms", "all"), ("caught", "x"))
        )
        row = next(one for one in text.splitlines() if one.startswith(f"| `{thresholds}` review |"))
        assert f"| {at} | 5.0% [0.0%, 10.0%] | {whole['reached']} of {whole['n']} " in row
        assert row.endswith(f"| {caught['reached'] / caught['n']:.1%} |")  # sd1 was seen: no part
    told = [one for one in findings(evaluation) if "thresholds of `loose`: review" in one]
    assert len(told) == 1


def test_a_void_evaluation_says_so_in_its_first_line(
    material: tuple[EvaluatedModel, list[Picture], Evaluation],
) -> None:
    """Stripes fill more bytes: the size of aligned crops tells the classes apart."""
    assert material[2].void
    first = markdown(material[2], (), {}).splitlines()[0]
    assert first.startswith("# VOID: ")
    assert as_json(material[2], {})["void"]
    lenient = dataclasses.replace(material[2], probe_limit=1.0)
    assert markdown(lenient, (), {}).splitlines()[0] == "# Evaluation of mine on the test split"


def test_a_target_that_was_not_learnt_is_no_anl(
    material: tuple[EvaluatedModel, list[Picture], Evaluation],
) -> None:
    subject = dataclasses.replace(SUBJECT, explained_variance=0.1)
    text = markdown(dataclasses.replace(material[2], info=subject), (), {})
    assert "under 30%: this does not count as ANL" in text


def test_the_card_of_a_bundle_is_set_beside_what_is_measured(
    material: tuple[EvaluatedModel, list[Picture], Evaluation],
) -> None:
    said = GeneratorMetric(
        generator="x",
        condition="native",
        seen_in_training=False,
        n_fake=10,
        n_real=20,
        auc=0.5,
        ap=0.5,
        accuracy_at_half=0.5,
        real_accuracy=0.5,
        fake_accuracy=0.5,
    )
    text = markdown(material[2], (said,), {})
    now = material[2].families[0].of("x").figures["auc"].value
    assert f"| x | native | 10 / 10 | 20 / 20 | 0.5000 | {now:.4f} | {now - 0.5:+.4f} |" in text


def test_without_thresholds_the_report_says_what_is_missing(
    material: tuple[EvaluatedModel, list[Picture], Evaluation],
) -> None:
    judged = dataclasses.replace(material[0], deployed=None)
    config = CONFIG.model_copy(update={"changes": (), "photo_like": ()})
    evaluation = run_evaluation(
        judged, material[1], [], material[2].evaluated, config, lambda _: None
    )
    text = markdown(evaluation, (), {})
    assert "run `python -m trainer calibrate` first" in text
    assert "evaluation.pairs.roots" in text
    assert "False alarms" not in text


def test_a_photo_like_generator_that_is_not_there_is_named(
    material: tuple[EvaluatedModel, list[Picture], Evaluation],
) -> None:
    """One configuration serves every split: what this one lacks is left out, and the report says so."""
    config = CONFIG.model_copy(update={"photo_like": ("dalle9",)})
    found = run_evaluation(
        material[0], material[1], [], material[2].evaluated, config, lambda _: None
    )
    assert found.photo_like == ()
    assert any("dalle9" in note for note in found.notes)


def test_findings_are_sentences_with_their_numbers(
    material: tuple[EvaluatedModel, list[Picture], Evaluation],
) -> None:
    """The card is told of the void first, then of means, pairs, false alarms and changes."""
    found = findings(material[2])
    assert found[0].startswith("**The evaluation is VOID**")
    mean = material[2].families[0].mean["auc"].value
    assert any(one.startswith(f"Generators, native: mean AUC {mean:.3f}") for one in found)
    assert any("regenerations by span, jpeg90" in one and "1 pairs" in one for one in found)
    assert any(one.startswith("Photographs of other sources at block: ") for one in found)
    assert "worst of 4 changes" in found[-1]
    lenient = dataclasses.replace(material[2], probe_limit=1.0, robustness=(), alarms=())
    assert not any("VOID" in one or "changes" in one for one in findings(lenient))
