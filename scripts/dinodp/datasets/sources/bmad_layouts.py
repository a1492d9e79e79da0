"""The layouts in which BMAD's data sets circulate, as data, and how one of them is recognised in a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dinodp.datasets.walking import IMAGE_SUFFIXES, files_in, folders_in, has_suffix, is_passed_over
from dinodp.errors import InputError

SPLITS = {"valid": ("valid", "val"), "test": ("test",)}
LABELS = {"normal": ("good",), "anomalous": ("Ungood", "ungood", "bad")}
DEEPEST_ROOT = 3  # outer folders that an archive may put around the data set


@dataclass(frozen=True)
class Layout:
    """Folders of one layout. ``{split}`` and ``{label}`` stand for the names above; ``{Split}`` has a capital."""

    name: str
    train: str
    images: str
    masks: str

    def folders(self, root: Path, pattern: str, split: str, label: str) -> Iterator[Path]:
        """The existing folders that a pattern stands for."""
        for split_name in SPLITS[split]:
            for label_name in LABELS[label]:
                names = {"split": split_name, "Split": split_name.capitalize(), "label": label_name}
                if (folder := root / pattern.format(**names)).is_dir():
                    yield folder

    def has_split(self, root: Path, split: str) -> bool:
        """Whether the data set has images of a split."""
        return any(True for label in LABELS for _ in self.folders(root, self.images, split, label))

    def fits(self, root: Path, with_masks: bool) -> bool:
        """Whether training and test images lie where this layout has them, and masks if there must be some."""
        test = [folder for label in LABELS for folder in self.folders(root, self.images, "test", label)]
        masks = [folder for label in LABELS for folder in self.folders(root, self.masks, "test", label)]
        there = has_images(root / self.train) and any(has_images(folder) for folder in test)
        return there and (bool(masks) or not with_masks)


LAYOUTS = (
    Layout("label folders with img and label", "train/good", "{split}/{label}/img", "{split}/{label}/label"),
    Layout("the same, training images in img", "train/good/img", "{split}/{label}/img", "{split}/{label}/label"),
    Layout("BMAD's README", "train/good/img", "{split}/{label}/img", "{split}/{label}/anomaly_mask"),
    Layout("img and label with label folders", "train/good", "{split}/img/{label}", "{split}/label/{label}"),
    Layout("RESC", "Train/train/good", "{Split}/{split}/{label}", "{Split}/{split}_label/{label}"),
    Layout("Uni-Medical", "train/good", "{split}/{label}", "ground_truth/{label}"),
)


def list_images(folder: Path) -> list[Path]:
    """The images directly in a folder by name; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return files_in(folder).files


def has_images(folder: Path) -> bool:
    """Whether there is an image directly in a folder."""
    return folder.is_dir() and any(
        has_suffix(path, IMAGE_SUFFIXES) and not is_passed_over(path.name) for path in folder.iterdir()
    )


def recognise(root: Path, with_masks: bool) -> tuple[Path, Layout]:
    """The folder of the data set (``root`` or one inside it) and its layout; images decide where there are no masks.

    Raises InputError when there is no folder, no layout or more than one.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root} (key root).")
    level = [root]
    for _ in range(DEEPEST_ROOT):
        found = [(folder, layout) for folder in level for layout in LAYOUTS if layout.fits(folder, with_masks)]
        if len({(folder, layout.images) for folder, layout in found}) == 1 and (len(found) == 1 or not with_masks):
            return found[0]
        if found:
            candidates = "; ".join(f"{folder} ({layout.name})" for folder, layout in found)
            raise InputError(f"{root} fits several layouts: {candidates}; set root to the one that is meant.")
        level = [inner for folder in level for inner in folders_in(folder)]
    looked_for = "; ".join(f"{layout.train} with {layout.images}" for layout in LAYOUTS)
    there = ", ".join([path.name for path in folders_in(root)][:10]) or "nothing"
    raise InputError(f"{root} has none of the known layouts; looked for {looked_for}; it holds {there}.")
