"""Is the data what it should be? Every image is read once; what deviates is named, and stops a run unless accepted."""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dinodp.errors import InputError
from dinodp.images import MASK_RULES, decode_image, read_mask
from dinodp.jobs.files import write_text
from dinodp.jobs.logs import progress
from dinodp.jobs.origin import require_unchanged, write_result, write_table

LEAST_BRIGHT = 0.25  # of the stored range: where two bits or more of it are never used
FOUND = ("error", "changed", "mask_values", "pixels", "bits", "brightest")  # of each row
MOST_LESION = 0.8  # of an anomalous image, on average
SHOWN = 5  # examples of each deviation in the report
Facts = dict[str, Any]


def verify_dataset(
    manifest: pd.DataFrame, expect: Mapping[str, Any], *, threads: int = 1
) -> tuple[Facts, pd.DataFrame]:
    """Read every image and mask of a manifest; compare with what is published (``expect``: counts, size, mask_values).

    Returns the report (counts, sizes, mask values, prevalence per mask rule, duplicates, deviations by name) and a
    table of checksums (split, label, image, image_sha256, mask_sha256) to compare with another copy.
    """
    rows = manifest.to_dict("records")
    with ThreadPoolExecutor(threads) as pool:
        facts = list(progress(pool.map(_read, rows), "verify", total=len(rows)))
    frame = manifest.assign(**{key: [fact[key] for fact in facts] for key in FOUND})
    report: Facts = {
        "counts": _counts(manifest),
        "sizes": _tally(
            f"{height}x{width}" for height, width in zip(manifest["height"], manifest["width"], strict=True)
        ),
        "mask_values": _tally(value for values in frame["mask_values"] for value in values),
        "prevalence": _prevalence(frame),
        "identical_within_split": len(_repeated(frame)),
        "anomalous_with_empty_mask": _empty_masks(frame),
    }
    deviations = [*_broken(frame), *_published(report, expect), *_leaks(frame), *_wrong_masks(frame)]
    deviations += [*_copies(frame), *_dark(frame), *_mostly_lesion(frame)]
    names = dict.fromkeys(name for name, _ in deviations)
    report["deviations"] = {name: " ".join(said for other, said in deviations if other == name) for name in names}
    columns = ["split", "label", "image", "image_sha256", "mask_sha256"]
    return report, frame[columns].assign(image=[_short_name(path) for path in frame["image"]])


def _read(row: Mapping[Any, Any]) -> Facts:
    """Whether image and mask of a manifest row are those it names and can be decoded; counts of the mask's values."""
    changed = " ".join(_changed(row))
    try:
        image = decode_image(row["image"])
        counts = np.bincount(read_mask(row["mask"]).ravel()) if row["mask"] else np.zeros(0, dtype=int)
    except InputError as error:
        return {"error": str(error), "changed": changed, "mask_values": {}, "pixels": "", "bits": 0, "brightest": 1.0}
    values = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    pixels = hashlib.blake2b(image.pixels.tobytes(), key=str(image.pixels.shape).encode()).hexdigest()
    found = {"pixels": pixels, "bits": image.bits, "brightest": image.brightest}
    return {"error": "", "changed": changed, "mask_values": values, **found}


def _changed(row: Mapping[Any, Any]) -> Iterator[str]:
    """A sentence for each file of a manifest row that has another digest now; their bytes are read anew."""
    for kind in ("image", "mask"):
        if row[kind]:
            try:
                require_unchanged(row[kind], row[f"{kind}_sha256"])
            except InputError as error:
                yield str(error)


