"""The manifest: one row per image of a data set, and what it must satisfy."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from dinodp.datasets.boxes import Box, boxes_text, pixels_in
from dinodp.errors import InputError
from dinodp.images import orientation_of
from dinodp.jobs.origin import parse_table, require_unchanged, sha256, table_origin, write_table
from dinodp.options.base import shown

COLUMNS = ("split", "label", "image", "mask", "subject", "slice", "height", "width", "image_sha256", "mask_sha256")
BOXES = "boxes"  # a column more, of a data set whose lesions are boxes (`boxes.boxes_text`)
PLACES = ("image", "mask")  # where the files lie changes nothing
TEXTS = (*PLACES, BOXES, "subject", "slice", "image_sha256", "mask_sha256")  # also where they look like numbers
SPLITS = ("train", "valid", "test")
LABELS = ("normal", "anomalous")


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, pixels, upright as its EXIF says.

    Raises InputError when it is missing or unreadable.
    """
    try:
        with Image.open(path) as image:
            turned = orientation_of(image) > 4
            return (image.width, image.height) if turned else (image.height, image.width)
    except FileNotFoundError as error:
        raise InputError(f"There is no image {path}.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is not a readable image ({error}).") from error


def image_row(
    split: str, label: str, image: Path, mask: Path | None = None, subject: str = "", slice_index: int | str = "",
    boxes: Sequence[Box] = (),
) -> dict[str, object]:  # fmt: skip
    """One row of a manifest. Raises InputError when image or mask cannot be read or differ in size, and for a box
    outside of the image."""
    height, width = image_size(image)
    pixels_in(boxes, (height, width), str(image))
    if mask is not None and (found := image_size(mask)) != (height, width):
        raise InputError(
            f"The mask {mask} has {found[0]} x {found[1]} pixels, but its image {image} has {height} x {width}."
        )
    return {
        "split": split,
        "label": label,
        "image": str(image),
        "mask": "" if mask is None else str(mask),
        "subject": subject,
        "slice": slice_index,
        "height": height,
        "width": width,
        "image_sha256": sha256(image.read_bytes()),
        "mask_sha256": "" if mask is None else sha256(mask.read_bytes()),
        BOXES: boxes_text(boxes),
    }


def make_manifest(rows: Iterable[Mapping[Hashable, Any]] | Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table sorted by split and image, with a column `BOXES` ("" where there is none)."""
    frame = pd.DataFrame(list(rows), columns=[*COLUMNS, BOXES]).fillna({BOXES: ""})
    order = frame["split"].map({split: index for index, split in enumerate(SPLITS)})
    return frame.assign(order=order).sort_values(["order", "image"]).drop(columns="order").reset_index(drop=True)


def check_manifest(frame: pd.DataFrame, where: str) -> None:
    """Raise InputError, in one sentence, for the first thing that is wrong; ``where`` names the data."""
    if missing := [column for column in COLUMNS if column not in frame]:
        raise InputError(f"The manifest of {where} lacks the columns {', '.join(missing)}.")
    for column, known in (("split", SPLITS), ("label", LABELS)):
        if unknown := sorted(set(frame[column]) - set(known)):
            raise InputError(
                f"The manifest of {where} has the {column} {shown(unknown[0])}; allowed are {', '.join(known)}."
            )
    for split in SPLITS:
        if not (frame["split"] == split).any():
            raise InputError(f"The {split} split of {where} is empty: there must be images in train, valid and test.")
    if ((frame["split"] == "train") & (frame["label"] == "anomalous")).any():
        raise InputError(f"The train split of {where} holds anomalous images; it must hold normal ones only.")
    if not ((frame["split"] == "valid") & (frame["label"] == "normal")).any():
        raise InputError(f"The valid split of {where} holds no normal image; thresholds and model selection need some.")
    repeated = frame["image"].duplicated()
    if repeated.any():
        raise InputError(f"The manifest of {where} names the image {frame['image'][repeated].iloc[0]} twice.")


def write_manifest(
    frame: pd.DataFrame, path: Path, where: str | None = None, made_from: Mapping[str, str] | None = None
) -> None:
    """Validate and write a manifest and its origin; files below its folder are named relative to it."""
    check_manifest(frame, where or str(path))
    folder = path.parent.resolve()
    relative = frame.copy()
    for column in PLACES:
        relative[column] = [_relative(file, folder) for file in frame[column]]
    text = _as_written(make_manifest(relative.to_dict("records"))).to_csv(index=False)
    write_table(path, text, "dinodp.datasets.sources", made_from or {})


def _as_written(frame: pd.DataFrame) -> pd.DataFrame:
    """Without `BOXES` where no image has one."""
    return frame if BOXES in frame and (frame[BOXES] != "").any() else frame.drop(columns=BOXES, errors="ignore")


def _relative(file: str, folder: Path) -> str:
    if not file:
        return ""
    absolute = Path(file).absolute()
    return absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else str(absolute)


def read_manifest(path: Path) -> pd.DataFrame:
    """Read and validate a manifest; ``image`` and ``mask`` become absolute paths (``mask`` stays "" where absent, as
    ``boxes`` do).

    Raises InputError where it is missing, or not as it was written.
    """
    if not path.is_file():
        raise InputError(f"There is no manifest {path}.")
    table_origin(path)
    frame = parse_table(path, path.read_bytes(), keep_default_na=False, dtype=dict.fromkeys(TEXTS, str))
    check_manifest(frame, str(path))
    folder = path.parent.resolve()
    for column in PLACES:
        frame[column] = [str(folder / file) if file else "" for file in frame[column]]
    return frame if BOXES in frame else frame.assign(**{BOXES: ""})


def manifest_digest(frame: pd.DataFrame) -> str:
    """The digest of all that a manifest says of its images but for where they lie."""
    known = [column for column in (*COLUMNS, BOXES) if column in _as_written(frame) and column not in PLACES]
    return sha256(frame[known].to_csv(index=False))


def require_unchanged_images(frame: pd.DataFrame) -> None:
    """Raise InputError for the first image or mask that is not the one whose digest the manifest holds."""
    for column in PLACES:
        for path, digest in zip(frame[column], frame[f"{column}_sha256"], strict=True):
            if path:
                require_unchanged(path, digest)


def select(frame: pd.DataFrame, split: str, label: str | None = None) -> pd.DataFrame:
    """Rows of one split (and label), numbered from 0: row i belongs to image i of the split's embeddings."""
    rows = frame["split"] == split
    if label is not None:
        rows &= frame["label"] == label
    return frame[rows].reset_index(drop=True)
