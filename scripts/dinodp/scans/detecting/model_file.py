"""The fitted model file: HDF5 that carries all that prediction needs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinodp import store
from dinodp.backbones import Backbone, load_backbone
from dinodp.embeddings.embedder import Embedder
from dinodp.errors import InputError, one_line, told
from dinodp.jobs.strangers import require_plain
from dinodp.scans.detecting.calibration import Calibration
from dinodp.scans.detecting.origin import Origin
from dinodp.scans.detecting.preparation import Preparation
from dinodp.scans.detecting.scoring import Scorer
from dinodp.scans.detecting.settings import PINNED_REVISIONS
from dinodp.scans.naming import require_name

KIND = "detector"


@dataclass(frozen=True)
class FittedDetector:
    """A scorer with its calibration; ``origin`` counts the scans and slices it was fitted on; ``state`` and ``history``
    are those of the model's family."""

    scorer: Scorer
    calibration: Calibration
    origin: Origin
    state: Mapping[str, Any]
    history: Mapping[str, Any]

    def config(self) -> dict[str, Any]:
        """What the file says of itself, as plain values."""
        return {
            **self.scorer.preparation.to_json(),
            "backbone": self.scorer.embedder.backbone.provenance(),
            "calibration": self.calibration.to_json(),
            "origin": self.origin.to_json(),
        }


def save_detector(path: Path, detector: FittedDetector) -> None:
    """Write a detector under a temporary name, then rename it. Raises InputError where nothing can be written."""
    require_name(path)
    with told(f"The model cannot be written to {path}", RuntimeError, place=path):  # HDF5 raises that on a full disk
        store.write_state(
            path, detector.config(), detector.state, detector.history, KIND, detector.origin.made_from
        )


def load_detector(
    path: Path, *, backbone: str | None = None, device: str = "auto", batch_size: int | None = None
) -> FittedDetector:
    """Load a fitted model; ``backbone`` says where its weights are now, if they have moved.

    The network is asked only for a ``backbone`` that the caller names, and for the default one of this project: a name
    in a file of a stranger must be in the hub's cache already. Raises InputError when the file is missing, damaged or
    something else, or the backbone is not the one of the fit.
    """
    require_plain(path)
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
        download=backbone is not None or PINNED_REVISIONS.get(settings.backbone, "") == revision,
    )
    _require_same_weights(loaded, expected, path)
    embedder = Embedder(loaded, batch_size)
    with _understood(path, told=()):  # what is wrong with a state is no mistake of the user's
        scorer = Scorer.of(preparation, embedder, state)
        calibration, origin = Calibration.from_json(config["calibration"]), Origin.from_json(config["origin"])
        return FittedDetector(scorer, calibration, origin, state, history)


@contextmanager
def _understood(path: Path, told: tuple[type[Exception], ...] = (InputError,)) -> Iterator[None]:
    """Whatever is missing or unknown in a file becomes one sentence; what is ``told`` in one already stays."""
    try:
        yield
    except told:
        raise
    except Exception as error:  # whatever values of a wrong type may lead to
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        raise InputError(
            f"{path} is damaged, or another version of dinodp wrote it ({kind}{one_line(error)}): fit again."
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
