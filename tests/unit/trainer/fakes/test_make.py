"""A set of fakes: complete, resumable, true to its weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.photographs import photograph_px
from tests.unit.trainer.teachers import tiny_models
from trainer.cli import main
from trainer.config import FakesConfig, PhotographsConfig, parse_toml
from trainer.data.pairs import PAIRS
from trainer.errors import DataError
from trainer.fakes.make import make_fakes
from trainer.fakes.regenerators import RegeneratorError
from trainer.fakes.regions import Place, cut_region, read_pixels, regions

TEXT = """
[photographs]
region_px = 64
scales = [1.0, 0.5]
[[families]]
kind = "diffusion"
name = "ddpm"
source = "MODEL"
steps = 1
[[families]]
kind = "diffusion"
name = "ddpm-few"
source = "MODEL"
strength_min = 0.2
steps = 1
images = 2
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The configuration, with a tiny pixel-space model."""
    return TEXT.replace("MODEL", str(tiny_models.pixel(tmp_path_factory.mktemp("model"))))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four photographs of two sources: one too small, one corrupt besides."""
    for folder, sides in (("phone", (200, 100)), ("web", (80, 40))):
        (tmp_path / "data/real" / folder).mkdir(parents=True)
        for side_px in sides:
            image = Image.fromarray(photograph_px(side_px))
            image.save(tmp_path / f"data/real/{folder}/{side_px}.png")
    (tmp_path / "data/real/web/broken.jpg").write_bytes(b"\xff\xd8 not an image")
    return tmp_path / "data"


def settings(data: Path, text: str) -> FakesConfig:
    """The configuration of the set."""
    config = parse_toml(FakesConfig, text.encode(), {}, "fakes.toml")
    photographs = config.photographs.model_copy(update={"roots": (data,)})
    return config.model_copy(update={"photographs": photographs})


def made(data: Path, output: Path, text: str) -> list[str]:
    """Make a set; returns the lines for a person."""
    lines: list[str] = []
    make_fakes(settings(data, text), output, strict=False, notify=lines.append)
    return lines


def test_each_photograph_stands_beside_its_regenerations(
    data: Path, text: str, tmp_path: Path
) -> None:
    """The lines name files of one size; a limit of images is kept; what was left out is counted."""
    notes = made(data, tmp_path / "out", text)
    lines = [json.loads(line) for line in (tmp_path / "out" / PAIRS).read_text().splitlines()]
    assert sorted(line["photograph"] for line in lines) == [
        "real/phone/100.png",
        "real/phone/200.png",
        "real/web/80.png",
    ]
    assert sum("ddpm-few" in line["fake"] for line in lines) == 2
    for line in lines:
        shapes = {
            read_pixels(tmp_path / "out" / path).shape
            for path in [line["real"], *line["fake"].values()]
        }
        assert shapes == {(64, 64, 3)}
    assert any("skipped real/web/broken.jpg" in line for line in notes)
    assert "3 regions of 64 px from 3 photographs; 1 are too small, 1 were skipped" in notes


def test_a_second_run_makes_only_what_is_missing(data: Path, text: str, tmp_path: Path) -> None:
    """As after a kill: the rest is not touched."""
    made(data, tmp_path / "out", text)
    folder = tmp_path / "out/fake/ddpm"
    files = sorted(folder.glob("*.png"))
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
    files[0].unlink()
    made(data, tmp_path / "out", text)
    assert files[0].read_bytes() == before[files[0]][1]
    assert all(file.stat().st_mtime_ns == before[file][0] for file in files[1:])


