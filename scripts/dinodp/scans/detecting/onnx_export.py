"""Backbone, scorer and map as one ONNX graph, checked against PyTorch in onnxruntime and, where it is, in OpenVINO."""

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from dinodp import __version__
from dinodp.errors import InputError
from dinodp.families.base import FittedModel
from dinodp.families.full_passes import FullPassModel
from dinodp.families.k_means import KMeans
from dinodp.families.memory_bank import Bank
from dinodp.families.mixture import Mixture
from dinodp.families.stages import patch_scores
from dinodp.jobs.files import replaced_file
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.models.calibrated_components import CalibratedComponents
from dinodp.models.components import LOG_2PI
from dinodp.models.memory_bank import MemoryBank
from dinodp.models.online_mixture import OnlineMixture
from dinodp.scans.detecting.model_file import FittedDetector
from dinodp.scans.detecting.scoring import NO_ROWS

Pictures = npt.NDArray[np.float32]
OPSET = 18
TOLERANCE = 1e-3  # largest difference between the maps, in units of the range of the scores (at least 1)
DARKEST = 0.5  # of what is not black, of 255
N_CHECKED = 3  # pictures of the check; the graph is traced with two, so this also tests the dynamic batch
NOISE_SIDE = 16  # the check's pictures are noise of this many pixels, enlarged


class Difference(NamedTuple):
    """Largest difference of an engine's maps from PyTorch's: as `TOLERANCE` has it, and in scores."""

    relative: float
    absolute: float


@dataclass(frozen=True)
class ExportedGraph:
    """``size``: height and width of the graph's pictures; what each engine that is here makes of it."""

    path: Path
    size: tuple[int, int]
    differences: Mapping[str, Difference]


class ScoringGraph(nn.Module):
    """Pictures float32 [B, 3, H, W], RGB from 0 to 255, to anomaly maps [B, H, W] and patch scores [B, row, col].

    The pictures have the size that the backbone sees. Written from the model's parameters, without the checks of
    `dinodp.models` that a graph cannot hold.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, detector: FittedDetector) -> None:
        super().__init__()
        scorer = detector.scorer
        self.backbone = scorer.embedder.backbone
        for name, values in (("mean", self.backbone.mean), ("std", self.backbone.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.normalise = scorer.settings.model.normalise
        is_volume = scorer.preparation.healthy.kind == "volume"  # an image has no background
        self.leaves_out = is_volume and scorer.settings.model.background == "leave_out"
        self.score = _scores_of(scorer.model, scorer.settings.score_name)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.backbone.embed((pixels / 255 - self.mean) / self.std)
        x = functional.normalize(tokens, dim=-1) if self.normalise else tokens
        patches = self.score(x.reshape(-1, x.shape[-1])).reshape(x.shape[:3])
        if self.leaves_out:
            patches = _lowered(patches, functional.max_pool2d(pixels.amax(1), self.backbone.patch_size) >= DARKEST)
        size = [int(side) for side in pixels.shape[2:]]
        enlarged = functional.interpolate(patches[:, None], size=size, mode="bilinear", align_corners=False)
        return enlarged[:, 0], patches


def _lowered(patches: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Patch scores [B, row, col] of which those that are not shown are the lowest of their picture's others."""
    lowest = torch.where(shown, patches, torch.inf).amin((1, 2), keepdim=True)
    return torch.where(shown | torch.isinf(lowest), patches, lowest)


