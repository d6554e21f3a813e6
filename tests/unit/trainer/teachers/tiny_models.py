"""Diffusers folders of every family with random weights of a few thousand parameters."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from trainer.config import TeacherConfig
from trainer.teachers.keras_ddpm import LAYOUT, KerasDdpmUnet
from trainer.teachers.opening import open_teacher

TINY = TeacherConfig(kind="random-tiny", tile_px=32, tile_overlap_px=8)
_TEXT = 16  # the width of the text encoders


def vae(latent_channels: int, shift_factor: float | None = None) -> AutoencoderKL:
    """Four levels, so of stride 8 as the real ones."""
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=latent_channels,
        norm_num_groups=2,
        layers_per_block=1,
        shift_factor=shift_factor,
    )


def _clip(*, projected: bool = False) -> CLIPTextModel | CLIPTextModelWithProjection:
    torch.manual_seed(1)
    config = CLIPTextConfig(
        vocab_size=4,
        hidden_size=_TEXT,
        projection_dim=_TEXT,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=3,
    )
    model = (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)
    nn.Module.train(model, mode=False)
    return model


def _clip_tokenizer() -> CLIPTokenizer:
    vocabulary = {"a": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8)


def _t5() -> T5EncoderModel:
    torch.manual_seed(2)
    config = T5Config(
        vocab_size=8, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0
    )
    model = T5EncoderModel(config)
    nn.Module.train(model, mode=False)
    return model


def _t5_tokenizer() -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), ("a", -2.0)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=8)


def _unet(**more: object) -> UNet2DConditionModel:
    torch.manual_seed(3)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        **more,
    )


def sd(prediction_type: str = "epsilon") -> DiffusionPipeline:
    """Stable Diffusion 1 (epsilon) or 2 (v)."""
    return StableDiffusionPipeline(
        vae=vae(4),
        text_encoder=_clip(),
        tokenizer=_clip_tokenizer(),
        unet=_unet(cross_attention_dim=_TEXT),
        scheduler=PNDMScheduler(
            beta_schedule="scaled_linear", skip_prk_steps=True, prediction_type=prediction_type
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(*, zeros: bool = True) -> DiffusionPipeline:
    """Two text encoders, and the sizes of the picture as a condition."""
    return StableDiffusionXLPipeline(
        vae=vae(4),
        text_encoder=_clip(),
        text_encoder_2=_clip(projected=True),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        unet=_unet(
            cross_attention_dim=2 * _TEXT,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + _TEXT,
        ),
        scheduler=DDPMScheduler(beta_schedule="scaled_linear"),
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    )


def sd3() -> DiffusionPipeline:
    """Flow matching on 16 latent channels, without the large text encoder, as one may leave it out."""
    torch.manual_seed(4)
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=2 * _TEXT,
        out_channels=16,
        pos_embed_max_size=16,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(16, shift_factor=0.06),
        text_encoder=_clip(projected=True),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip(projected=True),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )


def flux(*, distilled: bool = False) -> DiffusionPipeline:
    """Flow matching on packed latents; ``distilled`` as FLUX.1-dev."""
    torch.manual_seed(5)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=_TEXT,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=distilled,
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(16, shift_factor=0.1),
        text_encoder=_clip(),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_t5(),
        tokenizer_2=_t5_tokenizer(),
        transformer=transformer,
    )


def write(pipeline: DiffusionPipeline, folder: Path) -> str:
    """Save it as diffusers does; returns the source."""
    pipeline.save_pretrained(folder)
    return str(folder)


def pixel(folder: Path) -> Path:
    """A pixel-space folder: the network of ``random-tiny``."""
    network = open_teacher(TINY).network
    network.inner.save_pretrained(folder / "unet")  # type: ignore[attr-defined]  # an Unconditional
    DDPMScheduler().save_pretrained(folder / "scheduler")
    return folder


def keras_ddpm() -> KerasDdpmUnet:
    """The network of the reference bundle's teacher, narrow."""
    torch.manual_seed(0)
    small = {"block_out_channels": (8, 16, 16, 16), "time_embedding_dim": 16}
    network: KerasDdpmUnet = KerasDdpmUnet(**{**LAYOUT, **small})
    return network


def converted(folder: Path) -> Path:
    """A folder of the kind that ``teacher-convert`` writes."""
    keras_ddpm().save_pretrained(folder / "unet")
    DDPMScheduler().save_pretrained(folder / "scheduler")
    return folder
