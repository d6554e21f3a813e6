"""Cells come in the order of the questions, each once; a left-out family is in no split but test."""

import json
from pathlib import Path

import pytest

from tests.support.trainer import tiny_config
from trainer.config import Config, ConfigError, read_config
from trainer.config.study import StudyConfig, read_study
from trainer.config.toml import parse_toml
from trainer.study.grid import Cell, StudyError, cells, derive, digest, learns_noise, option

CONFIGS = Path(__file__).parents[4] / "trainer" / "configs"
PUBLISHED = Path(__file__).parents[4] / "docs" / "study"
TEXT = """
base = "base.toml"
seeds = [1, 2]
folds = [["x"], ["y"]]
[variants.plain]
changes = { "loss.lambda_noise" = 0.0 }
[variants.anl]
[variants.shuffled]
changes = { "teacher.control" = "shuffled" }
[variants.other]
changes = { "teacher.source" = "${OTHER}" }
[[rows]]
name = "first"
question = "?"
baseline = "plain"
variants = ["anl"]
[[rows]]
name = "second"
question = "?"
baseline = "plain"
variants = ["shuffled"]
seeds = [1]
folds = 1
[[rows]]
name = "third"
question = "?"
baseline = "anl"
variants = ["other"]
"""


@pytest.fixture
def study() -> StudyConfig:
    """Two folds, two seeds, three rows."""
    return parse_toml(StudyConfig, TEXT.encode(), {"OTHER": "/somewhere"}, "study")


@pytest.fixture
def base(tmp_path: Path) -> Config:
    """Trained on x and y, validated on a slice of both."""
    splits = {
        'fake = ["x"]': 'fake = ["x[:-2]", "y[:-2]"]',
        'fake = ["y"]': 'fake = ["x[-2:]", "z"]',
    }
    return tiny_config(tmp_path, {**splits, 'fake = ["z"]': 'fake = ["y[-2:]"]'})


def test_every_fold_has_its_first_seed_before_any_has_its_second(study: StudyConfig) -> None:
    """A row that is cut short compares whole; a baseline stands beside its variant."""
    first = [(one.seed, one.fold, one.variant) for one in cells(study, "first")]
    assert first == [
        (seed, fold, variant)
        for seed in (1, 2)
        for fold in (("x",), ("y",))
        for variant in ("plain", "anl")
    ]


def test_where_things_lie_is_looked_up_for_a_cell_alone(base: Config, tmp_path: Path) -> None:
    """The study that a report tells of has the variable's name; the cell has what it stands for."""
    (tmp_path / "study.toml").write_text(TEXT.replace("base.toml", "${BASE}/base.toml"))
    places = {"OTHER": "/this/machine", "BASE": "/bases"}
    study = read_study(tmp_path / "study.toml", places)
    assert study.base == Path("/bases/base.toml")
    assert "/this/machine" not in study.model_dump_json()
    config = derive(base, study, Cell("third", "other", ("x",), 1), places)
    assert config.teacher.source == "/this/machine"


def test_a_cell_of_two_rows_is_trained_once(study: StudyConfig) -> None:
    """The second row brings one cell: its baseline is there already."""
    found = cells(study, "second")
    assert len(found) == 9
    assert (found[-1].row, found[-1].variant, found[-1].seed) == ("second", "shuffled", 1)
    assert len({one.key for one in cells(study)}) == len(cells(study)) == 13


def test_an_unknown_last_row_is_an_error(study: StudyConfig) -> None:
    with pytest.raises(StudyError, match="no row is called 'last': choose one of first, second"):
        cells(study, "last")
    with pytest.raises(StudyError, match="choose one of first, second, third"):
        cells(study, only="last")


def test_a_row_can_be_run_alone(study: StudyConfig) -> None:
    """With its baseline, and nothing of the rows before it."""
    found = cells(study, only="second")
    assert {one.variant for one in found} == {"plain", "shuffled"}
    assert {one.row for one in found} == {"second"}
    assert len(found) == 2


def test_a_left_out_family_is_in_no_split_but_test(study: StudyConfig, base: Config) -> None:
    """Neither its name nor a slice of it is left in training, validation or calibration."""
    config = derive(base, study, Cell("first", "plain", ("x",), 2), {})
    splits = config.data.splits
    assert splits.train.fake == ("y[:-2]",)
    assert splits.validation.fake == ("z",)
    assert splits.calibration.fake == ("y[-2:]",)
    assert splits.test.fake == ("x",)
    assert splits.test.real == base.data.splits.test.real
    assert config.seed == 2
    assert config.loss.lambda_noise == 0


def test_variants_of_a_fold_and_seed_differ_in_their_changes_alone(
    study: StudyConfig, base: Config
) -> None:
    """The same data, steps and seed: what is compared is the change."""
    plain, anl = (
        derive(base, study, Cell("first", one, ("y",), 1), {}) for one in ("plain", "anl")
    )
    assert plain != anl
    silent = anl.loss.model_copy(update={"lambda_noise": 0.0})
    assert plain == anl.model_copy(update={"loss": silent})


def test_a_pattern_that_would_keep_the_family_is_refused(
    study: StudyConfig, tmp_path: Path
) -> None:
    """``*`` cannot be divided: the configuration has to name its folders."""
    base = tiny_config(tmp_path, {'fake = ["x"]': 'fake = ["x", "*"]'})
    with pytest.raises(StudyError, match="would still hold 'x': list its folders"):
        derive(base, study, Cell("first", "anl", ("x",), 1), {})


