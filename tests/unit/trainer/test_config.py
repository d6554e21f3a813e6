"""A configuration says what is wrong with it, and where."""

from pathlib import Path

import pytest

from tests.support.trainer import TINY
from trainer.config import FakesConfig, parse_config, read_config, read_toml
from trainer.data.gather import GatherConfig
from trainer.data.manifest import read_manifest
from trainer.errors import ConfigError


def named_set(name: str, block: str = "0.05") -> tuple[str, str]:
    """The change of a configuration that adds a threshold set."""
    added = f"[export.threshold_sets.{name}]\nreview_fpr = 0.1\nblock_fpr = {block}\n"
    return "[export]\n", f"{added}[export]\n"


CONFIGS = Path(__file__).parents[3] / "trainer" / "configs"
REFERENCE = CONFIGS / "reference.toml"
HELD_OUT = CONFIGS / "reference-held-out.toml"
DEVELOPMENT = CONFIGS / "reference-development.toml"
PACKAGES = CONFIGS / "debian-pictures.toml"


def test_the_reference_configurations_are_valid() -> None:
    """What is shipped parses, once its variables are set; one run stands for the other."""
    names = ("FAKES", "FAKES_DIFFUSION", "FAKES_TEST", "TEACHER", "START", "DEVELOPMENT")
    places = {f"TRAINER_{name}": f"/{name.lower()}" for name in names}
    held_out = read_config(HELD_OUT, places)
    assert held_out.teacher.source == "/teacher"
    assert held_out.data.pairs == (Path("/fakes"), *(Path("/fakes_diffusion"),) * 3)
    development, shipped = (read_config(one, places) for one in (DEVELOPMENT, REFERENCE))
    assert shipped.export.development == "/development"
    assert shipped.train.start_from == development.train.start_from == "/start"
    assert shipped.train == development.train
    assert development.data.splits == held_out.data.splits
    assert development.data.manifest == held_out.data.manifest
    left_out = {"dalle3", "dalle2", "flux1", "seedream5"}
    assert set(development.data.splits.test.fake) == left_out
    assert left_out.isdisjoint(development.data.splits.train.fake)
    assert left_out < set(shipped.data.splits.train.fake)
    for config in (held_out, shipped):
        assert config.data.manifest is not None
        rows = read_manifest(config.data.manifest)
        assert sum(row.source == "sd1" and not row.split for row in rows.values()) == 40
    judging = {row.source: row.split for row in rows.values() if row.split == "test"}
    assert judging == {"dalle3": "test", "flux1": "test"}
    assert list(shipped.export.rates()) == ["default", "few-alarms", "few-misses", "drawings"]


def test_what_the_configurations_ask_of_the_environment_is_nothing_to_a_worker() -> None:
    """One that is started in the same shell refuses what begins like its settings and is none."""
    for path in CONFIGS.glob("*.toml"):
        assert "${SYNTHGATE_" not in path.read_text(), path.name
    assert "${TRAINER_TEACHER}" in HELD_OUT.read_text()


PLACES = {"TRAINER_TAEF2": "/t", "TRAINER_ESRGAN": "/e", "TRAINER_TEACHER": "/d"}
JUDGING = ("fakes-test", "fakes-faces")  # what evaluation alone sees


def fakes_config(name: str) -> FakesConfig:
    """A shipped set of fakes."""
    return read_toml(FakesConfig, CONFIGS / f"{name}.toml", PLACES)


@pytest.mark.parametrize("name", sorted(one.stem for one in CONFIGS.glob("fakes*.toml")))
def test_the_sets_of_fakes_are_valid_and_share_no_family(name: str) -> None:
    """Each parses; what evaluation alone sees is in no set that trains."""
    names = {one.name for one in fakes_config(name).families}
    assert names
    if name not in JUDGING:
        judging = {one.name for judge in JUDGING for one in fakes_config(judge).families}
        assert not names & judging


