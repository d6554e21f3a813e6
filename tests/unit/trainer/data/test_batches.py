"""A step's crops are a function of (seed, step), balanced, and paired where pairs are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.support.photographs import photograph_px
from tests.support.trainer import TINY, tiny_picture
from trainer.config import Config, parse_config
from trainer.data.batches import Batch, Batches
from trainer.data.dataset import Picture
from trainer.data.files import Source
from trainer.data.pairs import Pair

PLAIN = "flip_p = 0\nresize_p = 0\nblur_p = 0\nwebp_p = 0\njpeg_p = 0"


def config(*changes: tuple[str, str]) -> Config:
    """The tiny configuration, with lines replaced."""
    text = TINY
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return parse_config(text.encode(), {})


def pictures() -> list[Picture]:
    """Two folders of photographs, one of them large, and one of fakes."""
    found = []
    for label, folder, count in ((0, "a", 16), (0, "b", 1), (1, "x", 4)):
        for index in range(count):
            random = np.random.default_rng([ord(folder), index])
            source = Source(Path(f"{index}.png"), label, folder, "")
            found.append(Picture(source, tiny_picture(random, generated=label == 1)))
    return found


def same(first: Batch, second: Batch) -> bool:
    """Whether two batches hold the same crops."""
    return np.array_equal(first.image_NHWC, second.image_NHWC) and first.windows == second.windows


def test_a_step_is_always_the_same_and_never_another() -> None:
    """Two objects of one seed agree on every step; steps and seeds differ."""
    first, second = (Batches(pictures(), [], config()) for _ in range(2))
    other = Batches(pictures(), [], config(("seed = 3", "seed = 4")))
    assert same(first.at(5), second.at(5))
    assert not same(first.at(5), first.at(6))
    assert not same(first.at(5), other.at(5))


def test_half_of_a_batch_is_real() -> None:
    """Among the crops with targets, too."""
    batches = Batches(pictures(), [], config())
    batch = batches.at(0)
    assert batch.image_NHWC.shape == (8, 64, 64, 3)
    assert batch.label_N.sum() == 4
    assert batches.targets == 4
    assert batch.label_N[:4].sum() == 2


def test_crops_with_targets_recur_and_the_others_do_not() -> None:
    """After ``repeat_epochs`` the teacher's crops come again; the rest is fresh."""
    batches = Batches(pictures(), [], config())
    first, again = batches.at(0), batches.at(batches.steps_per_epoch)
    assert np.array_equal(first.image_NHWC[:4], again.image_NHWC[:4])
    assert first.windows == again.windows
    assert not np.array_equal(first.image_NHWC[4:], again.image_NHWC[4:])
    alone = batches.targets_of(0)
    assert np.array_equal(alone.window_images(), first.window_images())


def test_windows_lie_within_the_crop() -> None:
    """Every window is inside, on multiples of eight pixels."""
    batches = Batches(pictures(), [], config())
    for step in range(20):
        windows = batches.at(step).windows
        assert windows is not None
        assert all(0 <= one <= 32 and one % 8 == 0 for pair in windows.origin_px for one in pair)


def test_without_a_noise_loss_there_are_no_targets() -> None:
    """The plain control asks no teacher."""
    plain = config(("[train]", "[loss]\nlambda_noise = 0.0\n[train]"))
    batch = Batches(pictures(), [], plain).at(0)
    assert batch.windows is None
    assert len(batch.image_NHWC) == 8
    with pytest.raises(ValueError, match="no targets"):
        batch.window_images()


def test_the_plain_control_sees_the_crops_of_its_partner() -> None:
    """Images, crops and augmentations do not depend on whether their noise is learnt."""
    plain = config(("[train]", "[loss]\nlambda_noise = 0.0\n[train]"))
    for step in (0, 1, 7):
        ours = Batches(pictures(), [], config()).at(step)
        theirs = Batches(pictures(), [], plain).at(step)
        assert np.array_equal(ours.image_NHWC, theirs.image_NHWC)
        assert theirs.windows is None