def test_a_family_that_training_never_had_is_refused(study: StudyConfig, tmp_path: Path) -> None:
    """Leaving it out would compare nothing."""
    with pytest.raises(StudyError, match=r"'y' is not in data.splits.train.fake"):
        derive(tiny_config(tmp_path), study, Cell("first", "anl", ("y",), 1), {})


def test_a_variable_is_asked_for_when_its_cell_is_due(study: StudyConfig, base: Config) -> None:
    """Rows without it run without it."""
    late = parse_toml(StudyConfig, TEXT.encode(), {"OTHER": "${OTHER}"}, "study")
    derive(base, late, Cell("first", "anl", ("x",), 1), {})
    other = Cell("third", "other", ("x",), 1)
    with pytest.raises(StudyError, match=r"refers to \$\{OTHER\}"):
        derive(base, late, other, {})
    assert derive(base, late, other, {"OTHER": "here"}).teacher.source == "here"


@pytest.mark.parametrize("name", ["train.speed", "wings.span", "train.lr.high"])
def test_a_change_of_no_option_is_refused(study: StudyConfig, base: Config, name: str) -> None:
    wrong = study.variants["anl"].model_copy(update={"changes": {name: 1}})
    study = study.model_copy(update={"variants": study.variants | {"anl": wrong}})
    with pytest.raises(StudyError, match="the configuration has no"):
        derive(base, study, Cell("first", "anl", ("x",), 1), {})


def test_a_change_out_of_range_names_its_variant(study: StudyConfig, base: Config) -> None:
    wrong = study.variants["anl"].model_copy(update={"changes": {"train.lr": -1.0}})
    study = study.model_copy(update={"variants": study.variants | {"anl": wrong}})
    with pytest.raises(StudyError, match=r"variants.anl.changes do not fit: train.lr"):
        derive(base, study, Cell("first", "anl", ("x",), 1), {})


def test_the_digest_follows_choices_and_not_places(base: Config, tmp_path: Path) -> None:
    moved = base.model_copy(
        update={"data": base.data.model_copy(update={"roots": (tmp_path / "elsewhere",)})}
    )
    longer = base.model_copy(update={"train": base.train.model_copy(update={"epochs": 9})})
    assert digest(moved) == digest(base) != digest(longer)


@pytest.mark.parametrize(
    ("name", "before", "other"), [("view", "picture", "residual"), ("levels", 0, 3)]
)
def test_an_option_that_came_later_is_a_choice_too(
    base: Config, name: str, before: object, other: object
) -> None:
    """What was done before there was a choice is the cell of then; another value is another cell."""
    as_before, changed = (
        base.model_copy(update={"detector": base.detector.model_copy(update={name: value})})
        for value in (before, other)
    )
    assert digest(as_before) == digest(base) != digest(changed)


def test_only_a_run_with_honest_targets_has_to_learn_them(study: StudyConfig, base: Config) -> None:
    """The plain backbone has none, and shuffled ones cannot be learnt."""
    found = {
        one: learns_noise(derive(base, study, Cell("first", one, ("x",), 1), {}))
        for one in ("plain", "anl", "shuffled")
    }
    assert found == {"plain": False, "anl": True, "shuffled": False}


def test_a_curve_is_a_number(base: Config) -> None:
    assert option(base, "teacher.timestep_index") == 0
    with pytest.raises(StudyError, match="no option with a number"):
        option(base, "teacher.kind")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('[["x"], ["y"]]', '[["x"], ["x", "y"]]', "a family is in one fold alone"),
        ('variants = ["anl"]', 'variants = ["anm"]', "'anm', which is not in variants"),
        ("seeds = [1]", "seeds = [7]", "a seed that is not the study's"),
        ("folds = 1", "folds = 3", "asks for 3 of 2 folds"),
        ('name = "second"', 'name = "first"', "two have the same name"),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(before: str, after: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_toml(StudyConfig, TEXT.replace(before, after, 1).encode(), {"OTHER": ""}, "study")


def test_the_shipped_study_fits_its_base() -> None:
    """Every cell of every row can be derived; the first two rows are 45 of them."""
    study = read_study(CONFIGS / "study.toml", {})
    environment = {"TRAINER_TAEF2": "t", "TRAINER_TEACHER": "a", "TRAINER_TEACHER_B": "b"}
    base = read_config(study.base, environment)
    configs = {one.key: derive(base, study, one, environment) for one in cells(study)}
    assert len(cells(study, "shuffled-targets")) == 45
    for (_, fold, _), config in configs.items():
        kept = " ".join((*config.data.splits.train.fake, *config.data.splits.validation.fake))
        assert not any(f"{family}[" in f" {kept}" for family in fold if family != "sd1")
    assert study.rows[0].name == "anl-against-plain"


def test_the_published_cells_are_still_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new option must leave them the digest that they had: else hours of results stop counting, silently."""
    environment = dict.fromkeys(("TRAINER_TEACHER", "TRAINER_TEACHER_B"), "/somewhere")
    monkeypatch.chdir(CONFIGS.parents[1])
    study = read_study(CONFIGS / "study.toml", environment)
    base = read_config(study.base, environment | {"TRAINER_TAEF2": "/somewhere"})
    published = [
        json.loads(line) for line in (PUBLISHED / "results.jsonl").read_text().splitlines()
    ]
    known = {cell.key: digest(derive(base, study, cell, environment)) for cell in cells(study)}
    assert len(published) >= 55
    for one in published:
        key = (one["variant"], tuple(one["fold"]), one["seed"])
        assert known[key] == one["stamp"]["config_digest"], key
