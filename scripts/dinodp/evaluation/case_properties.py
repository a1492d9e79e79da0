"""What each test image shows, apart from any model: size and contrast of its lesion, level of its slice, its tissue."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy import ndimage

from dinodp.datasets.manifest import manifest_digest, select
from dinodp.evaluation.metadata import PREFIX, joined
from dinodp.images import read_image, read_lesion
from dinodp.jobs.origin import require_unchanged, write_table

FOREGROUND = 0.05  # of the full range: what is darker is background
RING = 0.03  # of the short side: width of the surroundings that a lesion is compared with
COLUMNS = ["image", "subject", "label", "lesion_share", "contrast", "level"]
Floats = npt.NDArray[np.float64]


def describe_cases(manifest: pd.DataFrame, mask_rule: str, path: Path, metadata: Path | None = None) -> None:
    """Write one row per test image: ``lesion_share`` of the image, ``contrast`` and ``level``; unknown is empty.

    Columns of a table of ``metadata`` follow, each with `PREFIX`. Raises InputError as `joined` does, and for an image
    or a mask that is not the one whose digest the manifest holds.
    """
    test = select(manifest, "test")
    shares, contrasts = zip(*(_lesion(row, mask_rule) for row in test.itertuples()), strict=True)
    frame = test[["image", "subject", "label"]].assign(
        image=[Path(image).name for image in test["image"]],
        lesion_share=shares,
        contrast=contrasts,
        level=slice_levels(test),
    )
    frame, made_from = frame[COLUMNS], {"manifest": manifest_digest(manifest)}
    if metadata is not None:
        names = [Path(image).stem for image in test["image"]]
        known, made_from["metadata"] = joined(metadata, names, test["subject"].tolist())
        frame = pd.concat([frame, known.add_prefix(PREFIX)], axis=1)
    write_table(path, frame.to_csv(index=False, float_format="%.6g"), __name__, made_from)


def _lesion(row: object, mask_rule: str) -> tuple[float, float]:
    """Share of the image and contrast of a row's lesion; (NaN, NaN) where there is none or no mask."""
    mask_path, image_path = str(row.mask), str(row.image)  # type: ignore[attr-defined]
    if not mask_path:
        return float("nan"), float("nan")
    require_unchanged(mask_path, str(row.mask_sha256))  # type: ignore[attr-defined]
    mask = read_lesion(mask_path, mask_rule)
    if not mask.any():
        return float("nan"), float("nan")
    require_unchanged(image_path, str(row.image_sha256))  # type: ignore[attr-defined]
    return float(mask.mean()), lesion_contrast(grey(image_path), mask)


def grey(path: str) -> Floats:
    """An image [H, W] as fractions of the full range, the mean of its channels."""
    return np.asarray(read_image(path).mean(axis=2) / 255)


def lesion_contrast(image: Floats, mask: npt.NDArray[np.bool_]) -> float:
    """Difference between a lesion's mean and that of its surroundings, by the standard deviation of the tissue.

    The sign is dropped: 0 is a lesion that looks like what is around it. NaN where the lesion leaves no surroundings or
    the tissue has one value. ``image`` and ``mask`` [H, W].
    """
    tissue = image > FOREGROUND
    width = max(2, round(RING * min(mask.shape)))
    ring = ndimage.binary_dilation(mask, iterations=width) & ~mask & tissue
    spread = float(image[tissue & ~mask].std()) if (tissue & ~mask).any() else 0.0
    if not ring.any() or spread == 0:
        return float("nan")
    return float(abs(image[mask].mean() - image[ring].mean()) / spread)


def slice_levels(frame: pd.DataFrame) -> Floats:
    """Where a slice lies among those of its subject, 0 (first) to 1 (last), [n]; NaN for a subject with one slice."""
    place = pd.to_numeric(frame["slice"], errors="coerce").where(frame["subject"] != "")
    subjects = place.groupby(frame["subject"])
    low, high = subjects.transform("min"), subjects.transform("max")
    return np.asarray(((place - low) / (high - low).where(high > low)).to_numpy(dtype=float))


def patch_values(image: npt.NDArray[np.floating], grid: Sequence[int]) -> Floats:
    """Mean of an image [H, W] over each patch of a grid (rows, columns)."""
    resized = Image.fromarray(image.astype(np.float32)).resize((grid[1], grid[0]), Image.Resampling.BOX)
    return np.asarray(resized, dtype=np.float64)
