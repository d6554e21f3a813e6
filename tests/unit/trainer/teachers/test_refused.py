"""Folders that are no teacher are refused, with a word of what is wrong."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.unit.trainer.teachers import tiny_models
from trainer.config import TeacherConfig
from trainer.errors import TeacherError
from trainer.teachers.opening import open_teacher


def test_an_absent_teacher_is_refused(tmp_path: Path) -> None:
    """The message says what a teacher's folder holds, and how to get one."""
    with pytest.raises(TeacherError, match="teacher-convert"):
        open_teacher(TeacherConfig(source=str(tmp_path)))


def test_a_missing_scheduler_is_refused(tmp_path: Path) -> None:
    """Without the schedule of its training, an index means nothing."""
    shutil.rmtree(tiny_models.pixel(tmp_path / "m") / "scheduler")
    with pytest.raises(TeacherError, match=r"add scheduler/scheduler_config\.json"):
        open_teacher(TeacherConfig(source=str(tmp_path / "m")))


def test_a_missing_text_encoder_is_refused(tmp_path: Path) -> None:
    """The empty prompt is an input that cannot be left out."""
    folder = tmp_path / "sd"
    tiny_models.write(tiny_models.sd(), folder)
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(TeacherError, match="every tokenizer and text encoder"):
        open_teacher(TeacherConfig(source=str(folder)))


def test_a_teacher_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    """Diffusers would leave them at random; a teacher with random parts teaches nothing."""
    [weights] = (tiny_models.converted(tmp_path) / "unet").glob("*.safetensors")
    state = load_file(weights)
    del state["mid_block.resnets.0.conv1.weight"]
    save_file(state, weights)
    with pytest.raises(
        TeacherError, match=r"lacks 1 weights of the network, such as mid_block\.resnets"
    ):
        open_teacher(TeacherConfig(source=str(tmp_path)))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """A configuration beside weights that are not its own."""
    source, other = tiny_models.converted(tmp_path / "a"), tiny_models.pixel(tmp_path / "b")
    shutil.copy(source / "unet/config.json", other / "unet/config.json")
    with pytest.raises(TeacherError, match=r"another network|cannot be loaded"):
        open_teacher(TeacherConfig(source=str(other)))


def test_a_network_of_no_known_family_is_refused(tmp_path: Path) -> None:
    """The message lists what can be opened."""
    config = tiny_models.pixel(tmp_path) / "unet/config.json"
    content = json.loads(config.read_text()) | {"_class_name": "UNet3DConditionModel"}
    config.write_text(json.dumps(content))
    with pytest.raises(TeacherError, match=r"UNet3DConditionModel: .* FluxTransformer2DModel"):
        open_teacher(TeacherConfig(source=str(tmp_path)))


def test_an_unconditional_latent_model_is_no_pixel_teacher(tmp_path: Path) -> None:
    """A UNet2DModel beside a vqvae works on latents, also where it has three channels."""
    index = {"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]}
    (tiny_models.pixel(tmp_path) / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(TeacherError, match="not a model of RGB pixels"):
        open_teacher(TeacherConfig(source=str(tmp_path)))
