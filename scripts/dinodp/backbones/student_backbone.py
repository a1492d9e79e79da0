"""A student as a backbone, and its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from dinodp.backbones.base import exact_convolutions, on_device, patch_grid
from dinodp.backbones.preprocessing import preprocess
from dinodp.backbones.student_file import DESCRIPTION, FORMAT, WEIGHTS, digest_of, read_description
from dinodp.backbones.student_network import StudentNetwork
from dinodp.errors import InputError
from dinodp.jobs.files import replaced_file, write_json


class StudentBackbone:
    """A student in `eval` mode, with the patch grid and the preparation of its teacher."""

    layers: tuple[int, ...] = (-1,)
    revision = "local"

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.description = read_description(folder)
        if digest_of(folder / WEIGHTS) != self.description["weights_sha256"]:
            raise InputError(f"{folder / WEIGHTS} is not what {DESCRIPTION} says: distil the student again.")
        network = StudentNetwork(**self.description["network"])
        try:
            network.load_state_dict(load_file(folder / WEIGHTS))
        except (SafetensorError, RuntimeError) as error:
            raise InputError(f"{folder / WEIGHTS} does not fit {DESCRIPTION}: distil the student again.") from error
        self.name, self.device = str(folder), device
        self.patch_size, self.dim = network.patch_size, len(network.mean)
        self.resolution, self.square = int(self.description["resolution"]), bool(self.description["square"])
        self.mean, self.std = tuple(self.description["mean"]), tuple(self.description["std"])
        folded = network.eval().requires_grad_(False).folded()
        self._network = folded.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def prepare(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """As the teacher does: uint8 [H, W, 3] to float32 [3, H', W'], sides multiples of the patch size."""
        return preprocess(image, self.resolution, self.patch_size, self.mean, self.std, square=self.square)

    @torch.inference_mode()
    def embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embed float [B, 3, H, W] to float32 [B, rows, columns, dim]: the teacher's unit embeddings, predicted.

        Raises InputError when H or W is no multiple of the patch size.
        """
        patch_grid(pixel_values, self.patch_size)
        pixels = on_device(pixel_values, self.device).float()
        with exact_convolutions():
            found: torch.Tensor = self._network(pixels.contiguous(memory_format=torch.channels_last))
        return found

    def provenance(self) -> dict[str, str]:
        """The digest of its weights, and whose embeddings it predicts."""
        teacher = self.description["teacher"]
        return {
            "backbone": self.name,
            "revision": self.revision,
            "weights_sha256": self.description["weights_sha256"],
            "teacher": teacher["backbone"],
            "teacher_weights_sha256": teacher.get("weights_sha256", ""),
            "layers": "-1",
            "resolution": str(self.resolution),
            "square": str(self.square).lower(),
            "patch_size": str(self.patch_size),
            "dtype": "float32",
        }


def write_student(folder: Path, network: StudentNetwork, description: Mapping[str, Any]) -> None:
    """Write weights, then what they are: a folder without the latter holds no student."""
    with replaced_file(folder / WEIGHTS) as temporary:
        state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        temporary.write_bytes(save(state))
    write_json(folder / DESCRIPTION, {**description, "format": FORMAT, "weights_sha256": digest_of(folder / WEIGHTS)})