def test_a_pair_shares_every_draw() -> None:
    """A photograph and its regeneration are cut and flipped alike: their difference stays."""
    real_HWC = tiny_picture(np.random.default_rng(0), generated=False) // 2
    pair = Pair("real/a/0.png", real_HWC, real_HWC + 9, "taef2")
    paired = config(
        ("jpeg_p = 0.3\nwebp_p = 0.1", f"{PLAIN}"), ("batch = 8", "batch = 8\npaired_share = 1.0")
    )
    batch = Batches(pictures(), [pair], paired).at(3)
    assert batch.label_N.tolist() == [0, 1] * 4
    difference = batch.image_NHWC[1::2].astype(int) - batch.image_NHWC[::2]
    assert (difference == 9).all()


def test_a_pair_can_be_brought_to_one_softness() -> None:
    """With the share 1 both are as soft as the softer; with the share 0 they stay apart."""
    sharp_HWC = photograph_px(96)
    soft_HWC = np.asarray(Image.fromarray(sharp_HWC).filter(ImageFilter.GaussianBlur(1.5)))
    found = {}
    for share in (0.0, 1.0):
        settings = config(
            ("jpeg_p = 0.3\nwebp_p = 0.1", PLAIN),
            ("batch = 8", f"batch = 8\npaired_share = 1.0\nshared_softness_p = {share}"),
        )
        pair = Pair("real/a/0.png", sharp_HWC, soft_HWC, "soft")
        image_NHWC = Batches(pictures(), [pair], settings).at(0).image_NHWC.astype(float)
        detail_N = np.abs(np.diff(image_NHWC, axis=2)).mean(axis=(1, 2, 3))
        found[share] = detail_N[::2].mean() / detail_N[1::2].mean()
    assert found[0.0] > 1.5
    assert 0.9 < found[1.0] < 1.15


def test_a_pair_is_drawn_photograph_first() -> None:
    """A photograph with three regenerations is drawn as often as one with a single one."""
    flat = [np.full((80, 96, 3), grey, dtype=np.uint8) for grey in (40, 200)]
    many = [Pair("real/a/0.png", flat[0], flat[0] + add, f"f{add}") for add in (1, 2, 3)]
    pairs = [*many, Pair("real/a/1.png", flat[1], flat[1] + 1, "f1")]
    paired = config(
        ("jpeg_p = 0.3\nwebp_p = 0.1", PLAIN), ("batch = 8", "batch = 8\npaired_share = 1.0")
    )
    batches = Batches(pictures(), pairs, paired)
    drawn = np.concatenate([batches.at(step).image_NHWC[1::2, 0, 0, 0] for step in range(60)])
    assert set(drawn.tolist()) == {41, 42, 43, 201}
    assert 0.4 < np.mean(drawn == 201) < 0.6


def test_a_small_folder_is_drawn_more_often_than_its_size() -> None:
    """One picture against sixteen is drawn in 1 of 5, not 1 of 17."""
    every = pictures()
    lonely = every[16].pixels_HWC
    flat = [
        Picture(one.source, np.full_like(one.pixels_HWC, 200 if one.pixels_HWC is lonely else 50))
        for one in every
    ]
    batches = Batches(flat, [], config(("jpeg_p = 0.3\nwebp_p = 0.1", PLAIN)))
    drawn = [batches.at(step) for step in range(60)]
    lonely_share = np.mean(
        [one.image_NHWC[one.label_N == 0].mean(axis=(1, 2, 3)) > 120 for one in drawn]
    )
    assert 0.12 < lonely_share < 0.3


def test_targets_recur_after_as_many_steps_as_asked() -> None:
    """Whatever an epoch is: a slow teacher is asked about so many crops and no more."""
    batches = Batches(
        pictures(), [], config(("repeat_epochs = 1", "repeat_epochs = 0\nrepeat_steps = 2"))
    )
    first, second, third = (batches.targets_of(step) for step in (0, 1, 2))
    assert same(first, third)
    assert not same(first, second)
