"""The alignment analysis of a run's files: components of the test images, their table and their figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from dinodp import store
from dinodp.datasets.manifest import manifest_digest, require_unchanged_images, select
from dinodp.errors import InputError
from dinodp.evaluation.case_properties import FOREGROUND, grey, patch_values, slice_levels
from dinodp.evaluation.test_split import subjects_of
from dinodp.families import FAMILIES, written_options
from dinodp.families.features import IMAGES_PER_READ, Features
from dinodp.families.stages import open_split
from dinodp.images import read_lesion
from dinodp.jobs.logs import logger, progress
from dinodp.jobs.origin import name_of, require_made_from, write_table
from dinodp.report.alignment.figure import Example, draw_alignment
from dinodp.report.alignment.measures import PatchLabels, measure
from dinodp.report.figures.style import save_figure, sentence_figure
from dinodp.store import digest_of

MAX_IMAGES = 300  # of each kind
WITHOUT_NORMAL = "The alignment of components needs normal test images; the test split has none."
COLUMNS = [
    "dataset", "embedding", "model", "normalised", "seed", "components", "images", "measure", "value", "low", "high",
    "n_images", "n_subjects",
]  # fmt: skip


def align(
    *,
    manifest: pd.DataFrame,
    tokens: Path,
    models: Sequence[Path],
    names: Sequence[str],
    place: Mapping[str, str],
    grid: Sequence[int] | None,
    mask_rule: str,
    table: Path,
    png: Path,
    pdf: Path,
) -> None:
    """Write the measures of every model file (CSV), and the figure of the first seed of each model (PNG, PDF).

    Without normal test images there are none: the figure is the sentence that says so.

    ``names`` are those of the model files, one per file; ``place`` has ``dataset`` and ``embedding``.
    Raises InputError for a model that is no mixture, and for models or embeddings of another manifest.
    """
    test = select(manifest, "test")
    made_from = {"manifest": manifest_digest(manifest), "tokens": digest_of(tokens)}
    made_from |= {name_of(path): digest_of(path) for path in models}
    title = f"{place['dataset']}, {place['embedding']}"
    if not (test["label"] == "normal").any():
        write_table(table, pd.DataFrame(columns=COLUMNS).to_csv(index=False), __name__, made_from)
        save_figure(sentence_figure(f"{title}. Left out: {WITHOUT_NORMAL}"), png, pdf)
        return
    rows = _chosen(test)
    chosen = test.iloc[rows].reset_index(drop=True)
    require_unchanged_images(chosen)
    found: list[dict[str, Any]] = []
    examples: dict[str, Example] = {}
    images = None
    for name, path in zip(names, models, strict=True):
        components, config, means = _components(name, path, tokens, rows, manifest, grid)
        images = images or _images(chosen, components.shape[1:], mask_rule)
        data = PatchLabels(components=components, **images["labels"])
        normal, anomalous = np.flatnonzero(images["normal"]), np.flatnonzero(images["masked"])
        logger.info("Alignment of %s, seed %s.", name, config["seed"])
        shared = {**place, "model": name, "normalised": config["normalise"], "seed": config["seed"]}
        ill = data.subset(anomalous) if len(anomalous) else None
        for row in measure(data.subset(normal), ill):
            found.append({**shared, "components": len(means), **row})
        examples.setdefault(name, Example(components, means))
    frame = pd.DataFrame(found, columns=COLUMNS)
    write_table(table, frame.to_csv(index=False, float_format="%.6g"), __name__, made_from)
    save_figure(draw_alignment(title, chosen, data, examples, frame, mask_rule), png, pdf)


def _chosen(test: pd.DataFrame) -> list[int]:
    """At most MAX_IMAGES normal and anomalous test images, evenly spaced in the manifest's order."""
    rows: list[int] = []
    for label in ("normal", "anomalous"):
        known = np.flatnonzero((test["label"] == label).to_numpy())
        places = np.linspace(0, len(known) - 1, min(len(known), MAX_IMAGES)).round().astype(int)
        rows += known[places].tolist()
    return sorted(rows)


def _components(
    name: str, path: Path, tokens: Path, rows: Sequence[int], manifest: pd.DataFrame, grid: Sequence[int] | None
) -> tuple[npt.NDArray[np.int64], dict[str, Any], npt.NDArray[np.float32]]:
    """Active component of each patch [image, row, col], the model's options, and the active means."""
    config, state, _ = store.read_state(path)
    inputs = store.read_inputs(path, "model")
    require_made_from(path, inputs, "manifest", manifest_digest(manifest), "this manifest")
    options = written_options(config)
    if not options.HAS_COMPONENTS:
        mixtures = [name for name, kind in FAMILIES.items() if kind.HAS_COMPONENTS]
        raise InputError(
            f"run.alignment_models: {name} is no mixture; choose models of {', '.join(mixtures)}."
        )
    reader = Features.load(options, state).of(open_split(tokens, options, grid, manifest, "test"))
    fitted: Any = options.load(state, reader, seed=config["seed"], device="cpu")
    mixture = fitted.mixture
    rank = torch.cumsum(mixture.active_, dim=0) - 1
    parts = []
    for first in progress(range(0, len(rows), IMAGES_PER_READ), "assign", unit="batch"):
        x = reader.read(rows[first : first + IMAGES_PER_READ])
        parts.append(rank[mixture.assign(x.flatten(0, 2))].reshape(x.shape[:3]).numpy())
    return np.concatenate(parts), config, mixture.means_[mixture.active_].numpy()


def _images(chosen: pd.DataFrame, grid: tuple[int, ...], mask_rule: str) -> dict[str, Any]:
    """Grey value and tissue outside lesions of the patches, subject and level of the images; which are normal,
    and which of the others have a mask, without which what lies outside of lesions is not known."""
    intensity, tissue = [], []
    for row in chosen.itertuples():
        image = grey(str(row.image))
        values = patch_values(image, grid)
        inside = patch_values((image > FOREGROUND).astype(float), grid) > 0.5
        if row.mask:
            inside &= patch_values(read_lesion(str(row.mask), mask_rule).astype(float), grid) == 0
        intensity.append(values)
        tissue.append(inside)
    subjects = np.unique(subjects_of(chosen), return_inverse=True)[1].astype(np.int64)
    labels = {
        "intensity": np.stack(intensity),
        "tissue": np.stack(tissue),
        "subjects": subjects,
        "levels": slice_levels(chosen),
    }
    is_normal, has_mask = (chosen["label"] == "normal").to_numpy(), (chosen["mask"] != "").to_numpy()
    return {"labels": labels, "normal": is_normal, "masked": ~is_normal & has_mask}
