"""Folders whose names mean a split or a label, but are not the names that are read; and files that nothing read."""

from collections.abc import Iterable
from pathlib import Path

from dinodp.datasets.walking import IMAGE_SUFFIXES, shown_below, walk
from dinodp.errors import InputError

NORMAL = {
    "good", "normal", "normals", "ok", "okay", "healthy", "negative", "nominal", "control", "controls", "no_anomaly",
    "no_lesion", "no_finding", "non_defective", "nondefective", "defect_free", "normal_cases", "without_lesion",
}  # fmt: skip
ANOMALOUS = {
    "ungood", "bad", "anomalous", "anomaly", "anomalies", "abnormal", "defect", "defective", "diseased", "disease",
    "positive", "lesion", "lesions", "tumor", "tumour", "pathological", "sick", "ng", "not_good",
}  # fmt: skip
SPLITS = {
    "train", "training", "valid", "val", "validation", "validate", "dev", "test", "testing", "tests", "ground_truth",
    "groundtruth", "ground_truths", "gt",
}  # fmt: skip

WITHOUT_PLACE = "image without a place in the layout"


def means(name: str, words: set[str]) -> bool:
    """Whether a folder's name is one of these words, in any case, with hyphens or spaces for underscores."""
    return name.casefold().replace("-", "_").replace(" ", "_") in words


def say_unused(root: Path, used: Iterable[Path], known: Iterable[str]) -> None:
    """Log, once, which files below ``root`` are not among those ``used``: counts, and examples.

    Raises InputError for an image that lies in a folder whose name means a split or a label, but is none of ``known``.
    """
    identities = {_identity(path) for path in used}
    found = walk(root).ending(IMAGE_SUFFIXES)
    for kind, paths in found.left.items():
        found.left[kind] = [path for path in paths if _identity(path) not in identities]
    found.where(lambda path: _identity(path) in identities, WITHOUT_PLACE)
    names = set(known)
    for path in found.left[WITHOUT_PLACE]:
        _require_known_folders(path, root, names)
    found.say()


def _require_known_folders(path: Path, root: Path, known: set[str]) -> None:
    for folder in path.relative_to(root).parts[:-1]:
        if folder not in known and any(means(folder, words) for words in (NORMAL, ANOMALOUS, SPLITS)):
            raise InputError(
                f"the image {shown_below(path, root)} below {root} would not be read: the folder {folder!r} is none of "
                f"{', '.join(sorted(known))}; give it one of these names, or move it elsewhere."
            )


def _identity(path: Path) -> tuple[int, int] | Path:
    """Device and inode of a file; the path of a link that leads nowhere."""
    try:
        status = path.stat()
    except OSError:
        return path
    return status.st_dev, status.st_ino
