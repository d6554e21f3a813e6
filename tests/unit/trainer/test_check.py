"""The check before training: what is refused later is an error now, and what is doubtful a warning."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from tests.support.pairs import write_pairs
from tests.support.trainer import tiny_config, write_tiny_data
from trainer.check import CheckRow, full_checks, quick_checks, refuse_errors, strictly, table_of
from trainer.config import Config
from trainer.data.dataset import scan
from trainer.errors import DataError

RATES = {"[export]\n": "[export]\nreview_fpr = 0.5\nblock_fpr = 0.25\n"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures in each folder."""
    return write_tiny_data(tmp_path_factory.mktemp("check") / "data")


def quick(root: Path, changes: Mapping[str, str] = RATES, **options: object) -> dict[str, CheckRow]:
    """The rows by topic; ``options`` are of ``[data]``."""
    config = tiny_config(root, changes)
    config = config.model_copy(update={"data": config.data.model_copy(update=options)})
    return {row.topic: row for row in quick_checks(config, scan(config.data))}


def with_export(config: Config, **options: object) -> Config:
    """The configuration with other options of ``[export]``."""
    return config.model_copy(update={"export": config.export.model_copy(update=options)})


def test_good_data_have_no_error_and_no_warning(root: Path) -> None:
    """Splits, rates, memory and the teacher's work are reported."""
    rows = quick(root)
    assert {row.status for row in rows.values()} == {"ok"}
    assert rows["train"].result == "12 real, 12 fake"
    assert rows["memory"].result == "pictures take at most 18 MiB"


@pytest.mark.parametrize(
    ("before", "topic", "status", "text"),
    [
        ('real = ["b"]\nfake = ["y"]', "validation", "warning", "choose a step by its AUC"),
        ('real = ["e"]\nfake = ["w"]', "test", "warning", "nothing can evaluate"),
        ('real = ["c"]\n', "calibration", "error", "2 of each class are needed: add folders"),
        ('fake = ["w"]\n', "test", "error", "1 of each class are needed"),
        ('real = ["d"]\n', "threshold", "warning", "nothing can set thresholds"),
    ],
)
def test_a_missing_class_or_split_is_reported(
    root: Path, before: str, topic: str, status: str, text: str
) -> None:
    """A split can be added after training; half a split would be refused."""
    row = quick(root, {**RATES, before: ""})[topic]
    assert row.status == status
    assert text in row.text


def test_rates_need_enough_photographs(root: Path) -> None:
    """As ``calibrate`` would say after training."""
    row = quick(root, {})["thresholds"]
    assert row.status == "error"
    assert "export.block_fpr" in row.result
    assert "300" in row.advice


def test_a_run_that_cannot_be_anl_is_warned_of(root: Path) -> None:
    """Or refused, where export is strict."""
    config = tiny_config(root, {**RATES, "share = 0.5": "share = 0.0"})
    dataset = scan(config.data)
    for strict, status in ((False, "warning"), (True, "error")):
        rows = quick_checks(with_export(config, strict=strict), dataset)
        assert [row.status for row in rows if row.topic == "ANL"] == [status]


def test_what_is_not_there_is_an_error(root: Path) -> None:
    """The teacher and the first weights."""
    changes = {
        **RATES,
        'kind = "random-tiny"': 'source = "/nowhere/teacher"',
        "[train]\n": '[train]\nstart_from = "/nowhere/run"\n',
    }
    rows = quick(root, changes)
    assert rows["teacher"].status == rows["start_from"].status == "error"
    assert "/nowhere/teacher" in rows["teacher"].text


def test_pairs_are_counted(root: Path, tmp_path: Path) -> None:
    """By the split of their photograph; those that validation asks for must be there."""
    pairs = (write_pairs(root, tmp_path / "fakes", "a", "e"),)
    assert (
        quick(root, pairs=pairs)["pairs"].result
        == "12 photographs in train, 12 photographs in test"
    )
    asked = {**RATES, "batch = 8": "batch = 8\nvalidate_pairs = true"}
    assert quick(root, asked, pairs=pairs)["pairs"].status == "error"


def test_corrupt_files_near_copies_and_shortcuts_are_warnings(tmp_path: Path) -> None:
    """They are found by decoding everything."""
    root = write_tiny_data(tmp_path / "data", count=30)
    for path in (root / "fake/w").iterdir():  # pictures without detail make small files
        Image.new("RGB", (96, 80), (int(path.stem), 90, 90)).save(path)
    (root / "real/b/001.png").write_bytes(b"no image")
    config = tiny_config(root, {**RATES, "probe_limit = 1.0": "probe_limit = 0.6"})
    rows = full_checks(config, scan(config.data), tmp_path / "cache")
    found = {row.topic: row for row in rows}
    assert found["corrupt files"].status == "warning"
    assert "real/b/001.png" in found["corrupt files"].result
    assert found["shortcuts"].status == "warning"
    assert "VOID" in found["shortcuts"].result
    assert not [row for row in rows if row.status == "error"]
    refuse_errors(rows, strict=False)
    with pytest.raises(DataError, match=r"real/b/001\.png"):
        refuse_errors(rows, strict=True)


def test_the_table_fits_80_columns(root: Path) -> None:
    """Whatever the rows say; long names are folded, not cut."""
    rows = strictly([CheckRow("corrupt files", "warning", "x" * 100, "[restore] it")], strict=True)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(table_of(rows))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("x") == 100
    assert "[restore] it" in text
    assert "error" in text
