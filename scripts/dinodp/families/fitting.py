"""Fit a mixture over the images of a split, epoch by epoch, and keep the best one by validation likelihood."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dinodp.errors import InputError
from dinodp.families.base import EmbeddingSource
from dinodp.jobs.checkpoints import Checkpoint
from dinodp.jobs.logs import logger, progress
from dinodp.jobs.prefetch import prefetched
from dinodp.jobs.processes import is_first, own_part, sum_over
from dinodp.models.online_mixture import OnlineMixture
from dinodp.options.choices import Init


@dataclass
class FitHistory:
    """One entry per epoch: mean log-likelihoods, active components, concentration."""

    epoch: list[int] = field(default_factory=list)
    train_log_likelihood: list[float] = field(default_factory=list)
    validation_log_likelihood: list[float] = field(default_factory=list)
    active_components: list[int] = field(default_factory=list)
    concentration: list[float] = field(default_factory=list)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The history as arrays [epoch]."""
        return {name: np.asarray(values) for name, values in vars(self).items()}

    def improves(self) -> bool:
        """Whether the last epoch has the best validation likelihood so far."""
        return len(self.epoch) == 1 or self.validation_log_likelihood[-1] > max(self.validation_log_likelihood[:-1])


def fit_mixture(
    mixture: OnlineMixture,
    train: EmbeddingSource,
    validation: EmbeddingSource,
    *,
    epochs: int,
    images_per_batch: int,
    generator: torch.Generator,
    init: Init,
    checkpoint: Checkpoint | None = None,
) -> FitHistory:
    """Fit ``mixture`` in place by online EM over shuffled mini-batches of images; the last one may be smaller.

    After each epoch the mean log-likelihood of the validation images decides which state is kept. An interrupted fit
    goes on from ``checkpoint``, where that is of the same fit, and ends with the same numbers. Where the mixture has a
    process group, each process calls this with the same arguments and takes its part of every mini-batch.
    Raises InputError for an empty split.
    """
    if not (train.n_images and validation.n_images):
        raise InputError("Fitting needs normal images in both the train and the valid split; one of them has none.")
    history, best = _resume(mixture, generator, checkpoint)
    sum_over(mixture.process_group, (0.0,))  # all processes have read the checkpoint: the first one may remove it
    if not history.epoch:
        _initialize(mixture, train, images_per_batch, generator, init)
    for epoch in progress(range(len(history.epoch) + 1, epochs + 1), "fit", unit="epoch"):
        likelihood = _run_epoch(mixture, train, images_per_batch, generator)
        _record(history, epoch, likelihood, mean_log_likelihood(mixture, validation, images_per_batch), mixture)
        if history.improves():
            best = mixture.state_dict()
        if checkpoint is not None and is_first(mixture.process_group):
            _save(checkpoint, mixture, best, history, generator)
    mixture.load_state(best)
    return history


def continue_mixture(
    mixture: OnlineMixture,
    train: EmbeddingSource,
    validation: EmbeddingSource,
    *,
    n_before: int,
    images_per_batch: int,
    generator: torch.Generator,
) -> FitHistory:
    """Go on with one pass over new images in random order, after a fit on ``n_before`` others.

    A batch of b images after n has the step b / (n + b), so that in the end each image has the same weight.
    """
    history, likelihoods, mixture.step_schedule = FitHistory(), [], "ema"
    order = torch.randperm(train.n_images, generator=generator)
    for images in order.split(images_per_batch):
        mixture.step_rate = len(images) / (n_before + len(images))
        n_before += len(images)
        mixture.partial_fit(train.read(images.tolist()).flatten(0, 2))
        likelihoods.append(mixture.batch_log_likelihood_)
    likelihood = mean_log_likelihood(mixture, validation, images_per_batch)
    _record(history, 1, float(np.mean(likelihoods)), likelihood, mixture)
    return history