def test_other_weights_never_mix_with_the_first(data: Path, text: str, tmp_path: Path) -> None:
    """A family's folder holds what one network drew."""
    made(data, tmp_path / "out", text)
    with pytest.raises(RegeneratorError, match="other weights"):
        made(data, tmp_path / "out", text.replace("steps = 1", "steps = 2"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("region_px = 64", "region_px = 80"), "regions were cut with other settings"),
        (("scales = [1.0, 0.5]", "scales = [1.0]"), "regions were cut with other settings"),
    ],
)
def test_a_set_never_mixes_two_configurations(
    data: Path, text: str, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    """What lies there from before would otherwise pass for files of the new configuration."""
    made(data, tmp_path / "out", text)
    before = sorted((tmp_path / "out").rglob("*.png"))
    with pytest.raises(RegeneratorError, match=message):
        made(data, tmp_path / "out", text.replace(*change))
    assert sorted((tmp_path / "out").rglob("*.png")) == before


def test_a_corrupt_photograph_stops_a_strict_run(data: Path, text: str, tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(DataError, match=r"real/web/broken\.jpg"):
        make_fakes(settings(data, text), tmp_path / "out", strict=True, notify=lambda _: None)


def test_no_photograph_large_enough_is_an_error(data: Path, text: str, tmp_path: Path) -> None:
    """The message says what to lower."""
    with pytest.raises(RegeneratorError, match="region_px"):
        made(data, tmp_path / "out", text.replace("region_px = 64", "region_px = 512"))


def test_a_missing_folder_is_named(data: Path, tmp_path: Path) -> None:
    """Rather than making fewer fakes in silence."""
    wanted = PhotographsConfig(roots=(data,), folders=("phone", "camera"))
    with pytest.raises(DataError, match="'camera'"):
        regions(wanted, tmp_path, strict=False, notify=lambda _: None)


def cut(data: Path, output: Path, *numbers: int) -> dict[str, NDArray[np.uint8]]:
    """The regions of those numbers of the photograph of 200 px, and of that of 80, by name."""
    wanted = PhotographsConfig(roots=(data,), region_px=64, regions=numbers, exclude=("*/100.png",))
    cut_regions = regions(wanted, output, strict=False, notify=lambda _: None)
    return {region.name: read_pixels(output / region.path) for region in cut_regions}


def test_a_region_is_the_centre_or_a_corner_and_begins_where_a_jpeg_block_does(
    data: Path, tmp_path: Path
) -> None:
    """At full size; a shrunk photograph has lost that grid. 200 px leave room for 136: 136 // 8 * 8."""
    pixels_HWC = photograph_px(200)
    corners = [
        pixels for name, pixels in cut(data, tmp_path, 0, 1, 2, 3, 4).items() if name[:3] == "200"
    ]
    wanted = [(64, 64), (0, 0), (0, 136), (136, 0), (136, 136)]
    squares = [pixels_HWC[top : top + 64, left : left + 64] for top, left in wanted]
    assert np.array_equal(corners[0], squares[0])
    assert len(corners) == 5
    assert all(sum(np.array_equal(square, other) for other in corners) == 1 for square in squares)
    assert cut_region(pixels_HWC, Place(0.7, 8, 0), 64).shape == (64, 64, 3)


def test_two_sets_of_different_regions_have_no_region_in_common(data: Path, tmp_path: Path) -> None:
    """80 px hold a region of 64 in two places at the most, and no other set has the centre of 68."""
    Image.fromarray(photograph_px(68)).save(data / "real/web/68.png")
    centres, corners = cut(data, tmp_path / "a", 0), cut(data, tmp_path / "b", 1, 2, 3, 4)
    assert [name[:2] for name in centres] == ["20", "68", "80"]
    assert not [name for name in corners if name.startswith("68")]
    assert not set(centres) & set(corners)
    both = [pixels.tobytes() for pixels in (*centres.values(), *corners.values())]
    assert len(set(both)) == len(both)


def test_each_region_of_a_photograph_is_at_the_next_of_the_scales(
    data: Path, text: str, tmp_path: Path
) -> None:
    """So that a set's regions are not all of one sharpness; the photograph's line says which."""
    two = text.replace("scales = [1.0, 0.5]", "scales = [1.0, 0.5]\nregions = [0, 1]")
    made(data, tmp_path / "out", two)
    lines = [json.loads(line) for line in (tmp_path / "out" / PAIRS).read_text().splitlines()]
    of_200 = [line for line in lines if line["photograph"] == "real/phone/200.png"]
    assert sorted(line["scale"] for line in of_200) == [0.5, 1.0]
    assert len({line["real"] for line in of_200}) == 2
    assert all((tmp_path / "out" / line["fake"]["ddpm"]).exists() for line in of_200)
    limited = {line["photograph"] for line in lines if "ddpm-few" in line["fake"]}
    assert len(limited) == 2  # images = 2: of photographs, with all their regions
    assert all("ddpm-few" in line["fake"] for line in lines if line["photograph"] in limited)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('name = "ddpm-few"', 'name = "ddpm"'), "the same name"),
        (('kind = "diffusion"', 'kind = "magic"'), "families.0"),
        (("steps = 1", "steps = 0"), "steps"),
    ],
)
def test_a_wrong_configuration_exits_1(
    data: Path,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, str],
    message: str,
) -> None:
    """The option is named."""
    (tmp_path / "fakes.toml").write_text(text.replace(*change))
    arguments = ["fakes", "--config", str(tmp_path / "fakes.toml"), "--data", str(data)]
    assert main([*arguments, "--output", str(tmp_path / "out")], {}) == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_command_makes_a_set(
    data: Path, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says what to do with it."""
    (tmp_path / "fakes.toml").write_text(text)
    arguments = ["fakes", "--config", str(tmp_path / "fakes.toml"), "--data", str(data)]
    assert main([*arguments, "--output", str(tmp_path / "out")], {}) == 0
    assert "data.pairs" in capsys.readouterr().out
