"""The real ViT-Tiny, where it lies beside the project, and a ViT-S/14 with random weights."""

from pathlib import Path

import torch
import transformers
from runner import SHARED

from dinodp.backbones import Backbone, load_backbone

VIT_TINY = SHARED / "weights/vit-tiny-patch16-224"
WEIGHTS = {"vit_tiny": "published", "vits14": "random"}


def backbone_names(small: bool) -> list[str]:
    """ViT-S/14, and ViT-Tiny where it is; the small run is the same everywhere."""
    return ["vits14"] if small or not VIT_TINY.is_dir() else list(WEIGHTS)


def random_vit_small(folder: Path) -> Path:
    """DINOv2 ViT-S/14 as the paper has it, random weights: the speed is that of the real one."""
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(folder)
    return folder


def backbone(name: str, folder: Path, device: str, dtype: str = "float32") -> Backbone:
    path = VIT_TINY if name == "vit_tiny" else random_vit_small(folder / "vits14")
    return load_backbone(str(path), resolution=448, device=device, dtype=dtype)
