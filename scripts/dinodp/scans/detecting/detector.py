"""The detector with the conventions of scikit-learn."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import NotFittedError

from dinodp.errors import InputError
from dinodp.jobs.logs import logger
from dinodp.scans.detecting.fitting import UnreadScan, fit_detector
from dinodp.scans.detecting.model_file import FittedDetector, load_detector, save_detector
from dinodp.scans.detecting.notes import notes_on
from dinodp.scans.detecting.scoring import ScoredScan
from dinodp.scans.detecting.settings import Settings
from dinodp.scans.reading.folder import ReadingOptions, axes_of, find_scans, read_scan
from dinodp.scans.reading.memory import AnyScan, axes_in_memory, is_in_memory, read_memory
from dinodp.scans.reading.scan import Background
from dinodp.scans.writing.card import write_card

DEFAULT = Settings()
MODEL_FILE = "model_file"  # in a pickle
Scans = AnyScan | Iterable[AnyScan]


class NotFitted(InputError, NotFittedError):  # type: ignore[misc]
    """What scikit-learn raises before a fit, in one sentence."""


class AnomalyDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Learns what healthy scans look like; scores new ones by how far they lie from that. A score is no diagnosis.

    Scans are paths (files, folders of DICOM series, or one folder of scans), images uint8 [H, W] or [H, W, 3], images
    of nibabel or SimpleITK, or pairs (voxels [i, j, k], affine [4, 4] to mm: right, front, top). As in
    scikit-learn, `score_samples` is higher for what looks healthier, and `predict` gives 1 (inlier) or -1 (outlier).

    - ``backbone``: a directory in Hugging Face format, a hub name (with ``revision``), or ``classical``; ``layers``
      and ``resolution`` as in `dinodp.backbones.load_backbone`.
    - ``method``: a family of models (``dpmm``, ``memory_bank``, ``k_means``, ...), a model of ``config/catalog.yaml``,
      or a family with options, ``{"family": "dpmm", "components": 100}``; ``score``: one of the family's.
    - ``held_out``: share of the subjects on which thresholds are calibrated; ``subject_pattern``: regular expression
      that names the subject within a scan's name, else every scan is a subject.
    - Volumes: ``axis`` of the slices, ``slice_step`` (every n-th is learnt from), ``min_foreground`` (share of the
      field of view below which a slice is left out), ``index`` (of the volume in 4D files), ``background`` (its value,
      ``auto`` or ``none``), ``window`` (values that become black and white, instead of each volume's percentiles).
    - ``false_positive_rate``: share of healthy scans that `predict` may call outliers.
    - ``seed`` of all random choices; ``device``; ``batch_size`` (None: found by itself).

    After `fit`: ``fitted_`` and ``offset_`` (the score below which a scan is an outlier).
    """

    def __init__(
        self,
        backbone: str = DEFAULT.backbone,
        *,
        revision: str | None = DEFAULT.revision,
        layers: Sequence[int] = DEFAULT.layers,
        resolution: int = DEFAULT.resolution,
        method: str | Mapping[str, Any] = DEFAULT.method,
        score: str | None = DEFAULT.score,
        held_out: float = DEFAULT.held_out,
        subject_pattern: str | None = DEFAULT.subject_pattern,
        slice_step: int = DEFAULT.slice_step,
        min_foreground: float = DEFAULT.min_foreground,
        axis: str = DEFAULT.axis,
        index: int | None = DEFAULT.index,
        background: Background = DEFAULT.background,
        window: tuple[float, float] | None = DEFAULT.window,
        false_positive_rate: float = DEFAULT.false_positive_rate,
        seed: int = DEFAULT.seed,
        device: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        self.backbone = backbone
        self.revision = revision
        self.layers = layers
        self.resolution = resolution
        self.method = method
        self.score = score
        self.held_out = held_out
        self.subject_pattern = subject_pattern
        self.slice_step = slice_step
        self.min_foreground = min_foreground
        self.axis = axis
        self.index = index
        self.background = background
        self.window = window
        self.false_positive_rate = false_positive_rate
        self.seed = seed
        self.device = device
        self.batch_size = batch_size

    def fit(self, X: Scans, y: Any = None) -> Self:
        """Fit on healthy scans; ``y`` is ignored. Raises InputError for scans or settings that cannot be used."""
        settings = self._settings()
        scans = [_unread(name, item, settings.reading()) for name, item in _named(X)]
        return self._take(fit_detector(scans, settings, self.device, self.batch_size))

    def score_samples(self, X: Scans) -> npt.NDArray[np.float64]:
        """Minus the anomaly score [n] of each scan: the lower, the more anomalous."""
        return np.array([-self.score_scan(item).score for _, item in _named(X)])

    def decision_function(self, X: Scans) -> npt.NDArray[np.float64]:
        """`score_samples` minus ``offset_`` [n]: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Scans) -> npt.NDArray[np.int64]:
        """1 for a scan that looks healthy, -1 for one that does not [n]."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def anomaly_map(self, scan: AnyScan, *, calibrated: bool = False) -> npt.NDArray[np.float32]:
        """Score of every voxel or pixel, float32 in the shape of the scan; where nothing was scored 0, or less than
        every score if one is not above 0. ``calibrated``: the share of held-out healthy voxels that score as high,
        above 0 to 1; where nothing was scored 1."""
        scored = self.score_scan(scan)
        geometry = scored.scan.geometry
        values = scored.tail_map(self._fitted().calibration.tail) if calibrated else scored.anomaly_map
        found: npt.NDArray[np.float32] = values[0] if geometry is None else geometry.from_stack(values)
        return found

    def score_scan(self, scan: AnyScan) -> ScoredScan:
        """Patch scores, anomaly map and scores of one scan. Raises InputError when it is not like the healthy ones."""
        fitted = self._fitted()
        name = Path(scan).name if isinstance(scan, str | Path) else "scan"
        preparation = fitted.scorer.preparation
        found = _unread(name, scan, preparation.settings.reading()).read(preparation.healthy.axes)
        if note := notes_on(found, fitted):
            logger.warning("%s: %s.", name, note)
        return fitted.scorer.score(found)

    def save(self, path: str | Path) -> None:
        """Write the fitted model (HDF5) and, beside it, its model card."""
        save_detector(Path(path), self._fitted())
        write_card(Path(path), self._fitted())

    @classmethod
    def load(
        cls, path: str | Path, *, backbone: str | None = None, device: str = "auto", batch_size: int | None = None
    ) -> "AnomalyDetector":
        """Read a fitted model; ``backbone`` says where its weights are now, if they have moved."""
        fitted = load_detector(Path(path), backbone=backbone, device=device, batch_size=batch_size)
        content = fitted.scorer.settings.to_json()
        return cls(**content, device=device, batch_size=batch_size)._take(fitted)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: a fitted model is its file; the backbone's weights stay where they are."""
        state: dict[str, Any] = dict(super().__getstate__())
        fitted = state.pop("fitted_", None)
        if fitted is not None:
            with tempfile.TemporaryDirectory(prefix="dinodp-") as folder:
                save_detector(Path(folder, "model.h5"), fitted)
                state[MODEL_FILE] = Path(folder, "model.h5").read_bytes()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        content = dict(state)
        model = content.pop(MODEL_FILE, None)
        super().__setstate__(content)
        if model is not None:
            with tempfile.TemporaryDirectory(prefix="dinodp-") as folder:
                Path(folder, "model.h5").write_bytes(model)
                self.fitted_ = load_detector(Path(folder, "model.h5"), device=self.device, batch_size=self.batch_size)

    def _settings(self) -> Settings:
        chosen = {field.name: getattr(self, field.name) for field in fields(Settings)}
        return Settings(**{**chosen, "layers": tuple(self.layers)})

    def _take(self, fitted: FittedDetector) -> Self:
        self.fitted_ = fitted
        self.offset_ = -fitted.calibration.scan_threshold(self.false_positive_rate)
        return self

    def _fitted(self) -> FittedDetector:
        if not hasattr(self, "fitted_"):
            raise NotFitted("The detector is not fitted yet: call fit or load first.")
        return self.fitted_


def _named(scans: Scans) -> Iterator[tuple[str, AnyScan]]:
    """Scans with a name each; a folder stands for the scans in it."""
    if isinstance(scans, str | Path):
        yield from find_scans(Path(scans).expanduser())
        return
    given: Iterable[AnyScan] = [scans] if is_in_memory(scans) else scans
    for number, scan in enumerate(given):
        yield (str(scan), scan) if isinstance(scan, str | Path) else (f"scan {number}", scan)


def _unread(name: str, scan: AnyScan, options: ReadingOptions) -> UnreadScan:
    if isinstance(scan, str | Path):
        path = Path(scan).expanduser()
        return UnreadScan(name, partial(read_scan, name, path), partial(axes_of, path, options), options)
    return UnreadScan(name, partial(read_memory, name, scan), partial(axes_in_memory, name, scan, options), options)
