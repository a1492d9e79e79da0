"""The fitted model file: HDF5 that carries all that prediction needs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dinodp import store
from dinodp.backbones import Backbone, load_backbone
from dinodp.embeddings.embedder import Embedder
from dinodp.errors import InputError, one_line
from dinodp.models import DirichletProcessMixture, MemoryBank
from dinodp.scans.detecting.calibration import Calibration
from dinodp.scans.detecting.preparation import Preparation
from dinodp.scans.detecting.scoring import Scorer
from dinodp.scans.detecting.settings import Settings
from dinodp.scans.naming import require_name

KIND = "detector"
MIXTURE_STATE = ("stick_fractions", "means", "covariances", "concentration")


@dataclass(frozen=True)
class FittedDetector:
    """A scorer with its calibration; ``origin`` counts the scans and slices it was fitted on."""

    scorer: Scorer
    calibration: Calibration
    origin: Mapping[str, Any]
    history: Mapping[str, Any]

    def config(self) -> dict[str, Any]:
        """What the file says of itself, as plain values."""
        return {
            **self.scorer.preparation.to_json(),
            "backbone": self.scorer.embedder.backbone.provenance(),
            "calibration": self.calibration.to_json(),
            "origin": dict(self.origin),
        }


def save_detector(path: Path, detector: FittedDetector) -> None:
    """Write a detector under a temporary name, then rename it. Raises InputError where nothing can be written."""
    require_name(path)
    model = detector.scorer.model
    if isinstance(model, MemoryBank):
        state: dict[str, Any] = {"embeddings": model.embeddings_.half().cpu().numpy()}
    else:
        state = {name: np.asarray(model.state_dict()[name]) for name in MIXTURE_STATE}
    try:
        store.write_state(path, detector.config(), state, detector.history, KIND)
    except OSError as error:
        raise InputError(f"The model cannot be written to {path} ({error}).") from error


def load_detector(
    path: Path, *, backbone: str | None = None, device: str = "auto", batch_size: int | None = None
) -> FittedDetector:
    """Load a fitted model; ``backbone`` says where its weights are now, if they have moved.

    Raises InputError when the file is missing or something else, or the backbone is not the one of the fit.
    """
    with _understood(path):
        config, state, history = store.read_state(path, KIND)
        preparation, expected = Preparation.from_json(config), config["backbone"]
        revision = _revision(expected)
    settings = preparation.settings
    loaded = load_backbone(
        backbone or settings.backbone,
        revision=None if backbone and Path(backbone).expanduser().is_dir() else revision,
        resolution=settings.resolution,
        layers=settings.layers,
        device=device,
    )
    _require_same_weights(loaded, expected, path)
    embedder = Embedder(loaded, batch_size)
    with _understood(path):
        model = _model(settings, state, str(getattr(loaded, "device", "cpu")))
        scorer = Scorer(preparation, embedder, model)
        return FittedDetector(scorer, Calibration.from_json(config["calibration"]), config["origin"], history)


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Whatever is missing or unknown in a file becomes one sentence."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged, or another version of dinodp wrote it ({type(error).__name__}: {one_line(error)}): "
            "fit again."
        ) from error


def _revision(provenance: Mapping[str, str]) -> str | None:
    """The commit of the fit for a backbone from the hub."""
    own = provenance["revision"] == "local" or provenance["backbone"] == "classical"
    return None if own else provenance["revision"]


def _require_same_weights(loaded: Backbone, expected: Mapping[str, str], path: Path) -> None:
    found = loaded.provenance()
    for key in ("weights_sha256", "revision" if "weights_sha256" not in expected else "weights_sha256"):
        if found.get(key) != expected.get(key):
            raise InputError(
                f"{path} was fitted with {expected['backbone']} ({key} {str(expected.get(key))[:12]}), but "
                f"{loaded.name} has {str(found.get(key))[:12]}: give the same weights with --backbone."
            )


def _model(settings: Settings, state: Mapping[str, Any], device: str) -> DirichletProcessMixture | MemoryBank:
    if settings.method == "memory_bank":
        return MemoryBank(device).fit(torch.from_numpy(state["embeddings"]).float())
    mixture = DirichletProcessMixture(n_components=len(state["means"]), device=device)
    return mixture.load_state(state)
