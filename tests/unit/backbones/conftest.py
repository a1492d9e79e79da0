"""Tiny backbones of every family."""

from pathlib import Path

import pytest
import torch
import transformers

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
FAMILIES = {
    "dinov2": ("Dinov2", SIZES),
    "dinov2_with_registers": ("Dinov2WithRegisters", {**SIZES, "num_register_tokens": 4}),
    "dinov3_vit": ("DINOv3ViT", {**SIZES, "num_register_tokens": 4, "intermediate_size": 48}),
    "vit": ("ViT", {**SIZES, "intermediate_size": 48}),
}


@pytest.fixture(scope="session", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny random model of each family, biases and norms included."""
    prefix, sizes = FAMILIES[request.param]
    torch.manual_seed(0)
    model = getattr(transformers, f"{prefix}Model")(getattr(transformers, f"{prefix}Config")(**sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    directory = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(directory)
    return directory
