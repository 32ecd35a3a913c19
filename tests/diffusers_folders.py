"""Small pipelines and models as diffusers itself writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler


def unet_model(**changes: Any) -> UNet2DModel:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "num_class_embeds": 4,
    }
    return UNet2DModel(**(arguments | changes)).eval()


def ddpm_folder(folder: Path, scheduler: Any = None, **changes: Any) -> Path:
    """A DDPMPipeline of a small UNet2DModel."""
    DDPMPipeline(unet_model(**changes), scheduler or DDPMScheduler()).save_pretrained(folder)
    return folder


def model_folder(folder: Path, scheduler: Any = None, **changes: Any) -> Path:
    """A UNet2DModel alone, with its scheduler's configuration beside its own."""
    unet_model(**changes).save_pretrained(folder)
    (scheduler or DDPMScheduler()).save_pretrained(folder)
    return folder


def autoencoder(**changes: Any) -> AutoencoderKL:
    torch.manual_seed(1)
    arguments: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
        "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 16,
        "scaling_factor": 0.18215,
    }
    return AutoencoderKL(**(arguments | changes)).eval()


def dit_model(**changes: Any) -> DiTTransformer2DModel:
    torch.manual_seed(2)
    arguments: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 2,
        "sample_size": 8,
        "num_embeds_ada_norm": 4,
        "norm_num_groups": 4,
    }
    model = DiTTransformer2DModel(**(arguments | changes)).eval()
    # What is drawn at random is near nothing where it says what the class is; a trained one's is not.
    for name, value in model.named_parameters():
        if "embedding_table" in name:
            torch.nn.init.normal_(value)
    return model


def dit_folder(folder: Path, scheduler: Any = None, id2label: dict[int, str] | None = None, **changes: Any) -> Path:
    """A DiTPipeline on latents of 8x8, of images of 16x16, with a learned variance, as published ones have."""
    pipeline = DiTPipeline(dit_model(**changes), autoencoder(), scheduler or DDIMScheduler(clip_sample=False))
    pipeline.save_pretrained(folder)
    if id2label is not None:
        edit(folder / "model_index.json", id2label={str(key): value for key, value in id2label.items()})
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes one out."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: one for key, one in value.items() if one is not None}))
