"""What figures draw: the test images and, per model, its scores, curves and fitted parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dinodp.datasets.boxes import boxes_of, pixels_in
from dinodp.datasets.manifest import BOXES, image_size
from dinodp.errors import InputError, NothingToShow
from dinodp.images import read_lesion

Array = npt.NDArray[Any]
Lesions = tuple[npt.NDArray[np.bool_], Sequence[tuple[slice, ...]] | None]  # pixels [H, W]; of each, where boxes


@dataclass(frozen=True)
class ModelData:
    """One fitted model.

    ``scores`` (in the order of the catalog) and ``normal_validation``: {score: [image, row, col]}; ``image_scores``:
    {score: [image]}; ``curves``: {score: {fpr, tpr, recall, precision}}; ``metrics``: {score: {metric: value}};
    ``thresholds``: {score: {name: value}}; ``vectors``: remembered embeddings or active components; ``scoring_ms``: per
    image, without the backbone; ``model_mib``: in memory.
    Mixtures also have ``history`` ({epoch, active_components, and log-likelihoods or a bound}: [epoch]), where an epoch
    was chosen ``chosen_epoch``, and of the K active components ``means`` [K, D], ``covariances_diag`` [K, D],
    ``weights`` [K] and ``assignments`` (test rows -> component index [n, row, col]).
    """

    name: str
    family: str
    scores: dict[str, Array]
    normal_validation: dict[str, Array] = field(default_factory=dict)
    image_scores: dict[str, Array] = field(default_factory=dict)
    curves: dict[str, dict[str, Array]] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    thresholds: dict[str, dict[str, float]] = field(default_factory=dict)
    vectors: int | None = None
    scoring_ms: float | None = None
    model_mib: float | None = None
    history: dict[str, Array] | None = None
    chosen_epoch: int | None = None
    means: Array | None = None
    covariances_diag: Array | None = None
    weights: Array | None = None
    assignments: Callable[[Sequence[int]], Array] | None = None

    @property
    def primary_score(self) -> str:
        """The score that represents the model: its first."""
        if not self.scores:
            raise InputError(f"Model {self.name!r} has no scores to draw.")
        return next(iter(self.scores))


@dataclass(frozen=True)
class FigureData:
    """One data set and embedding.

    ``manifest``: the test rows (label, image path, mask path or ""); ``read_tokens``: test rows -> float32
    [n, row, col, D], as the first mixture sees them; ``mask_rule``: which values of the masks are anomalous.
    """

    title: str
    manifest: pd.DataFrame
    models: list[ModelData]
    read_tokens: Callable[[Sequence[int]], Array]
    mask_rule: str = "gt0"


def require_models(data: FigureData, figure: str) -> list[ModelData]:
    """All models, or an InputError when there is none."""
    if not data.models:
        raise InputError(f"Figure {figure!r} needs at least one model, and the run names none for its figures.")
    return data.models


def require_mixture(data: FigureData, figure: str, *fields: str) -> ModelData:
    """The first mixture that has all ``fields``."""
    for model in data.models:
        if all(getattr(model, name) is not None for name in fields):
            return model
    names = ", ".join(model.name for model in data.models) or "none"
    raise NothingToShow(
        f"Figure {figure!r} needs a mixture with {', '.join(fields)}; the models given are: {names}."
    )


def lesions_of(row: "pd.Series[Any]", mask_rule: str) -> Lesions:
    """The lesions of a row of the manifest, by its mask or its boxes; none without both."""
    if isinstance(row["mask"], str) and row["mask"]:
        return read_lesion(row["mask"], mask_rule), None
    boxes = boxes_of(row.get(BOXES, ""))
    return pixels_in(boxes, image_size(Path(row["image"])), row["image"]), [box.pixels() for box in boxes]
