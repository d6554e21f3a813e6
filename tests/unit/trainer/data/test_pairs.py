"""Pairs on disk are those of the split that their photograph is in, and of the families asked for."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from engines.preprocess import ImageError
from tests.support.pairs import write_pairs
from tests.support.photographs import photograph_px
from tests.support.trainer import tiny_config
from tests.support.training import Quiet, run
from trainer.config import DataConfig, SplitConfig
from trainer.data.dataset import scan
from trainer.data.pairs import PAIRS, load_pairs, read_pair_files, share_softness
from trainer.errors import DataError
from trainer.training.loop import build


@pytest.fixture
def pairs(root: Path, tmp_path: Path) -> Path:
    """Pairs of two families, of every photograph of real/a (training) and real/e (test)."""
    return write_pairs(root, tmp_path / "fakes", "a", "e")


def config(root: Path, pairs: Path, *families: str) -> DataConfig:
    """The tiny data with the pairs."""
    return tiny_config(root).data.model_copy(
        update={"pairs": (pairs,), "pair_families": tuple(families)}
    )


def never(name: str, error: ImageError) -> None:
    """No file may be skipped."""
    pytest.fail(f"{name}: {error}")


def test_a_pair_is_in_the_split_of_its_photograph(root: Path, pairs: Path) -> None:
    """Four photographs train and four test; none is in the validation split."""
    found = scan(config(root, pairs)).pairs
    assert {one.line.photograph[:6] for one in found["train"]} == {"real/a"}
    assert {one.line.photograph[:6] for one in found["test"]} == {"real/e"}
    assert found["validation"] == ()


def test_pairs_hold_one_photograph_and_each_family(root: Path, pairs: Path) -> None:
    """Pixels are as on disk; the photograph's are held once."""
    files = scan(config(root, pairs)).pairs["train"]
    found = load_pairs(files, strict=True, on_skip=never)
    assert [one.family for one in found] == ["one", "two"] * 4
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first.real_HWC is second.real_HWC
        assert (first.fake_HWC == first.real_HWC + 1).all()
        assert (second.fake_HWC == first.real_HWC + 2).all()


def test_a_regenerator_is_left_out_by_naming_the_others(root: Path, pairs: Path) -> None:
    """``pair_families`` chooses, by name or pattern; one that no set holds is refused."""
    for pattern in ("two", "tw*"):
        [*files] = scan(config(root, pairs, pattern)).pairs["train"]
        found = load_pairs(files, strict=True, on_skip=never)
        assert {one.family for one in found} == {"two"}
    with pytest.raises(DataError, match=r"no family 'three', but one, two"):
        scan(config(root, pairs, "three"))


def test_a_family_need_not_be_in_every_set(root: Path, pairs: Path, tmp_path: Path) -> None:
    """A set that was made later has other families; one that no set has is refused."""
    later = write_pairs(root, tmp_path / "later", "a")
    lines = (later / PAIRS).read_text().replace('"one": ', '"new": ')
    (later / PAIRS).write_text(lines)
    data = config(root, pairs, "one", "ne*")
    files = scan(data.model_copy(update={"pairs": (pairs, later)})).pairs["train"]
    assert {name for one in files for name in one.line.fake} == {"one", "new"}
    data = config(root, pairs, "one", "old*")
    with pytest.raises(DataError, match=r"fakes, .*later has no family 'old\*', but new, one, two"):
        scan(data.model_copy(update={"pairs": (pairs, later)}))


def test_pairs_of_photographs_in_no_split_are_left_out(root: Path, pairs: Path) -> None:
    """They are counted; where none is left that trains, the run stops."""
    changed = tiny_config(root, {'real = ["e"]\nfake = ["w"]': ""}).data
    dataset = scan(changed.model_copy(update={"pairs": (pairs,)}))
    assert dataset.homeless_photographs == 4
    lines = (pairs / PAIRS).read_text().splitlines()
    (pairs / PAIRS).write_text("\n".join(lines[4:]))
    with pytest.raises(DataError, match="no pair's photograph is in the training split"):
        scan(config(root, pairs))


def test_the_digest_follows_the_pairs(root: Path, pairs: Path) -> None:
    """A family more, or one changed file, is another data set."""
    both, one = scan(config(root, pairs)).digest, scan(config(root, pairs, "one")).digest
    assert len({scan(tiny_config(root).data).digest, both, one}) == 3
    path = pairs / "fake/one/a-000.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert scan(config(root, pairs)).digest != both


def test_a_corrupt_regeneration_is_named_and_skipped(root: Path, pairs: Path) -> None:
    """The others of its photograph stay; a strict run stops."""
    (pairs / "fake/one/a-001.png").write_bytes(b"no image")
    files = scan(config(root, pairs)).pairs["train"]
    skipped: list[str] = []
    found = load_pairs(files, strict=False, on_skip=lambda name, _error: skipped.append(name))
    assert len(found) == 7
    assert skipped == [str(pairs / "fake/one/a-001.png")]
    with pytest.raises(DataError, match=r"a-001\.png: .*make it again"):
        load_pairs(files, strict=True, on_skip=never)


