"""``score`` writes a line for each image, in order; a bad one never keeps others from theirs."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.bundle.verify import Bundle, load_bundle
from engines.preprocess import Limits, prepare
from tests.support.bundles import encode, gradient_HWC, make_tiny_bundle, reference_logit_N
from tests.unit.worker.samples import jpeg_bytes
from worker.score import score_paths
from worker.settings import BatchSettings, DecodeSettings, Settings


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    """The tiny bundle, loaded."""
    loaded = load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle")))
    yield loaded
    loaded.runtime.close()


def scored(
    bundle: Bundle, *paths: Path, settings: Settings | None = None
) -> tuple[list[dict[str, object]], int]:
    """The lines, parsed, and how many failed."""
    out = io.StringIO()
    failed = score_paths(settings or Settings(), bundle, paths, out)
    return [json.loads(line) for line in out.getvalue().splitlines()], failed


def test_an_image_gets_score_logit_and_band(bundle: Bundle, tmp_path: Path) -> None:
    """The logit is the engine's own, the score its calibration, the band the thresholds'."""
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg_bytes())
    lines, failed = scored(bundle, path)
    image = prepare(jpeg_bytes(), bundle.manifest.preprocess, Limits())
    logit = float(reference_logit_N(image.image_NHWC).mean())
    assert failed == 0
    assert lines == [
        {
            "path": str(path),
            "logit": pytest.approx(logit, abs=1e-4),
            "score": pytest.approx(bundle.manifest.score(logit), abs=1e-4),
            "band": "review" if bundle.manifest.score(logit) >= 0.5 else "allow",
        }
    ]


def test_bad_images_stand_among_good_ones_in_order(bundle: Bundle, tmp_path: Path) -> None:
    """Across batches, with repeats; each bad one has its own code."""
    contents = {
        "a.jpg": jpeg_bytes(),
        "b.png": b"plain text",
        "c.webp": encode(gradient_HWC(40, 40), "WEBP"),
        "d.jpg": jpeg_bytes()[:-300],
        "e.jpg": jpeg_bytes(),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    settings = Settings(batch=BatchSettings(max_images=2))
    lines, failed = scored(
        bundle, tmp_path, tmp_path / "missing.jpg", tmp_path / "a.jpg", settings=settings
    )
    assert [Path(str(line["path"])).name for line in lines] == [*contents, "missing.jpg", "a.jpg"]
    codes = [line.get("code") for line in lines]
    assert codes == [None, "unsupported_format", None, "truncated", None, "unreadable", None]
    assert failed == 3
    assert lines[0]["logit"] == lines[4]["logit"] == lines[6]["logit"]
    assert lines[5]["error"] == "No such file or directory: check the path"


def test_a_directory_stands_for_all_below_it(bundle: Bundle, tmp_path: Path) -> None:
    """Sorted, in whatever depth."""
    for name in ("b/2.jpg", "a/deep/1.jpg", "3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(jpeg_bytes())
    lines, _ = scored(bundle, tmp_path)
    names = [str(Path(str(line["path"])).relative_to(tmp_path)) for line in lines]
    assert sorted(names) == names == ["3.jpg", "a/deep/1.jpg", "b/2.jpg"]


def test_the_caps_of_the_settings_hold(bundle: Bundle, tmp_path: Path) -> None:
    """No more is read of a large file than is needed to see that it is."""
    (tmp_path / "large.jpg").write_bytes(jpeg_bytes())
    settings = Settings(decode=DecodeSettings(max_bytes=100))
    lines, _ = scored(bundle, tmp_path / "large.jpg", settings=settings)
    assert lines[0]["code"] == "too_many_bytes"


def test_a_name_that_is_no_utf8_is_written_all_the_same(bundle: Bundle, tmp_path: Path) -> None:
    """Its reader gets the very name back; other names stay readable."""
    for name in (b"k\xe4se.jpg", "käse.jpg".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(jpeg_bytes())
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert score_paths(Settings(), bundle, [tmp_path], out) == 0
    out.flush()
    written = out.buffer.read() if out.buffer.seek(0) == 0 else b""
    names = {os.fsencode(Path(json.loads(line)["path"]).name) for line in written.splitlines()}
    assert names == {b"k\xe4se.jpg", "käse.jpg".encode()}
    assert "käse.jpg".encode() in written
