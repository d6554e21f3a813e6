"""What a text-to-image model is told when it is asked about an image without a prompt.

In: a diffusers folder or hub id with its text encoders. Out: ``Prompt``. Errors: ``TeacherError``.

It is what the model's own pipeline uses in place of a prompt for guidance: the empty text through
every text encoder, or zeros where the model was trained so (``force_zeros_for_empty_prompt`` of
SDXL). FLUX has no such notion, and is given the empty text. The encoders run once and are dropped.
"""

import diffusers  # resolves its names when they are used: a pipeline takes seconds to import
import torch
from torch import Tensor, nn

from trainer.teachers.errors import TeacherError
from trainer.teachers.stored import pipeline_parts


class Prompt(nn.Module):
    """The embedding of no prompt; its buffers follow the model to its device."""

    def __init__(self, token_NC: Tensor, pooled_C: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("token_NC", token_NC.float())
        self.register_buffer("pooled_C", None if pooled_C is None else pooled_C.float())

    def tokens(self, count: int) -> Tensor:
        """One for each crop, [count, N, C]."""
        return self.get_buffer("token_NC").expand(count, -1, -1)

    def pooled(self, count: int) -> Tensor:
        """One for each crop, [count, C]."""
        return self.get_buffer("pooled_C").expand(count, -1)


# The component that a pipeline of each family has in place of its own network.
_PIPELINES = {
    "sd": ("StableDiffusionPipeline", "unet"),
    "sdxl": ("StableDiffusionXLPipeline", "unet"),
    "sd3": ("StableDiffusion3Pipeline", "transformer"),
    "flux": ("FluxPipeline", "transformer"),
}
# What a prompt does not need, of what each pipeline takes.
_LEFT_OUT = {
    "sd": ("vae", "safety_checker", "feature_extractor", "image_encoder"),
    "sdxl": ("vae", "feature_extractor", "image_encoder"),
    "sd3": ("vae", "feature_extractor", "image_encoder"),
    "flux": ("vae", "feature_extractor", "image_encoder"),
}
_T5 = {"text_encoder_3", "tokenizer_3"}


@torch.no_grad()
def no_prompt(family: str, source: str, network: nn.Module, variant: str | None) -> Prompt:
    """Compute the embedding with the folder's own text encoders.

    Args:
        family: "sd", "sdxl", "sd3" or "flux".
        source: a diffusers folder or hub id with ``model_index.json``.
        network: the denoising network, whose configuration an encoder may need.
        variant: of the encoders' file names.
    """
    class_name, place = _PIPELINES[family]
    pipeline_class = getattr(diffusers, class_name)
    left_out = set(_LEFT_OUT[family])
    if family == "sd3" and not pipeline_parts(source) >= _T5:
        left_out |= _T5  # it may come without its largest encoder; its pipeline then takes zeros
    try:
        pipeline = pipeline_class.from_pretrained(
            source, variant=variant, **dict.fromkeys(left_out), **{place: network}
        )
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.float()  # weights may be stored in half precision
        return _encoded(family, pipeline)
    # A missing encoder surfaces as any of these, depending on what else is missing.
    except (OSError, ValueError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        raise TeacherError(
            f"the empty prompt cannot be encoded by {source!r} ({error}): it needs model_index.json "
            "and every tokenizer and text encoder that it names"
        ) from error


def _encoded(family: str, pipeline: "diffusers.DiffusionPipeline") -> Prompt:
    if family == "flux":
        token_BNC, pooled_BC, _ = pipeline.encode_prompt(prompt="", prompt_2=None)
        return Prompt(token_BNC[0], pooled_BC[0])
    if family == "sd":
        _, token_BNC = pipeline.encode_prompt("", "cpu", 1, True)  # noqa: FBT003  positional there
        return Prompt(token_BNC[0], None)
    more = {"prompt_3": None} if family == "sd3" else {}
    _, token_BNC, _, pooled_BC = pipeline.encode_prompt(prompt="", prompt_2=None, **more)
    return Prompt(token_BNC[0], pooled_BC[0])
