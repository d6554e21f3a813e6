"""Plans built for real, by TensorRT-RTX, which needs no GPU for it."""

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from rich.console import Console
from structlog.testing import capture_logs

from engines.bundle.manifest import BundleError, PreprocessSpec
from engines.compile.plan import (
    ConsoleProgress,
    PlanBuild,
    PlanSpec,
    architecture,
    build_plan,
    read_timing,
    timing_path,
    write_timing,
)
from engines.runtime.tensorrt_api import TENSORRT_RTX, import_api
from tests.support.bundles import tiny_manifest, tiny_model

MANIFEST = tiny_manifest(PreprocessSpec(version="1", crop_policy="center", crop_px=32))
MODEL = tiny_model(32).SerializeToString()
ORDER = PlanSpec(
    TENSORRT_RTX, MANIFEST.input, MANIFEST.output_name, "8.0", hardware_compatible=True
)
# The calls around the cache are those of TensorRT; here it keeps nothing but its own header.
TIMED = replace(ORDER, target=replace(TENSORRT_RTX, times_tactics=True))


class Seen:
    """Remembers what a builder tells its monitor."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str | None, int]] = []
        self.steps: list[tuple[str, int]] = []
        self.over: list[str] = []

    def phase_started(self, phase: str, within: str | None, steps: int) -> None:
        """See ``Watcher``."""
        self.begun.append((phase, within, steps))

    def step_done(self, phase: str, step: int) -> None:
        """See ``Watcher``."""
        self.steps.append((phase, step))

    def phase_ended(self, phase: str) -> None:
        """See ``Watcher``."""
        self.over.append(phase)


class Impatient(Seen):
    """Presses Ctrl-C at the first step."""

    def step_done(self, phase: str, step: int) -> None:
        """See ``Watcher``."""
        super().step_done(phase, step)
        raise KeyboardInterrupt


def build(order: PlanSpec = ORDER, model: bytes = MODEL, timing: bytes = b"") -> PlanBuild:
    """Build it, watching nothing."""
    return build_plan(import_api(TENSORRT_RTX), order, model, timing, Seen())


def test_a_plan_is_built_on_a_machine_without_a_gpu() -> None:
    built = build()
    assert len(built.plan) > 1000
    assert built.timing == b""


def test_a_plan_for_one_architecture_is_another_than_one_for_all() -> None:
    assert build(replace(ORDER, capability="8.9", hardware_compatible=False)).plan != build().plan


def test_an_architecture_that_the_library_does_not_build_for_is_refused_with_those_it_does() -> (
    None
):
    with pytest.raises(
        BundleError, match=r"capability 9\.0: choose one of 7\.5, .*12\.0.* or --hard"
    ):
        architecture(import_api(TENSORRT_RTX), TENSORRT_RTX, "9.0")


def test_what_the_builder_does_is_shown_phase_by_phase() -> None:
    seen = Seen()
    build_plan(import_api(TENSORRT_RTX), ORDER, MODEL, b"", seen)
    assert seen.begun[0][:2] == ("Building engine", None)
    assert {within for _, within, _ in seen.begun} > {None, "Building engine"}
    counts = {phase: count for phase, _, count in seen.begun}
    assert all(0 <= step < counts[phase] for phase, step in seen.steps)
    assert [s for p, s in seen.steps if p == "Optimizing graph"] == [
        *range(counts["Optimizing graph"])
    ]
    assert sorted(seen.over) == sorted(phase for phase, _, _ in seen.begun)


def test_ctrl_c_ends_the_build_at_its_next_step() -> None:
    impatient = Impatient()
    with pytest.raises(KeyboardInterrupt):
        build_plan(import_api(TENSORRT_RTX), ORDER, MODEL, b"", impatient)
    whole = Seen()
    build_plan(import_api(TENSORRT_RTX), ORDER, MODEL, b"", whole)
    assert len(impatient.steps) < len(whole.steps)


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_what_a_build_measured_comes_out_of_it_and_reaches_the_next() -> None:
    first = build(TIMED)
    assert first.timing
    with capture_logs() as logs:
        second = build(TIMED, timing=first.timing)
    assert second.timing
    # TensorRT-RTX reads no cache, not even its own, and says so: thus it was given one.
    assert any("deserialize timing cache" in one["message"] for one in logs)


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_a_timing_cache_that_cannot_be_read_costs_no_build() -> None:
    built = build(TIMED, timing=b"no timing cache at all")
    assert built.plan
    assert built.timing


def graph(nodes: Sequence[onnx.NodeProto], output: str = "logit_N") -> bytes:
    """A graph of the tiny bundle's input and these nodes."""
    made = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info("image_NHWC", TensorProto.UINT8, ["N", 32, 32, 3])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N"])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("org.example", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()  # type: ignore[no-any-return]


def test_an_operator_that_the_library_lacks_is_named() -> None:
    odd = helper.make_node(
        "Divine", ["image_NHWC"], ["logit_N"], name="the_odd_one", domain="org.example"
    )
    with pytest.raises(BundleError, match=r"operator Divine \(node the_odd_one\).*export it with"):
        build(model=graph([odd]))


def test_a_truncated_graph_is_refused() -> None:
    with pytest.raises(BundleError, match="the model cannot be read by tensorrt_rtx"):
        build(model=MODEL[: len(MODEL) // 2])


def test_a_graph_that_is_not_the_manifest_s_is_refused() -> None:
    with pytest.raises(BundleError, match=r"the manifest says .*export the model and the manifest"):
        build(replace(ORDER, input=MANIFEST.input.model_copy(update={"name": "picture"})))


def test_the_batches_of_the_manifest_are_the_profile() -> None:
    # A smaller batch needs less scratch memory, which is what the plan's size of this graph shows.
    wide = MANIFEST.input.model_copy(update={"batch_max": 4096})
    assert build(replace(ORDER, input=wide)).plan != build().plan


def shown(*, terminal: bool) -> str:
    """What a small build prints."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    watcher = ConsoleProgress(console)
    watcher.phase_started("Building engine", None, 2)
    watcher.phase_started("Optimizing graph", "Building engine", 30)
    watcher.step_done("Optimizing graph", 11)
    watcher.phase_ended("Optimizing graph")
    watcher.step_done("never begun", 3)
    watcher.step_done("Building engine", 0)
    watcher.phase_started("Writing the plan", "Building engine", 1)
    watcher.phase_ended("Writing the plan")
    watcher.phase_ended("Building engine")
    return file.getvalue()


def test_a_terminal_shows_each_phase_within_its_own() -> None:
    printed = shown(terminal=True)
    assert re.search(r"Building engine +0/2 *\n  Optimizing graph +0/30", printed)
    assert re.search(r"Building engine +━+ +1/2 *\n  Writing the plan +0/1", printed)


def test_a_file_gets_nothing_of_it() -> None:
    assert shown(terminal=False).strip() == ""


def test_it_lies_beside_the_bundle_and_is_read_back(tmp_path: Path) -> None:
    path = timing_path(tmp_path / "mine", "tensorrt-11.4.0-sm90")
    assert path.parent == tmp_path
    assert read_timing(path) == b""
    write_timing(path, b"first")
    write_timing(path, b"second")
    assert read_timing(path) == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_cache_that_cannot_be_read_or_written_is_refused(tmp_path: Path) -> None:
    path = timing_path(tmp_path / "mine", "x")
    path.mkdir()
    with pytest.raises(BundleError, match="cannot be read"):
        read_timing(path)
    with pytest.raises(BundleError, match="cannot be written"):
        write_timing(path, b"data")
