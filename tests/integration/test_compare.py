"""``compare``: finished runs, of one recipe or of several, are ranked on pictures that shaped none of them."""

import json
from pathlib import Path

import pytest

from tests.support.pairs import write_pairs
from tests.support.trainer import (
    RATES,
    TINY,
    command_options,
    write_config,
    write_drawn,
    write_tiny_data,
)
from trainer.cli import main
from trainer.training.checkpoint import read_best


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learnt something, and a plain one, of another head's width, that did not."""
    folder = tmp_path_factory.mktemp("compare")
    write_drawn(write_tiny_data(folder / "data"), "drawn_a")
    fakes = write_pairs(folder / "data", folder / "fakes", "a", "b")
    text = TINY.replace("[export]\n", RATES).replace(
        "[data.splits.train]", f'[data]\npairs = ["{fakes}"]\n[data.splits.train]'
    )
    text = text.replace("epochs = 3", "epochs = 10\npaired_share = 0.0")
    write_config(folder, "learnt", text)
    plain = text.replace("epochs = 10", "steps = 1").replace("lr = 0.01", "lr = 1e-9")
    plain = plain.replace("head_width = 8", "head_width = 4")
    write_config(folder, "plain", f"{plain}\n[loss]\nlambda_noise = 0.0\nlambda_glob = 0.0\n")
    for name in ("learnt", "plain"):
        assert main(["train", *command_options(folder, name, name)], {}) == 0
    return folder


def compare(folder: Path, output: str, *arguments: str, config: str = "learnt") -> int:
    """The command's status."""
    return main(["compare", *arguments, *command_options(folder, config, output)], {})


def test_runs_of_two_recipes_are_ranked_beside_each_other(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the same pictures and pairs, each by its own network; the file says whose weights they are."""
    names = [str(folder / one) for one in ("plain", "learnt")]
    assert compare(folder, "found", *names, "--split", "validation", "calibration") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "48 pictures and 24 pairs of the validation and calibration split" in told
    assert "learnt ranks best" in told
    assert "noise explained" in told
    found = json.loads((folder / "found" / "compare.json").read_text())
    rows = {Path(one["name"]).name: one for one in found["rows"]}
    assert list(rows) == ["plain", "learnt"]
    assert set(rows["learnt"]["auc"]) == {
        "native", "aligned", "pairs, native", "pairs, jpeg90",
    }  # fmt: skip
    assert rows["plain"]["less_first"]["native"] == {"value": 0, "low": 0, "high": 0}
    native = {name: row["auc"]["native"]["value"] for name, row in rows.items()}
    assert native["learnt"] > 0.75  # learnt in moments
    less = rows["learnt"]["less_first"]["native"]
    assert less["value"] == pytest.approx(native["learnt"] - native["plain"])
    assert less["low"] <= less["value"] <= less["high"]
    assert rows["plain"]["explained_variance"] is None
    assert rows["learnt"]["explained_variance"] is not None
    assert rows["learnt"]["best"].startswith("sha256:")


def test_real_pictures_of_other_kinds_are_counted_apart(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many are flagged, and nothing else: the rankings are those without them."""
    text = (folder / "learnt.toml").read_text().replace('real = ["c"]', 'real = ["c", "drawn_a"]')
    write_config(
        folder, "apart", text.replace("[evaluation]", '[evaluation]\nout_of_domain = ["drawn_*"]')
    )
    names = [str(folder / one) for one in ("plain", "learnt")]
    split = ("--split", "validation", "calibration")
    assert compare(folder, "apart", *names, *split, config="apart") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "and 10 real ones of other kinds" in told
    assert "other kinds at FPR 5 %" in told
    assert compare(folder, "without", *names, *split) == 0
    found, without = (
        json.loads((folder / one / "compare.json").read_text()) for one in ("apart", "without")
    )
    assert (found["out_of_domain"], without["out_of_domain"]) == (10, 0)
    for one, other in zip(found["rows"], without["rows"], strict=True):
        assert one["auc"] == other["auc"]
        assert 0 <= one["more"]["other kinds at FPR 5 %"]["value"] <= 1
        assert other["more"] == {}


def test_the_figures_are_those_that_training_chose_by(folder: Path) -> None:
    """The validation split alone, by the configured crops: what the run's own progress has."""
    assert compare(folder, "alone", str(folder / "learnt")) == 0
    (row,) = json.loads((folder / "alone" / "compare.json").read_text())["rows"]
    best, _ = read_best(folder / "learnt")
    validated = [row["auc"][name]["value"] for name in ("native", "aligned")]
    assert sum(validated) / 2 == pytest.approx(best.validation_auc)


@pytest.mark.parametrize("order", [("learnt", "plain"), ("plain", "learnt")])
def test_together_they_score_by_the_mean_of_their_logits(
    folder: Path, order: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one that knows and one that says next to the same of all, as that one; in no order are they the best."""
    output = "-".join(order)
    assert compare(folder, output, *(str(folder / one) for one in order), "--together") == 0
    assert "all together ranks best" not in " ".join(capsys.readouterr().out.split())
    rows = json.loads((folder / output / "compare.json").read_text())["rows"]
    auc = {Path(one["name"]).name: one["auc"]["native"]["value"] for one in rows}
    assert list(auc) == [*order, "all together"]
    assert auc["all together"] == pytest.approx(auc["learnt"], abs=0.1)
    assert auc["all together"] > auc["plain"]
    assert "best" not in rows[2]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere"], "does not exist: train first"),
        (["learnt", "learnt"], "a run is named twice"),
        (["learnt", "--split", "threshold"], "lacks real or generated pictures"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    folder: Path, arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [
        one if one.startswith("-") or one == "threshold" else str(folder / one) for one in arguments
    ]
    assert compare(folder, "refused", *named) == 1
    assert why in " ".join(capsys.readouterr().err.split())
    assert not (folder / "refused").exists()


def test_a_run_is_not_judged_by_what_it_was_trained_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though the other has never seen it."""
    text = (folder / "learnt.toml").read_text().replace("epochs = 10", "steps = 2")
    write_config(folder, "more", text.replace('real = ["a"]', 'real = ["a", "drawn_a"]'))
    assert main(["train", *command_options(folder, "more", "more")], {}) == 0
    write_config(folder, "judging", text.replace('real = ["c"]', 'real = ["c", "drawn_a"]'))
    names = [str(folder / one) for one in ("learnt", "more")]
    assert compare(folder, "leak", *names, "--split", "calibration", config="judging") == 1
    assert "files of the calibration split trained the run in" in " ".join(
        capsys.readouterr().err.split()
    )


def test_the_test_split_chooses_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        compare(folder, "test", str(folder / "learnt"), "--split", "test")
    assert ended.value.code == 2
    assert "invalid choice: 'test'" in capsys.readouterr().err