class Densities(nn.Module):
    """Negative log-likelihood [n] under the active components of a mixture with diagonal covariance.

    Centred on the mixture's mean, as in `dinodp.models`: in float32 the expanded square loses fewer digits.
    """

    centre: torch.Tensor
    linear: torch.Tensor
    square: torch.Tensor
    constant: torch.Tensor

    def __init__(self, mixture: OnlineMixture | CalibratedComponents) -> None:
        super().__init__()
        means, variances, weights = (
            values[mixture.active_].double().cpu()
            for values in (mixture.means_, mixture.covariances_, mixture.weights_)
        )
        centre = (weights / weights.sum()) @ means
        precisions, centred = 1 / variances, means - centre
        constant = weights.log() - 0.5 * (
            means.shape[1] * LOG_2PI + variances.log().sum(1) + (centred.square() * precisions).sum(1)
        )
        linear, square = (centred * precisions).T, -precisions.T / 2
        for name, values in {"centre": centre, "linear": linear, "square": square, "constant": constant}.items():
            self.register_buffer(name, values.float().contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x - self.centre
        return -torch.logsumexp(x @ self.linear + x.square() @ self.square + self.constant, dim=1)


class Cosine(nn.Module):
    """1 - the largest cosine similarity [n] to any of the given vectors."""

    directions: torch.Tensor

    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("directions", functional.normalize(vectors.detach().cpu().float(), dim=1).T.contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1 - (functional.normalize(x, dim=1) @ self.directions).amax(1)


class Scaled(nn.Module):
    """Smallest sqrt(sum (x - m)^2 p + penalty) [n]: nearest by matrix products, distance from the difference."""

    means: torch.Tensor
    precisions: torch.Tensor
    penalties: torch.Tensor
    constant: torch.Tensor

    def __init__(self, means: torch.Tensor, precisions: torch.Tensor, penalties: torch.Tensor | None = None) -> None:
        super().__init__()
        nothing = torch.zeros(len(means))
        self.register_buffer("penalties", nothing if penalties is None else penalties.detach().cpu().contiguous())
        self.register_buffer("means", means.detach().cpu().contiguous())
        self.register_buffer("precisions", precisions.detach().cpu().contiguous())
        self.register_buffer("constant", (self.means.square() * self.precisions).sum(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squared = self.constant + x.square() @ self.precisions.T - 2 * x @ (self.means * self.precisions).T
        nearest = (squared + self.penalties).argmin(1)
        exact = ((x - self.means[nearest]).square() * self.precisions[nearest]).sum(1)
        return (exact + self.penalties[nearest]).sqrt()


def _scores_of(model: FittedModel, name: str) -> nn.Module:
    """The score as a module. Raises InputError for a model that has none."""
    if isinstance(model, Bank) and isinstance(model.bank, MemoryBank):
        return Cosine(model.bank.embeddings_)
    if isinstance(model, KMeans):
        return Cosine(model.means) if name == "cosine" else Scaled(model.means, torch.ones_like(model.means))
    if isinstance(model, FullPassModel) and isinstance(model.mixture, CalibratedComponents):
        return _calibrated_score(model.mixture, name)
    if isinstance(model, Mixture) and model.mixture.covariance_type == "diag":
        return _mixture_score(model.mixture, name)
    raise InputError(
        "Only mixtures of diagonal covariance, k-means and memory banks can be exported, without pca_dims and "
        "position, and banks without search: ivfpq."
    )


def _calibrated_score(mixture: CalibratedComponents, name: str) -> nn.Module:
    if name in ("cosine", "log_likelihood"):
        return Cosine(mixture.means_) if name == "cosine" else Densities(mixture)
    penalties = mixture.penalties_ if name == "calibrated_distance" else None
    return Scaled(mixture.means_, 1 / mixture.covariances_, penalties)


def _mixture_score(mixture: OnlineMixture, name: str) -> nn.Module:
    means, variances = mixture.means_[mixture.active_], mixture.covariances_[mixture.active_]
    if name == "log_likelihood":
        return Densities(mixture)
    if name == "cosine":
        return Cosine(means)
    return Scaled(means, 1 / variances if name == "mahalanobis" else torch.ones_like(means))


def export_onnx(detector: FittedDetector, path: Path, size: tuple[int, int] | None = None) -> ExportedGraph:
    """Write the graph and check its maps against PyTorch's; nothing is written when they differ.

    ``size``: height and width of the pictures, default the square of the model's resolution.
    Raises InputError without the packages, for a size that is no multiple of the patch size, or a difference above the
    tolerance.
    """
    _require_packages()
    backbone = detector.scorer.embedder.backbone
    patch = backbone.patch_size
    height, width = size or (backbone.resolution // patch * patch,) * 2
    if min(height, width) < patch or height % patch or width % patch:
        raise InputError(f"Pictures of {height} x {width} pixels do not divide into patches of {patch} pixels.")
    graph = ScoringGraph(detector).eval()
    with replaced_file(path) as temporary:
        _write(graph, temporary, (height, width), _metadata(detector))
        differences = compare(detector, temporary, noise(N_CHECKED, (height, width)))
        for engine, difference in differences.items():
            if not difference.relative <= TOLERANCE:
                raise InputError(
                    f"The ONNX maps in {engine} differ from PyTorch's by {difference.relative:.2g} of their range, "
                    f"more than {TOLERANCE:g}: the file was not written."
                )
    return ExportedGraph(path, (height, width), differences)


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f'Export needs {error.name}, which is not installed: pip install -e ".[onnx]" in the checkout.'
        ) from error


def _write(graph: ScoringGraph, path: Path, size: tuple[int, int], metadata: Mapping[str, str]) -> None:
    example = torch.from_numpy(noise(2, size))
    with _quiet(), torch.no_grad():
        graph(example)  # backbones keep tensors per size of picture: they must be real ones, not the exporter's
        program: Any = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=["map", "patch_scores"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch", min=1)}},
            verbose=False,
        )
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings and its hundreds of lines about single nodes."""
    noisy = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [log.level for log in noisy]
    for log in noisy:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(noisy, levels, strict=True):
            log.setLevel(level)


def _metadata(detector: FittedDetector) -> dict[str, str]:
    settings = detector.scorer.settings
    return {
        "dinodp": __version__,
        "score": settings.score_name,
        "thresholds": json.dumps(dict(detector.calibration.thresholds)),
        "backbone": json.dumps(detector.scorer.embedder.backbone.provenance()),
        "note": "Research software, not a medical device: a score is no diagnosis.",
    }


def noise(n: int, size: tuple[int, int]) -> Pictures:
    """Pictures [n, 3, H, W] of smooth grey noise, whole numbers from 0 to 255, the same every time."""
    coarse = torch.rand(n, 1, NOISE_SIDE, NOISE_SIDE, generator=torch.Generator().manual_seed(0))
    enlarged = functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    pictures: Pictures = (enlarged * 255).round().expand(-1, 3, -1, -1).contiguous().numpy()
    return pictures


def compare(detector: FittedDetector, path: Path, pictures: Pictures) -> dict[str, Difference]:
    """How the maps of onnxruntime, and of OpenVINO where it is installed, differ from PyTorch's."""
    expected = np.stack([_torch_map(detector, picture) for picture in pictures])
    spread = max(1.0, float(np.ptp(expected)))
    engines = {"onnxruntime": _in_onnxruntime}
    if importlib.util.find_spec("openvino") is not None:
        engines["OpenVINO"] = _in_openvino
    largest = {name: float(np.abs(run(path, pictures) - expected).max()) for name, run in engines.items()}
    return {name: Difference(value / spread, value) for name, value in largest.items()}


def _in_onnxruntime(path: Path, pictures: Pictures) -> Pictures:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    maps: Pictures = session.run(["map"], {"pixels": pictures})[0]
    return maps


def _in_openvino(path: Path, pictures: Pictures) -> Pictures:
    """In float32: left to itself it computes in bfloat16 where the CPU does."""
    import openvino

    core = openvino.Core()
    model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    maps: Pictures = np.array(model(pictures)["map"])
    return maps


def _torch_map(detector: FittedDetector, picture: Pictures) -> Pictures:
    """The map by the functions that prediction uses."""
    scorer = detector.scorer
    backbone = scorer.embedder.backbone
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    tokens = backbone.embed(((torch.from_numpy(picture) / 255 - mean) / std)[None])
    seen = functional.normalize(tokens, dim=-1) if scorer.settings.model.normalise else tokens
    patch_map = patch_scores(scorer.model, seen, NO_ROWS, None)[scorer.settings.score_name][0]
    return anomaly_map(patch_map, (picture.shape[1], picture.shape[2]))
