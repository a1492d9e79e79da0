"""Students: small networks that predict the embeddings of a large one, from the folder that a distillation wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from dinodp.backbones.base import Backbone, EmbeddingOptions, torch_device
from dinodp.backbones.student_file import DESCRIPTION, images_seen, read_description
from dinodp.errors import InputError
from dinodp.options.base import option
from dinodp.options.places import STUDENT

OF_A_RUN = re.compile(STUDENT.replace("{dataset}", r"(\w+)").replace("{embedding}", r"(\w+)"))


class StudentOptions(EmbeddingOptions):
    """A student (`dinodp distill`, rule `distill_backbone`): a small network that predicts a backbone's embeddings."""

    revision: None = option(None, "It has none.")
    layers: tuple[Literal[-1]] = option((-1,), "It has one: what it was trained to predict.")
    dtype: Literal["float32"] = option("float32", "Arithmetic.")
    other_data: bool = option(False, "Use it on another data set than it was trained on.")

    @classmethod
    def serves(cls, backbone: str) -> bool:
        """A folder with a student, or the place where the run's own will be."""
        return bool(OF_A_RUN.fullmatch(backbone)) or (Path(backbone).expanduser() / DESCRIPTION).is_file()

    def check(self, where: str) -> None:
        """A student that is not the run's own must be there, at this resolution."""
        if not OF_A_RUN.fullmatch(self.backbone):
            self._require_alike(where)

    def _require_alike(self, where: str) -> None:
        made = read_description(Path(self.backbone))
        for key in ("resolution", "square"):
            if made[key] != getattr(self, key):
                raise InputError(f"{where}: the student {self.backbone} was trained with {key}: {made[key]}; say so.")

    def check_data(self, digests: Iterable[str]) -> None:
        """Raise InputError for a student of other images, unless the entry says `other_data`."""
        made = read_description(Path(self.backbone))
        if not self.other_data and images_seen(made, digests) == 0:
            raise InputError(
                f"The student {self.backbone} was trained on other images ({made['data']['name']}) than those of this "
                "data set: distil one from these, or say other_data: true for its embedding."
            )

    def trained_on(self) -> tuple[str, str] | None:
        """Data set and embedding that a student of the run is made from."""
        found = OF_A_RUN.fullmatch(self.backbone)
        return None if found is None else (found[1], found[2])

    def load(self, device: str) -> Backbone:
        """The student on a device. Raises InputError where it is damaged, or of another resolution."""
        from dinodp.backbones.student_backbone import StudentBackbone

        self._require_alike(f"The backbone {self.backbone}")
        return StudentBackbone(Path(self.backbone), torch_device(device))
