"""A table of what is known of subjects or images, such as scanner, site, age or disease, joined to images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dinodp.datasets.map_files import name_of
from dinodp.datasets.walking import stem_of
from dinodp.errors import InputError
from dinodp.jobs.logs import logger
from dinodp.jobs.origin import parse_table, sha256

KEYS = ("image", "subject")  # the columns by which a row belongs to images
PREFIX = "metadata."  # of the columns in cases.csv
MOST_VALUES = 6  # of numbers that are groups by themselves; more are cut into bins
Rows = npt.NDArray[np.int64]


def read_metadata(path: Path) -> tuple[str, pd.DataFrame, str]:
    """The key column, the table with that as its index and texts as values ("": unknown), and a digest of the file.

    Raises InputError for a file that is none, lacks a key, has nothing else, or names an image or subject twice.
    """
    if not path.is_file():
        raise InputError(f"There is no table of metadata {path}.")
    content = path.read_bytes()
    table = parse_table(path, content, dtype=str, keep_default_na=False, skipinitialspace=True)
    key = next((name for name in KEYS if name in table), None)
    if key is None or len(table.columns) < 2:
        raise InputError(
            f"The table of metadata {path} has the columns {', '.join(table.columns)}: it needs a column image or "
            "subject, and at least one other."
        )
    repeated = table[key][table[key].duplicated()]
    if len(repeated):
        raise InputError(f"The table of metadata {path} names the {key} {repeated.iloc[0]} twice.")
    if key == "image":
        table[key] = [stem_of(name_of(name)) for name in table[key]]
    return key, table.set_index(key), sha256(content)


def joined(path: Path, images: Sequence[str], subjects: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """One row per image (their names without suffix) with the columns of the table, "" where unknown; and its digest.

    Raises InputError as `read_metadata` does, and where the table fits no image.
    """
    key, table, digest = read_metadata(path)
    names = list(images if key == "image" else subjects)
    missing = [name for name in names if name not in table.index]
    if len(missing) == len(names):
        raise InputError(
            f"The table of metadata {path} fits none of the {len(names)} images: their {key} is for example "
            f"{names[0]!r}, in the table it is {str(table.index[0])!r}."
        )
    if missing:
        logger.warning("%s says nothing of %d of %d images (%s %s).", path, len(missing), len(names), key, missing[0])
    return table.reindex(names, fill_value="").reset_index(drop=True), digest


def groups(values: Sequence[str], cuts: Sequence[float] | None = None) -> Iterator[tuple[str, float, float, Rows]]:
    """Name, lowest and highest value (NaN of words) and the rows of each group of values; "" belongs to none.

    Numbers are cut at ``cuts``, or into thirds where they have more than six values; words, and few numbers, are groups
    by themselves. Raises InputError for cuts of what is no number.
    """
    texts = np.asarray([str(value) for value in values], dtype=object)
    known = texts != ""
    numbers = pd.to_numeric(pd.Series(np.where(known, texts, np.nan)), errors="coerce").to_numpy(dtype=float)
    is_number = bool(known.any()) and bool(np.isfinite(numbers[known]).all())
    if cuts and not is_number:
        raise InputError(f"Cuts {list(cuts)} are given for values that are no numbers, such as {texts[known][0]!r}.")
    if is_number and (cuts or len(np.unique(numbers[known])) > MOST_VALUES):
        edges = list(cuts) if cuts else np.quantile(numbers[known], [1 / 3, 2 / 3])
        place = np.digitize(numbers, edges)
        for index in range(len(edges) + 1):
            rows = np.flatnonzero(known & (place == index))
            if len(rows):
                yield _between(edges, index), float(numbers[rows].min()), float(numbers[rows].max()), rows
        return
    for text in sorted(set(texts[known])):
        rows = np.flatnonzero(texts == text)
        low = float(numbers[rows[0]]) if is_number else float("nan")
        yield str(text), low, low, rows


def _between(edges: Sequence[float] | npt.NDArray[np.float64], index: int) -> str:
    if index == 0:
        return f"below {edges[0]:g}"
    return f"from {edges[index - 1]:g}" + (f", below {edges[index]:g}" if index < len(edges) else "")


def bins_of(bins: Mapping[str, Sequence[float]], columns: Sequence[str], path: Path) -> None:
    """Raise InputError where bins are given for a column that the table has not."""
    for name in bins:
        if name not in columns:
            raise InputError(f"metadata_bins names {name}, but {path} has the columns {', '.join(columns)}.")