def test_files_that_do_not_belong_together_are_refused(root: Path, pairs: Path) -> None:
    """Another size, an absent file, a broken line, no set at all: each says what to do."""
    files = scan(config(root, pairs)).pairs["train"]
    Image.new("RGB", (60, 64)).save(pairs / "fake/one/a-001.png")
    with pytest.raises(DataError, match=r"a-001\.png has 60 x 64 px"):
        load_pairs(files, strict=False, on_skip=never)
    (pairs / "fake/one/a-001.png").unlink()
    with pytest.raises(DataError, match=r"a-001\.png cannot be read .* make the set again"):
        scan(config(root, pairs))
    (pairs / PAIRS).write_text('{"photograph": "real/a/000.png"}\n')
    with pytest.raises(DataError, match=r"line 1: sha256: Field required; .*trainer fakes wrote"):
        read_pair_files([pairs])
    with pytest.raises(DataError, match=r"pairs\.jsonl cannot be read .*python -m trainer fakes"):
        read_pair_files([pairs / "elsewhere"])


def test_a_run_draws_from_the_pairs(root: Path, pairs: Path, tmp_path: Path) -> None:
    """From the configuration to a batch: the fakes beside photographs are regenerations."""
    whole = tiny_config(
        root,
        {
            "jpeg_p = 0.3\nwebp_p = 0.1": "flip_p = 0\nresize_p = 0\nblur_p = 0\nwebp_p = 0\njpeg_p = 0",
            "batch = 8": "batch = 8\npaired_share = 1.0",
            "[teacher]": "[loss]\nlambda_noise = 0.0\n[teacher]",
        },
    )
    whole = whole.model_copy(update={"data": config(root, pairs, "two")})
    told: list[str] = []
    batch = build(whole, tmp_path / "cache", told.append).batches.at(0)
    assert batch.label_N.tolist() == [0, 1] * 4
    assert (batch.image_NHWC[1::2] == batch.image_NHWC[::2] + 2).all()
    assert any("4 pairs of 4 training photographs, by two" in one for one in told)


def test_a_photograph_of_which_two_sets_have_regions_is_one(
    root: Path, pairs: Path, tmp_path: Path
) -> None:
    """The log counts photographs, of which a set may hold several regions, and a set may be named twice."""
    once = config(root, pairs)
    named_twice = once.model_copy(update={"pairs": (pairs, pairs)})
    told: list[str] = []
    build(tiny_config(root).model_copy(update={"data": named_twice}), tmp_path, told.append)
    assert any("16 pairs of 4 training photographs, by one, two" in one for one in told)
    left_out = once.splits.model_copy(update={"test": SplitConfig()})
    homeless = named_twice.model_copy(update={"splits": left_out})
    assert scan(homeless).homeless_photographs == 4


def test_pairs_of_validation_photographs_share_in_choosing_the_step(
    root: Path, tmp_path: Path
) -> None:
    """Where that is asked for: as good a mean as those of the generators, native and saved again."""
    asked = tiny_config(root, {"batch = 8": "batch = 8\nvalidate_pairs = true\nsteps = 1"})
    judged = asked.model_copy(
        update={"data": config(root, write_pairs(root, tmp_path / "both", "a", "b"))}
    )
    watched = Quiet()
    best = run(judged, root, "chosen", watched)
    means = watched.reports[-1][0].mean_auc
    assert list(means) == ["native", "aligned", "pairs, native", "pairs, jpeg90"]
    assert best.validation_auc == pytest.approx(np.mean(list(means.values())))
    none = asked.model_copy(
        update={"data": config(root, write_pairs(root, tmp_path / "train", "a"))}
    )
    with pytest.raises(DataError, match="no pair of a validation photograph"):
        build(none, tmp_path / "cache", lambda _text: None)


def blurred(pixels_HWC: NDArray[np.uint8], sigma_px: float) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels_HWC).filter(ImageFilter.GaussianBlur(sigma_px)))


def detail(pixels_HWC: NDArray[np.uint8]) -> float:
    """The mean difference between neighbours."""
    return float(np.abs(np.diff(pixels_HWC.astype(np.float32), axis=1)).mean())


def test_a_photograph_becomes_as_soft_as_its_blurred_twin() -> None:
    """Either way round; the softer one stays as it was, but for rounding."""
    sharp = photograph_px(128)
    soft = blurred(sharp, 1.5)
    assert detail(soft) < 0.7 * detail(sharp)
    for real, fake in ((sharp, soft), (soft, sharp)):
        one, two = share_softness(real, fake)
        assert abs(detail(one) - detail(two)) < 0.1 * detail(soft)
        assert abs(detail(one) - detail(soft)) < 0.15 * detail(soft)


def test_equals_are_left_alone() -> None:
    """The same picture twice comes back within a level."""
    pixels = photograph_px(96)
    for found in share_softness(pixels, pixels):
        assert np.abs(found.astype(int) - pixels).max() <= 1


def test_a_lattice_is_kept() -> None:
    """A grid of two pixels is no matter of softness: its peak stands out as before."""
    real = photograph_px(128)
    grid = np.where(np.arange(128)[None, :, None] % 2, 8, -8)
    fake = np.clip(blurred(real, 1.0).astype(int) + grid, 0, 255).astype(np.uint8)

    def peak(pixels_HWC: NDArray[np.uint8]) -> float:
        power = np.abs(np.fft.fft(pixels_HWC.astype(float).mean(axis=2), axis=1)).mean(axis=0)
        return float(power[64] / np.median(power[56:64]))

    _, found = share_softness(real, fake)
    assert peak(found) > 0.5 * peak(fake) > 5 * peak(real)


def test_sizes_may_be_odd() -> None:
    """Both come back as large as they were."""
    pixels = photograph_px(96)[:77, :91]
    assert [one.shape for one in share_softness(pixels, pixels)] == [(77, 91, 3)] * 2
