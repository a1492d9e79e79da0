"""Boxes around lesions, where there are no masks: a CSV table, JSON in the layout of COCO, or text in a manifest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dinodp.datasets.map_files import name_of
from dinodp.datasets.walking import stem_of
from dinodp.errors import InputError
from dinodp.jobs.foreign_json import parsed_json
from dinodp.jobs.origin import parse_table
from dinodp.options.base import shown

COLUMNS = ("image", "x", "y", "width", "height")


class Box(NamedTuple):
    """Left, top, width and height in pixels; a pixel belongs to it where its centre does."""

    x: float
    y: float
    width: float
    height: float

    def pixels(self) -> tuple[slice, slice]:
        """Rows and columns of its pixels."""
        ends = [(start, start + size) for start, size in ((self.y, self.height), (self.x, self.width))]
        rows, columns = (slice(int(np.ceil(low - 0.5)), int(np.ceil(high - 0.5))) for low, high in ends)
        return rows, columns


@dataclass
class BoxFile:
    """The boxes of each image by its name without suffix (none: healthy), and the sizes (height, width) it states."""

    path: Path
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "BoxFile":
        """Raises InputError for a file that is neither, and for a box without a size."""
        if not path.is_file():
            raise InputError(f"There is no file of boxes {path}.")
        found = cls(path)
        if path.suffix.lower() == ".json":
            found._read_coco(parsed_json(path.read_bytes(), path))
        else:
            found._read_table()
        return found

    def name_for(self, image: Path) -> str:
        """How the file calls an image, whose path is relative: with as many folders as it has; "" where not at all."""
        names = (_name("__".join(image.parts[start:])) for start in range(len(image.parts)))
        return next((name for name in names if name in self.boxes), "")

    def require_size(self, name: str, shape: tuple[int, ...], what: str) -> None:
        """Raise InputError where the file states another size of an image than ``what`` is to be compared [H, W]."""
        stated = self.sizes.get(name, shape)
        if stated != shape:
            raise InputError(
                f"{self.path} says that {name} has {stated[0]} x {stated[1]} pixels, but its {what} has {shape[0]} x "
                f"{shape[1]}: boxes are not resized."
            )

    def _read_table(self) -> None:
        table = parse_table(self.path, self.path.read_bytes(), dtype={"image": str})
        if lacking := [name for name in COLUMNS if name not in table]:
            raise InputError(
                f"The table of boxes {self.path} lacks {', '.join(lacking)}: it needs image, x, y, width and height "
                "(in pixels from the upper left corner; empty for a healthy image)."
            )
        for row in table.itertuples():
            name = _name(str(row.image))
            self.boxes.setdefault(name, [])
            numbers = [getattr(row, column) for column in COLUMNS[1:]]
            if not all(value != value for value in numbers):  # an empty cell is NaN
                self._add(name, numbers)

    def _read_coco(self, content: Any) -> None:
        try:
            names = {item["id"]: _name(str(item["file_name"])) for item in content["images"]}
            self.boxes = {name: [] for name in names.values()}
            self.sizes = {names[item["id"]]: (int(item["height"]), int(item["width"])) for item in content["images"]}
            found = [(names[item["image_id"]], item["bbox"]) for item in content["annotations"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.path} is not in the layout of COCO ({type(error).__name__}: {error}): it needs images (id, "
                "file_name, height, width) and annotations (image_id, bbox)."
            ) from error
        for name, numbers in found:
            self._add(name, numbers)

    def _add(self, name: str, numbers: Sequence[Any]) -> None:
        try:
            box = Box(*(float(value) for value in numbers))
            is_box = bool(np.isfinite(box).all()) and box.width > 0 and box.height > 0
        except (TypeError, ValueError):
            is_box = False
        if not is_box:
            raise InputError(f"{self.path} gives the image {name} the box {list(numbers)}: four numbers are needed, "
                             "left, top, width and height, the last two above 0.")  # fmt: skip
        self.boxes[name].append(box)


def boxes_text(boxes: Iterable[Box]) -> str:
    """Boxes as a manifest holds them: four numbers each, between semicolons."""
    return "; ".join(" ".join(f"{number:.10g}" for number in box) for box in boxes)


def boxes_of(text: str) -> list[Box]:
    """The boxes of a cell of a manifest. Raises InputError for what `boxes_text` did not write."""
    try:
        return [Box(*map(float, part.split())) for part in text.split(";")] if text else []
    except (TypeError, ValueError) as error:
        raise InputError(
            f"A manifest holds the boxes {shown(text)}: four numbers each are needed, between semicolons."
        ) from error


def _name(file: str) -> str:
    return stem_of(name_of("__".join(Path(file).parts)))


def pixels_in(boxes: Sequence[Box], shape: tuple[int, ...], where: str) -> npt.NDArray[np.bool_]:
    """Which pixels [H, W] are in a box. Raises InputError for a box that has none, or begins outside."""
    inside = np.zeros(shape, dtype=bool)
    for box in boxes:
        rows, columns = box.pixels()
        if min(rows.start, columns.start) < 0 or not inside[rows, columns].size:
            raise InputError(f"The box {list(box)} of {where} is not within its {shape[0]} x {shape[1]} pixels.")
        inside[rows, columns] = True
    return inside
