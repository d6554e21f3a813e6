"""The configuration to copy for one's own data: its folders, filled, go all the way to a bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image

from engines.bundle.verify import load_bundle
from tests.support.trainer import command_options, tiny_picture
from trainer.cli import main
from trainer.config import Config, read_config
from trainer.training.checkpoint import read_best

TEMPLATE = Path(__file__).parents[2] / "trainer" / "configs" / "own-data.toml"
EVALUATION = (
    '[evaluation]\nresamples = 10\nchanges = ["jpeg75"]\nprobe_limit = 1.0\nattention_images = 1\n'
)
# A test has no hours; 1 % of false alarms takes 300 photographs; and so short a run learns no noise.
SHORTER = {
    "steps = 5600": "steps = 2",
    "validate_every_steps = 700": "validate_every_steps = 2",
    "review_fpr = 0.05": "review_fpr = 0.5",
    "block_fpr = 0.01": "block_fpr = 0.5",
    "[teacher]": f"{EVALUATION}[teacher]",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the file names, a teacher as diffusers writes one, and the file, shortened."""
    folder = tmp_path_factory.mktemp("own")
    for place in _named(read_config(TEMPLATE, {"TRAINER_TEACHER": "t"})):
        (folder / "data" / place).mkdir(parents=True)
        for index in range(6):
            random = np.random.default_rng([*place.encode(), index])
            pixels_HWC = tiny_picture(random, generated=place.startswith("fake"))
            Image.fromarray(pixels_HWC).save(folder / "data" / place / f"{index}.png")
    torch.manual_seed(0)
    widths = (8, 8)
    kinds = ("DownBlock2D",) * 2, ("UpBlock2D",) * 2
    UNet2DModel(64, 3, 3, block_out_channels=widths, down_block_types=kinds[0],
        up_block_types=kinds[1], layers_per_block=1, norm_num_groups=4,
    ).save_pretrained(folder / "teacher" / "unet")  # fmt: skip
    DDPMScheduler().save_pretrained(folder / "teacher" / "scheduler")
    text = TEMPLATE.read_text()
    for before, after in SHORTER.items():
        assert before in text
        text = text.replace(before, after, 1)
    (folder / "mine.toml").write_text(text)
    return folder


def _named(config: Config) -> list[str]:
    """``real/phone`` and all the others."""
    splits = config.data.splits
    each = (splits.train, splits.validation, splits.calibration, splits.threshold, splits.test)
    return [f"real/{name}" for one in each for name in one.real] + [
        f"fake/{name}" for one in each for name in one.fake
    ]


def test_it_goes_all_the_way_to_a_bundle(folder: Path) -> None:
    """With nothing set but the teacher, by the README's commands."""
    options = command_options(folder, "mine", "run")
    places = {"TRAINER_TEACHER": str(folder / "teacher")}
    for command in (
        ["train"],
        ["crops", "grid:96:4", "--rounds", "2"],
        ["calibrate"],
        ["evaluate"],
        ["export", "--bundle", str(folder / "bundle")],
    ):
        assert main([*command, *options], places) == 0
    bundle = load_bundle(folder / "bundle")
    bundle.runtime.close()
    assert bundle.manifest.name == "mine"
    assert bundle.manifest.preprocess.crop_policy == "five_crop"


def test_what_the_file_says_of_pairs_can_be_done(folder: Path, tmp_path: Path) -> None:
    """Its commented lines, taken in, parse: the folder of pairs is what is then missing."""
    text = (folder / "mine.toml").read_text()
    text = text.replace("# [data]\n# pairs", "[data]\npairs")
    text = text.replace("[train]\ncrop_px", "[train]\nvalidate_pairs = true\ncrop_px")
    (tmp_path / "pairs.toml").write_text(text)
    config = read_config(tmp_path / "pairs.toml", {"TRAINER_TEACHER": "t"})
    assert config.data.pairs == (Path("runs/fakes"),)
    assert config.train.validate_pairs


def test_what_the_file_says_of_the_shipped_bundle_can_be_done(folder: Path) -> None:
    """Its commented line, taken in, begins with that bundle's weights, which its golden outputs prove."""
    text = (folder / "mine.toml").read_text()
    line = '# start_from = "engines/bundles/reference"'
    assert line in text
    bundle = TEMPLATE.parents[2] / "engines" / "bundles" / "reference"
    text = text.replace(line, f'start_from = "{bundle}"')
    (folder / "onward.toml").write_text(text)
    places = {"TRAINER_TEACHER": str(folder / "teacher")}
    assert main(["train", *command_options(folder, "onward", "onward")], places) == 0
    lineage = read_best(folder / "onward")[1]
    assert lineage["started_from"].startswith("bundle reference ")