def _initialize(
    mixture: OnlineMixture,
    train: EmbeddingSource,
    images_per_batch: int,
    generator: torch.Generator,
    init: Init,
) -> None:
    """Start from a random first batch; ``spread`` draws the means over the whole training set."""
    first = torch.randperm(train.n_images, generator=generator)[:images_per_batch].tolist()
    batch = train.read(sorted(first)).flatten(0, 2)
    candidates = spread_embeddings(train, mixture.n_components, generator) if init == "spread" else None
    mixture.initialize(batch, generator=generator, init=init, candidates=candidates)


def spread_embeddings(train: EmbeddingSource, n: int, generator: torch.Generator) -> torch.Tensor:
    """At least n embeddings: equally many from each of up to n images, drawn without replacement."""
    images = torch.randperm(train.n_images, generator=generator)[:n].tolist()
    per_image = -(-n // len(images))
    drawn = []
    for image in sorted(images):
        tokens = train.read([image]).flatten(0, 2)
        drawn.append(tokens[torch.randperm(len(tokens), generator=generator)[:per_image]])
    return torch.cat(drawn)


def _run_epoch(
    mixture: OnlineMixture, train: EmbeddingSource, images_per_batch: int, generator: torch.Generator
) -> float:
    """One pass over the images in random order; the mean of the batches' log-likelihoods before their steps."""
    order = torch.randperm(train.n_images, generator=generator)
    likelihoods = []
    for batch in _batches(train, order.split(images_per_batch), mixture):
        mixture.partial_fit(batch)
        likelihoods.append(mixture.batch_log_likelihood_)
    return float(np.mean(likelihoods))


def _batches(
    source: EmbeddingSource, batches: Iterable[torch.Tensor], mixture: OnlineMixture
) -> Iterator[torch.Tensor]:
    """Embeddings [n, D] of each batch of images (this process's part), on the mixture's device; the next are read while
    these are used."""
    none = torch.empty(0, mixture.means_.shape[1], device=mixture.device)
    parts = (own_part(images, mixture.process_group).tolist() for images in batches)
    return prefetched(source.read(part).flatten(0, 2).to(mixture.device) if part else none for part in parts)


def mean_log_likelihood(mixture: OnlineMixture, source: EmbeddingSource, images_per_batch: int) -> float:
    """Mean log-likelihood of all embeddings of a source, active components only."""
    total, count = 0.0, 0.0
    for batch in _batches(source, torch.arange(source.n_images).split(images_per_batch), mixture):
        scores = mixture.score_samples(batch) if len(batch) else batch.new_empty(0)
        total, count = total + float(scores.double().sum()), count + len(scores)
    total, count = sum_over(mixture.process_group, (total, count))
    return total / count


def _record(history: FitHistory, epoch: int, train: float, validation: float, mixture: OnlineMixture) -> None:
    history.epoch.append(epoch)
    history.train_log_likelihood.append(train)
    history.validation_log_likelihood.append(validation)
    history.active_components.append(int(mixture.active_.sum()))
    history.concentration.append(mixture.concentration_)
    logger.info(
        "epoch %d: log-likelihood %.2f (train), %.2f (valid), %d active components",
        epoch,
        train,
        validation,
        history.active_components[-1],
    )


def _save(
    checkpoint: Checkpoint,
    mixture: OnlineMixture,
    best: dict[str, Any],
    history: FitHistory,
    generator: torch.Generator,
) -> None:
    content = {
        "mixture": mixture.state_dict(),
        "best": best,
        "history": vars(history),
        "generator": generator.get_state(),
    }
    checkpoint.save(content)


def _resume(
    mixture: OnlineMixture, generator: torch.Generator, checkpoint: Checkpoint | None
) -> tuple[FitHistory, dict[str, Any]]:
    content = None if checkpoint is None else checkpoint.load()
    if content is None:
        return FitHistory(), {}
    mixture.load_state(content["mixture"])
    generator.set_state(content["generator"])
    logger.info("Resume the fit after epoch %d.", content["history"]["epoch"][-1])
    return FitHistory(**content["history"]), content["best"]
