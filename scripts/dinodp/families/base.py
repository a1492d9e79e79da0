"""What a family of models is: the options of a catalog entry, which can be fitted and loaded. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from pydantic import field_validator

from dinodp.errors import InputError
from dinodp.options.base import Options, option
from dinodp.options.choices import Background, Position, Resampling

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.families.soundness import Layout
    from dinodp.jobs.checkpoints import Checkpoint
    from dinodp.store import Maps

IMAGES_PER_SHARD = 64  # a shard holds whole blocks of as many images; every number of images per read divides it
JOB_MIB = 6000  # what a job that fits or scores asks for, without what it holds of the embeddings


class EmbeddingSource(Protocol):
    """Images of embeddings, read a few at a time."""

    n_images: int

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """Return float32 [len(indices), row, col, dim]."""


class Source(EmbeddingSource, Protocol):
    """Embeddings of the images of a split as a model sees them."""

    n_patches: int  # per image; where images differ, their mean
    dim: int

    def count(self, images: Sequence[int]) -> int:
        """Number of embeddings of these images."""


class MaskedSource(Source, Protocol):
    """Embeddings of which it is known what they show."""

    def foreground(self, indices: Sequence[int]) -> torch.Tensor:
        """Bool [len(indices), row, col], in the shape of what `read` gives: which patches are not background."""


class FittedModel(Protocol):
    """A model that scores patches."""

    names: Sequence[str]
    # may also have ``made_from``: digests of further inputs by role, complete once all images are scored

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Patch scores {score: float32 [B, row, col]} of embeddings [B, row, col, D] of images with manifest ``rows``.

        Higher is more anomalous.
        """


class PlacedModel(FittedModel, Protocol):
    """A model that compares places: it is told which patches are foreground, and may have image scores of its own."""

    is_placed: bool = True

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame, shown: torch.Tensor | None = None) -> Maps:
        """As of every model; ``shown``: bool [B, row, col], None where all are foreground."""
        raise NotImplementedError

    def image_scores(self, tokens: torch.Tensor, maps: Maps, shown: torch.Tensor | None = None) -> Maps:
        """Scores {score: float32 [B]} in place of the run's `image_score`; none where it has no rule of its own."""
        return {}


@dataclass(frozen=True)
class FitTask:
    """Normal images to fit on and to choose by, the one random generator, where to compute, where to note progress.

    There may be no ``valid`` image for a family that `HOLDS_OUT`.

    ``self_contained``: the state must hold all that loading needs, for there will be no training split beside it.
    """

    train: Source
    valid: Source
    generator: torch.Generator
    device: str
    checkpoint: Checkpoint | None = None
    self_contained: bool = False


class Fitted(NamedTuple):
    """``state``: arrays that the model file holds; ``history``: arrays over the epochs; number of active components.

    ``size_mib`` is the size of the model in memory: that of the state unless it says otherwise. ``vectors``: how many
    embeddings it remembers, where it remembers any.
    """

    state: Mapping[str, Any]
    history: Mapping[str, Any]
    active_components: int | None
    size_mib: float | None = None
    vectors: int | None = None

    def cost(self) -> dict[str, float | None]:
        """What the cost table says of the model."""
        stored = sum(np.asarray(value).nbytes for value in self.state.values()) / 2**20
        size = stored if self.size_mib is None else self.size_mib
        return {"model_mib": float(size), "active_components": self.active_components, "vectors": self.vectors}


class FeatureOptions(Options):
    """What a model sees of the embeddings."""

    normalise: bool = option(True, "Scale every embedding to unit length first.")
    resample: Resampling = option(
        "after_normalisation",
        "When embeddings are resampled to the embedding's `grid`; before: they are exactly of unit length.",
    )
    pca_dims: int | None = option(
        None, "Project embeddings on this many principal axes (about the origin) of the training split.", ge=1
    )
    position: Position | None = option(
        None, "Append a sinusoidal code of the patch's place to its embedding, or add it."
    )
    background: Background = option(
        "keep",
        "Patches whose pixels are all black are fitted and scored like others, or left out of the fit, calibration "
        "included, and scored just below the lowest other patch of their image.",
    )
    position_weight: float = option(0.5, "Length of the code of the place; embeddings of unit length have 1.", ge=0)