def _tally(values: Iterator[Any]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _counts(manifest: pd.DataFrame) -> dict[str, dict[str, int]]:
    pairs = Counter(zip(manifest["split"], manifest["label"], strict=True))
    return {split: {lab: n for (s, lab), n in sorted(pairs.items()) if s == split} for split, _ in sorted(pairs)}


def _prevalence(frame: pd.DataFrame) -> dict[str, float]:
    """Share of anomalous test pixels under each mask rule; empty without masks."""
    test = frame[(frame["split"] == "test") & (frame["mask_sha256"] != "")]
    pixels = sum(sum(values.values()) for values in test["mask_values"])
    if not pixels:
        return {}
    return {
        name: sum(n for values in test["mask_values"] for value, n in values.items() if rule.holds(value)) / pixels
        for name, rule in MASK_RULES.items()
    }


def _repeated(frame: pd.DataFrame) -> pd.DataFrame:
    """Images that show the same as an earlier one of their split."""
    return frame[frame.duplicated(["split", "pixels"]) & (frame["pixels"] != "")]


def _empty_masks(frame: pd.DataFrame) -> int:
    masked = (frame["label"] == "anomalous") & (frame["mask_sha256"] != "")
    return sum(not any(values) for values in frame.loc[masked, "mask_values"])


def _examples(items: Collection[str]) -> str:
    shown = ", ".join(sorted(items)[:SHOWN])
    return shown if len(items) <= SHOWN else f"{shown}, ... ({len(items)} in all)"


def _broken(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    for column, name, what in (
        ("error", "unreadable_image", "files cannot be read"),
        ("changed", "changed_file", "images with their masks are not those of the manifest"),
    ):
        if errors := [error for error in frame[column] if error]:
            yield name, f"{len(errors)} {what}: {' '.join(errors[:SHOWN])}"


def _published(report: Facts, expect: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What differs from the published counts, size and mask values."""
    for split, labels in expect.get("counts", {}).items():
        found = {label: report["counts"].get(split, {}).get(label, 0) for label in labels}
        if found != labels:
            moved = abs(found.get("normal", 0) - labels.get("normal", 0))
            name = f"other_class_{moved}" if sum(found.values()) == sum(labels.values()) else "counts"
            known = "; older copies of RESC have 25 images in the other class" if name == "other_class_25" else ""
            yield name, f"the split {split} holds {_in_words(found)}, published are {_in_words(labels)}{known}."
    if size := expect.get("size"):
        others = {key: count for key, count in report["sizes"].items() if key != f"{size[0]}x{size[1]}"}
        if others:
            yield "image_size", f"images of {_in_words(others)} pixels, published are {size[0]}x{size[1]}."
    if values := expect.get("mask_values"):
        others = {key: count for key, count in report["mask_values"].items() if int(key) not in values}
        if others:
            yield "mask_values", f"masks hold the values {', '.join(others)}, published are {values}."


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _leaks(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Images and subjects that occur in more than one split."""
    for name, column, what in (
        ("identical_across_splits", "pixels", "images are the same in two splits"),
        ("subject_in_two_splits", "subject", "subjects occur in two splits"),
    ):
        known = frame[frame[column] != ""]
        splits = known.groupby(column)["split"].nunique()
        shared = splits.index[splits > 1]
        if len(shared):
            first = known[known[column].isin(shared)].drop_duplicates([column, "split"])
            files = [_short_name(str(row.image)) for row in first.sort_values(column).itertuples()]
            yield name, f"{len(shared)} {what}: {_examples(files[: 2 * SHOWN])}."


def _wrong_masks(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    normal = frame[frame["label"] == "normal"]
    marked = [
        _short_name(path)
        for path, values in zip(normal["image"], normal["mask_values"], strict=True)
        if any(values)  # the keys: one above 0
    ]
    if marked:
        yield "normal_with_lesion", f"{len(marked)} normal images have a mask that is not empty: {_examples(marked)}."


def _copies(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Images that would count twice."""
    if len(repeated := _repeated(frame)):
        files = [_short_name(path) for path in repeated["image"]]
        said = f"{len(files)} images are the same as another of their split: {_examples(files)}."
        yield "identical_within_split", said


def _dark(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Images of which a split uses the lowest quarter of the stored range, or less: of 16 bits, 14 or fewer."""
    deep = frame[frame["bits"] > 8]
    for split, bits in deep[["split", "bits"]].drop_duplicates().itertuples(index=False, name=None):
        rows = deep[(deep["split"] == split) & (deep["bits"] == bits)]
        if 0 < (brightest := rows["brightest"].max()) <= LEAST_BRIGHT:
            used = math.ceil(math.log2(brightest * (2 ** min(bits, 16) - 1) + 1))
            yield "unused_range", (
                f"the brightest value of {len(rows)} {split} images is {brightest:.2%} of their {bits} bits, as of "
                f"{used} bits stored in {bits}: the images are nearly black (keys depth and window)."
            )


def _mostly_lesion(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Masks that cover most of the anomalous images: white background, or the images themselves."""
    found = [values for values, label in zip(frame["mask_values"], frame["label"], strict=True) if label == "anomalous"]
    shares = [1 - values.get(0, 0) / sum(values.values()) for values in found if values]
    if shares and (share := sum(shares) / len(shares)) > MOST_LESION:
        said = f"the masks of {len(shares)} anomalous images cover {share:.0%} of them: are they inverted?"
        yield "mostly_lesion", said


def _short_name(path: str) -> str:
    """The last folders and the name: enough to find a file, the same in every copy."""
    return "/".join(Path(path).parts[-4:])


def require_accepted(name: str, report: Facts, accept: Sequence[str], where: str) -> str:
    """The accepted deviations as text. Raises InputError for the first deviation that is not accepted by name."""
    for deviation, sentence in report["deviations"].items():
        if deviation not in accept:
            raise InputError(
                f"Data set {name}: {deviation}: {sentence} See {where}; if it is meant to be so, "
                f"set accept: [{deviation}] in its catalog entry."
            )
    return "".join(f"{deviation}: {sentence}\n" for deviation, sentence in report["deviations"].items()) or "none\n"


def write_verification(
    name: str,
    report: Facts,
    checksums: pd.DataFrame,
    json: Path,
    page: Path,
    table: Path,
    *,
    made_from: Mapping[str, str],
) -> None:
    """Write the report as JSON and as a page, and the checksums as CSV; ``made_from``: the digest of the manifest."""
    lines = [f"# {name}: verification", ""]
    deviations = report["deviations"]
    lines += [f"- **{key}**: {sentence}" for key, sentence in deviations.items()] or ["No deviation was found."]
    lines += ["", "| split | label | images |", "|---|---|---|"]
    lines += [f"| {s} | {lab} | {n} |" for s, labels in report["counts"].items() for lab, n in labels.items()]
    prevalence = ", ".join(f"{rule}: {100 * share:.3f} %" for rule, share in report["prevalence"].items()) or "no masks"
    lines += [
        "",
        f"Image sizes (height x width): {_in_words(report['sizes'])}.  ",
        f"Mask values (images that hold each): {_in_words(report['mask_values']) or 'no masks'}.  ",
        f"Anomalous share of the test pixels: {prevalence}.  ",
        f"Images identical to another of their split: {report['identical_within_split']}.  ",
        f"Anomalous images with an empty mask: {report['anomalous_with_empty_mask']}.",
    ]
    write_table(table, checksums.to_csv(index=False), __name__, made_from)
    write_text(page, "\n".join(lines) + "\n")
    write_result(json, report, __name__, made_from)
