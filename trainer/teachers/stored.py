"""Reads the parts of a diffusion model from a diffusers folder or a hub id.

In: a source and a part's folder. Out: its configuration, or its network with every weight. Errors:
``TeacherError``.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import diffusers
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from trainer.teachers.errors import TeacherError

_NEEDS = (
    "name a diffusers folder or hub id with unet/ or transformer/, and scheduler/, "
    "or make one with python -m trainer teacher or teacher-convert"
)


def network_settings(source: str) -> tuple[str, Mapping[str, object]]:
    """("unet" or "transformer", its configuration)."""
    for folder in ("unet", "transformer"):
        try:
            # Only reads JSON: any model class does.
            return folder, _mapping(diffusers.UNet2DModel.load_config(source, subfolder=folder))
        except (OSError, ValueError) as error:
            last = error
    raise TeacherError(f"no diffusion model in {source!r} ({last}): {_NEEDS}") from last


def scheduler_settings(source: str) -> Mapping[str, object]:
    """The scheduler's configuration."""
    try:
        return _mapping(diffusers.DDPMScheduler.load_config(source, subfolder="scheduler"))
    except (OSError, ValueError) as error:
        raise TeacherError(
            f"{source!r} has no scheduler that can be read ({error}): the noise of a step means "
            "nothing without the schedule of the training; add scheduler/scheduler_config.json"
        ) from error


def pipeline_parts(source: str) -> frozenset[str]:
    """The parts that the folder has by its ``model_index.json``; none where there is no such file."""
    try:
        index = _mapping(diffusers.DiffusionPipeline.load_config(source))
    except (OSError, ValueError):
        return frozenset()
    return frozenset(name for name, kind in index.items() if kind != [None, None])


def _mapping(content: object) -> Mapping[str, object]:
    if not isinstance(content, Mapping):
        raise ValueError("it is no JSON object")  # noqa: TRY004  caught by the callers as any misfit
    return content


def load_network(
    kind: type[ModelMixin], source: str, folder: str, variant: str | None
) -> ModelMixin:
    """A network in fp32 with every weight that it needs."""
    try:
        # Loaded the same way whether accelerate is installed or not.
        network, loading = kind.from_pretrained(
            source,
            subfolder=folder,
            variant=variant,
            output_loading_info=True,
            low_cpu_mem_usage=False,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise TeacherError(
            f"{folder}/ of {source!r} cannot be loaded as {kind.__name__} ({error}): its weights "
            "must be those of its config.json; copy the folder again, or set teacher.variant"
        ) from error
    # diffusers only warns, and leaves what it could not load at random.
    wrong = [key for name in ("missing_keys", "mismatched_keys") for key in loading[name]]
    if wrong:
        raise TeacherError(
            f"{folder}/ of {source!r} lacks {len(wrong)} weights of the network, {wrong[0]} among "
            "them: its weights are those of another network; copy or convert it again"
        )
    return network.float()  # weights may be stored in half precision


def name_of(source: str, parts: list[nn.Module], settings: Mapping[str, object]) -> str:
    """The folder's name and a digest: its place differs between machines.

    Args:
        source: the folder or hub id.
        parts: the modules whose weights change a target.
        settings: what else does; empty for nothing.
    """
    digest = hashlib.sha256()
    for value in (one for part in parts for one in part.state_dict().values()):
        digest.update(value.contiguous().numpy().tobytes())
    if settings:
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return f"{Path(source).name or source}-{digest.hexdigest()[:12]}"
