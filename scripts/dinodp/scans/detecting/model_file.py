"""The fitted model file: HDF5 that carries all that prediction needs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
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
from dinodp.scans.detecting.weights import IncludedWeights, include_weights
from dinodp.scans.naming import require_name, weights_of

KIND = "detector"


@dataclass(frozen=True)
class FittedDetector:
    """A scorer with its calibration; ``origin`` counts the scans and slices it was fitted on; ``state`` and ``history``
    are those of the model's family; ``weights`` lie beside its file, if they do."""

    scorer: Scorer
    calibration: Calibration
    origin: Origin
    state: Mapping[str, Any]
    history: Mapping[str, Any]
    weights: IncludedWeights | None = None

    def config(self) -> dict[str, Any]:
        """What the file says of itself, as plain values."""
        return {
            **self.scorer.preparation.to_json(),
            "backbone": self.scorer.embedder.backbone.provenance(),
            "calibration": self.calibration.to_json(),
            "origin": self.origin.to_json(),
            "weights": None if self.weights is None else asdict(self.weights),
        }


def save_detector(path: Path, detector: FittedDetector) -> None:
    """Write a detector under a temporary name, then rename it. Raises InputError where nothing can be written."""
    require_name(path)
    if not weights_of(path).is_dir():  # a model saved elsewhere leaves its weights behind
        detector = replace(detector, weights=None)
    with told(f"The model cannot be written to {path}", RuntimeError, place=path):  # HDF5 raises that on a full disk
        store.write_state(
            path, detector.config(), detector.state, detector.history, KIND, detector.origin.made_from
        )


def with_weights(path: Path, detector: FittedDetector, licence: str) -> FittedDetector:
    """The detector with the weights of its backbone copied beside ``path``. Raises InputError where they cannot be."""
    from dinodp.backbones.vision_transformer import locate  # transformers takes seconds to import

    settings = detector.scorer.settings
    directory, _ = locate(settings.backbone, settings.pinned_revision, download=False)
    with told(f"The weights cannot be copied beside {path}", place=path):
        return replace(detector, weights=include_weights(directory, path, licence))


def copied_weights(detector: FittedDetector, source: Path, target: Path) -> FittedDetector:
    """The detector with the weights that lie beside the model ``source`` copied beside ``target``."""
    assert detector.weights is not None
    with told(f"The weights cannot be copied beside {target}", place=target):
        included = include_weights(detector.weights.require(source), target, detector.weights.licence)
    return replace(detector, weights=included)


def load_detector(
    path: Path, *, backbone: str | None = None, device: str = "auto", batch_size: int | None = None
) -> FittedDetector:
    """Load a fitted model; ``backbone`` says where its weights are now, if they have moved.

    The network is asked only for a ``backbone`` that the caller names, and for the default one of this project: a name
    in a file of a stranger must be in the hub's cache already. Weights that are included are taken from beside the
    file. Raises InputError when the file is missing, damaged or
    something else, or the backbone is not the one of the fit.
    """
    require_plain(path, store.require_whole)
    with _understood(path):
        config, state, history = store.read_state(path, KIND)
        preparation, expected = Preparation.from_json(config), config["backbone"]
        revision, weights = _revision(expected), IncludedWeights.from_json(config["weights"])
    settings = preparation.settings
    place = backbone or (str(weights.require(path)) if weights else settings.backbone)
    loaded = load_backbone(
        place,
        revision=None if place != settings.backbone and Path(place).expanduser().is_dir() else revision,
        resolution=settings.resolution,
        layers=settings.layers,
        device=device,
        download=backbone is not None or PINNED_REVISIONS.get(settings.backbone, "") == revision,
    )
    _require_same_weights(loaded, expected, path)
    if weights and backbone is None:  # they are those, wherever they lie now
        loaded.name, loaded.revision = expected["backbone"], expected["revision"]
    embedder = Embedder(loaded, batch_size)
    with _understood(path, told=()):  # what is wrong with a state is no mistake of the user's
        scorer = Scorer.of(preparation, embedder, state)
        calibration, origin = Calibration.from_json(config["calibration"]), Origin.from_json(config["origin"])
        return FittedDetector(scorer, calibration, origin, state, history, weights)


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