class ModelOptions(FeatureOptions):
    """Keys of every model.

    A subclass with a default ``family`` is a family of that name. It has its options as fields, ``fit`` and ``load``,
    and says of itself what the workflow must know.
    """

    SCORES: ClassVar[tuple[str, ...]] = ()  # that it has
    PAPER: ClassVar[Mapping[str, object] | None] = None  # the paper's values that are not the defaults; None: not its
    ANY_VALUE: ClassVar[frozenset[str]] = frozenset({"family", "scores", "position_weight"})  # the paper's in any case
    SHARES_FIT: ClassVar[bool] = False  # several processes can share one fit
    HAS_COMPONENTS: ClassVar[bool] = False  # that alignment compares with anatomy
    SEARCHES_TRAIN: ClassVar[bool] = False  # scoring searches the training split, which is worth several jobs
    HOLDS_OUT: ClassVar[bool] = False  # without validation images a fit holds out training images, then fits all
    IS_PLACED: ClassVar[bool] = False  # it compares places: all images must have one size
    IS_CONTROL: ClassVar[bool] = False  # a bound of every metric, no model: without unit length or published values
    FOR_OWN_SCANS: ClassVar[bool] = True  # `dinodp fit` can fit it

    family: str = option(..., "Which kind of model (docs/method.md, variants).")
    scores: tuple[str, ...] = option(
        (), "Patch scores to compute; the first is shown in the figures; absent: all it has.", validate_default=True
    )

    @field_validator("scores")
    @classmethod
    def _has_scores(cls, scores: tuple[str, ...]) -> tuple[str, ...]:
        for name in scores:
            if name not in cls.SCORES:
                family = cls.model_fields["family"].default
                raise ValueError(f"the family {family} has no score {name!r}; choose one of {', '.join(cls.SCORES)}")
        return scores or cls.SCORES

    @classmethod
    def is_complete(cls) -> bool:
        """Whether it is a family, not what several of them share."""
        return not cls.model_fields["family"].is_required()

    @classmethod
    def whose(cls) -> str:
        """The family."""
        return f" for the family {cls.model_fields['family'].default!r}"

    def fit(self, task: FitTask) -> Fitted:
        """The state that is written to the model file, the history, and the number of active components."""
        raise NotImplementedError

    def go_on(self, state: Mapping[str, Any], task: FitTask, n_before: int) -> Fitted:
        """A self-contained fit on ``n_before`` images, continued with those of the task; each image counts alike.

        Raises InputError for a family, or options, that cannot.
        """
        raise InputError(
            f"A fit of the family {self.family} cannot go on with new scans: fit again with all of them (dpmm, "
            "gaussian_mixture and memory_bank can go on)."
        )

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> FittedModel:
        """The model of a model file; a memory bank reads its embeddings from ``train``."""
        raise NotImplementedError

    def layout(self, dim: int) -> Layout | None:
        """What the state of a self-contained fit on embeddings of ``dim`` numbers may hold; None: not known."""
        return None

    def places(self) -> list[str]:
        """Files and folders of the user that its scores are made from: a change of them makes the scores anew."""
        return []

    def fit_options(self) -> dict[str, Any]:
        """The keys, as plain values, that a fit depends on: not those of scoring."""
        return {key: value for key, value in self.decisive().items() if key != "scores"}

    @property
    def is_random(self) -> bool:
        """Whether the model depends on the seed."""
        return True

    @property
    def is_variant(self) -> bool:
        """Whether it is another than the paper's model of this family; of a family that the paper has not, never."""
        if self.PAPER is None:
            return False
        fields = {name: field.default for name, field in type(self).model_fields.items() if name not in self.ANY_VALUE}
        return any(getattr(self, name) != self.PAPER.get(name, default) for name, default in fields.items())

    def labels(self) -> dict[str, Any]:
        """What the metrics of the model are labelled with: its options, unit length or not, the paper's or not."""
        normalised = "" if self.IS_CONTROL else "yes" if self.normalise else "no"
        return {"options": self.decisive(), "normalised": normalised, "variant": self.is_variant}

    def for_own_scans(self) -> dict[str, Any]:
        """Options that a model file of own scans needs, which holds all that loading needs."""
        return {}

    def fitting_mib(self, train_mib: float) -> float:
        """Memory that a process of the fit asks for, with ``train_mib`` of training embeddings (float16) on disk."""
        return JOB_MIB

    def scoring_mib(self, train_mib: float) -> float:
        """Memory that scoring asks for, as `fitting_mib`."""
        return JOB_MIB
