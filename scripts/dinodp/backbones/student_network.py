"""The student: a small convolutional network that predicts a teacher's unit patch embeddings at its patch grid.

A stem of two strides, then blocks at the patch grid as in ConvNeXt. Each block also sees the mean of the whole image,
in place of attention, and a learnt map of places is added, as position embeddings are.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

CELL = 8  # pixels of a patch's side that the student sees: the image is resampled to it
PLACES = 14  # side of the map of places, which is resized to the patch grid
KERNEL = 5  # patches that a block sees along a side
EXPANSION = 2  # inner channels of a block over its outer ones


class Block(nn.Module):
    """Depthwise convolution, the image's mean, two pointwise layers; added to what came in [B, width, row, col]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = EXPANSION * width
        self.depthwise = nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.up, self.down = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)
        self.context = nn.Linear(width, inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        y = self.norm(self.depthwise(x))
        hidden = functional.relu(self.up(y) + self.context(x.mean((2, 3)))[:, :, None, None])
        added: torch.Tensor = self.down(hidden)
        return x + added


class StudentNetwork(nn.Module):
    """Standardised pixels [B, 3, H, W] to embeddings [B, H / patch, W / patch, dim] of about unit length."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, dim: int, patch_size: int, *, stem: int, width: int, blocks: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.stem = nn.Sequential(
            *(nn.Conv2d(3, stem, 4, stride=4, bias=False), nn.BatchNorm2d(stem), nn.ReLU()),
            *(nn.Conv2d(stem, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()),
            *(nn.Conv2d(stem, width, CELL // 4, stride=CELL // 4, bias=False), nn.BatchNorm2d(width)),
        )
        self.places = nn.Parameter(torch.zeros(1, width, PLACES, PLACES))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.head = nn.Conv2d(width, dim, 1)
        self.register_buffer("mean", torch.zeros(dim))  # of the teacher's embeddings
        self.register_buffer("scale", torch.ones(dim))  # their standard deviation

    def initialise(self, generator: torch.Generator) -> None:
        """Random weights; blocks begin as identities, and what is predicted as the teacher's mean."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for name, weight in self.named_parameters():
            if name.endswith(("head.weight", "down.weight")):
                nn.init.zeros_(weight)

    def standardised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embeddings [B, dim, row, col] minus their mean, over their deviation."""
        rows, columns = pixels.shape[2] // self.patch_size, pixels.shape[3] // self.patch_size
        seen = functional.interpolate(pixels, size=(rows * CELL, columns * CELL), mode="bilinear", align_corners=False)
        places = functional.interpolate(self.places, size=(rows, columns), mode="bilinear", align_corners=False)
        found: torch.Tensor = self.head(self.blocks(self.stem(seen) + places))
        return found

    def folded(self) -> "StudentNetwork":
        """The same function of `eval` mode in less time: each normalisation within the convolution before it."""
        for layers in self.modules():
            children = list(layers.named_children())
            for (name, first), (following, second) in pairwise(children):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    setattr(layers, name, fuse_conv_bn_eval(first, second))
                    setattr(layers, following, nn.Identity())
        return self

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The teacher's embeddings as the student predicts them."""
        return self.standardised(pixels).permute(0, 2, 3, 1) * self.scale + self.mean