def test_the_faces_are_judged_by_the_regenerators_of_the_larger_photographs() -> None:
    """So that the two can be compared; and what is regenerated is what the other file gathers."""
    faces, test = fakes_config("fakes-faces"), fakes_config("fakes-test")
    assert set(faces.families) == set(test.families)
    gathered = {one.name for one in read_toml(GatherConfig, CONFIGS / "faces.toml", {}).folders}
    assert set(faces.photographs.folders) <= gathered


def test_what_is_regenerated_of_the_packages_is_gathered() -> None:
    """Both files parse, and the folders of the one are made by the other."""
    gathered = {one.name for one in read_toml(GatherConfig, PACKAGES, {}).folders}
    assert set(fakes_config("fakes-debian").photographs.folders) <= gathered


def test_an_unset_variable_is_named() -> None:
    """A configuration that refers to a variable that is not set says which."""
    with pytest.raises(ConfigError, match=r"\$\{TRAINER_FAKES\}.*set that environment"):
        read_config(HELD_OUT, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("batch = 8", "batch = 7"), "train.batch"),
        (("crop_px = 64\nepochs", "crop_px = 61\nepochs"), "train.crop_px"),
        (("window_px = 32", "window_px = 72"), "teacher.window_px"),
        (("tile_overlap_px = 8", "tile_overlap_px = 32"), "tile_overlap_px must be below"),
        (("jpeg_p = 0.3", "jpeg_p = 0.95"), "must not exceed 1"),
        (('kind = "random-tiny"', 'kind = "unet2d"'), "source is needed"),
        (("lr = 0.01", "learning_rate = 0.01"), "train.learning_rate"),
        (("seed = 3", "seed = "), "not TOML"),
        (
            ("[export]", "[export]\nreview_fpr = 0.01\nblock_fpr = 0.02"),
            "block_fpr must be at most",
        ),
        (("[export]", "[export]\nreview_fpr = 0"), "export.review_fpr"),
        (("[export]", "[export]\nmax_crops = 2"), "export: .*'center' takes 1: set max_crops to 1"),
        (("[export]", '[export]\ncrop_policy = "ten_crop"'), "export.crop_policy: .*five_crop"),
        (named_set("few", block="0.2"), "export.threshold_sets.few: .*block_fpr must be at most"),
        (named_set("few", block="0"), "export.threshold_sets.few.block_fpr"),
        (named_set("default"), "cannot name a set 'default'"),
        (named_set("'Few Alarms'"), "cannot name a set 'Few Alarms': use lower-case letters"),
    ],
)
def test_a_wrong_value_is_named(change: tuple[str, str], message: str) -> None:
    """Each mistake is refused, and the message names the option."""
    assert change[0] in TINY
    with pytest.raises(ConfigError, match=message):
        parse_config(TINY.replace(*change).encode(), {})


@pytest.mark.parametrize(
    ("table", "option", "advice"),
    [
        ("detector", 'view = "residual"', "view was removed: leave it out"),
        ("detector", "levels = 3", "levels was removed: leave it out"),
        ("detector", 'head = "upsample"', "head was removed: leave it out; dense_stem"),
        ("train", "frozen_norms = true", "frozen_norms was removed: leave it out"),
        ("export", "allow_unlearnt_target = true", "allow_unlearnt_target was removed: .*strict"),
        ("data", "regenerators = []", "regenerators was removed: .*data.pairs"),
    ],
)
def test_a_removed_option_says_what_to_use(table: str, option: str, advice: str) -> None:
    """It is named with its table."""
    before = "[data.splits.train]" if table == "data" else f"[{table}]"
    text = TINY.replace(before, f"[{table}]\n{option}\n" + (before if table == "data" else ""), 1)
    with pytest.raises(ConfigError, match=f"{table}: .*{advice}"):
        parse_config(text.encode(), {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A configuration that is not there is refused with its path."""
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read"):
        read_config(tmp_path / "absent.toml", {})
