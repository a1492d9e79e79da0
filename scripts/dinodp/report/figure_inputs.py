"""Gather from the run's files what the figures draw."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dinodp import store
from dinodp.datasets.manifest import read_manifest, require_unchanged_images, select
from dinodp.embeddings import EmbeddingReader
from dinodp.evaluation.collecting import ms_per_image
from dinodp.evaluation.test_split import require_one_job, require_scores_of
from dinodp.families import written_options
from dinodp.families.base import FeatureOptions, ModelOptions
from dinodp.families.features import Features
from dinodp.families.stages import open_split
from dinodp.jobs.costs import BYTES_PER_MIB
from dinodp.jobs.origin import read_result
from dinodp.report.figures.data import FigureData, ModelData


class FigureFiles(NamedTuple):
    """Of one model and seed: the fitted model, scores of the test and validation images, metrics and curves, and what
    fitting and scoring the test images cost."""

    fitted: Path
    test: Path
    valid: Path
    metrics: Path
    curves: Path
    fit_cost: Path
    score_cost: Path


def load_figure_data(
    *,
    title: str,
    names: Sequence[str],
    manifest_path: Path,
    tokens: Path,
    per_model: Sequence[FigureFiles],
    grid: Sequence[int] | None,
    mask_rule: str,
) -> FigureData:
    """Read manifest, scores, metrics, curves and fitted parameters of the models named.

    Raises InputError for files that are not as they were written, or not of one run.
    """
    manifest = read_manifest(manifest_path)
    for files in per_model:
        _require_one_fit(manifest, files)
    require_unchanged_images(select(manifest, "test"))
    valid = select(manifest, "valid")
    normal = (valid["label"] == "normal").to_numpy()
    models = [
        _load_model(name, files, tokens, manifest, normal, grid, mask_rule)
        for name, files in zip(names, per_model, strict=True)
    ]
    reader = _mixture_reader(per_model, tokens, grid, manifest)
    return FigureData(
        title=title,
        manifest=select(manifest, "test"),
        models=models,
        read_tokens=lambda rows: reader.read(rows).numpy(),
        mask_rule=mask_rule,
    )


def _require_one_fit(manifest: Any, files: FigureFiles) -> None:
    require_one_job(manifest, files.test, files.valid, files.metrics, files.curves)
    require_scores_of(files.fitted, files.test, files.valid)


def _mixture_reader(
    per_model: Sequence[FigureFiles], tokens: Path, grid: Sequence[int] | None, manifest: Any
) -> EmbeddingReader:
    """The embeddings of the test images in the space that the means of the first mixture lie in, if there is one."""
    for files in per_model:
        config, state, _ = store.read_state(files.fitted)
        if written_options(config).HAS_COMPONENTS:
            return _features_of(written_options(config), state, tokens, grid, manifest)
    return open_split(tokens, FeatureOptions(), grid, manifest, "test")


def _features_of(
    options: ModelOptions, state: dict[str, Any], tokens: Path, grid: Sequence[int] | None, manifest: Any
) -> EmbeddingReader:
    reader: EmbeddingReader = Features.load(options, state).of(open_split(tokens, options, grid, manifest, "test"))
    return reader


def _load_model(
    name: str,
    files: FigureFiles,
    tokens: Path,
    manifest: Any,
    normal: npt.NDArray[np.bool_],
    grid: Sequence[int] | None,
    mask_rule: str,
) -> ModelData:
    config, state, history = store.read_state(files.fitted)
    values, fit_cost = read_result(files.metrics)["metrics"], read_result(files.fit_cost)
    maps, valid_maps = (store.read_maps(path, mask_rule) for path in (files.test, files.valid))
    data: dict[str, Any] = {}
    options = written_options(config)
    reader = _features_of(options, state, tokens, grid, manifest)
    if options.HAS_COMPONENTS:
        fitted: Any = options.load(state, reader, seed=config["seed"], device="cpu")
        data = _mixture_data(fitted.mixture, reader, history)
    return ModelData(
        name=name,
        family=config["family"],
        scores={score: maps[score] for score in _scores(files.test)},
        normal_validation={score: values[normal] for score, values in valid_maps.items()},
        image_scores=store.read_image_scores(files.test),
        curves={score: store.read_curves(files.curves, score, mask_rule) for score in maps},
        metrics={score: values[score][mask_rule] for score in maps},
        thresholds={score: _thresholds(values[score][mask_rule]) for score in maps},
        vectors=_vectors(fit_cost, reader.dim),
        model_mib=fit_cost["model_mib"],
        scoring_ms=ms_per_image(read_result(files.score_cost)),
        **data,
    )


def _scores(path: Path) -> list[str]:
    """The scores of a scores file in the order in which the model names them, whatever the mask rule of a map."""
    with store.reading(path, "scores") as file:
        return list(dict.fromkeys(str(name).partition("/")[0] for name in store.config_of(file)["scores"]))


def _thresholds(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name.startswith("threshold_fpr")}


def _vectors(cost: Mapping[str, Any], dim: int) -> int | None:
    """Active components, remembered embeddings, or what fits into the model, float32; None of what has neither."""
    for name in ("active_components", "vectors"):
        if cost.get(name) is not None:
            return int(cost[name])
    return round(cost["model_mib"] * BYTES_PER_MIB / (4 * dim)) or None


def _mixture_data(mixture: Any, reader: EmbeddingReader, history: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Parameters of the active components, and which of them each patch belongs to."""
    likelihoods = history.get("validation_log_likelihood")
    active = mixture.active_
    rank = (torch.cumsum(active, dim=0) - 1).numpy()
    return {
        "history": history if "active_components" in history else None,
        "chosen_epoch": None if likelihoods is None else int(history["epoch"][np.argmax(likelihoods)]),
        "means": mixture.means_[active].numpy(),
        "covariances_diag": _diagonals(mixture)[active].numpy(),
        "weights": mixture.weights_[active].numpy(),
        "assignments": _assigner(mixture, reader, rank),
    }


def _diagonals(mixture: Any) -> torch.Tensor:
    covariances: torch.Tensor = mixture.covariances_
    if covariances.ndim == 3:
        return covariances.diagonal(dim1=1, dim2=2)
    return covariances if covariances.ndim == 2 else covariances[:, None].expand_as(mixture.means_)


def _assigner(
    mixture: Any, reader: EmbeddingReader, rank: npt.NDArray[np.int64]
) -> Callable[[Sequence[int]], npt.NDArray[np.int64]]:
    def assign(rows: Sequence[int]) -> npt.NDArray[np.int64]:
        tokens = reader.read(rows)
        nearest = mixture.assign(tokens.flatten(0, 2)).numpy()
        return np.asarray(rank[nearest].reshape(tokens.shape[:3]))

    return assign
