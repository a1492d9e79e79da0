"""Who is on an image, and validation subjects held out of the training split."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dinodp.errors import InputError
from dinodp.jobs.logs import logger


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern for `subjects_of`. Raises InputError when it is no regular expression with the group ``subject``."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"subject_pattern {pattern!r} is no regular expression ({error}).") from error
    if "subject" not in compiled.groupindex:
        raise InputError(f"subject_pattern {pattern!r} must have a group (?P<subject>...).")
    return compiled


def subjects_of(
    names: Sequence[str], pattern: str | None, own: Sequence[str] | None = None, *, is_given: bool = True
) -> list[str]:
    """The subject of each name; without a pattern, and where it does not fit, the one of ``own`` (default: the name).

    Names that the pattern does not fit are counted in the log. Raises InputError where it fits none, unless it
    is a default (``is_given=False``), and where it is no pattern.
    """
    if not pattern:
        return list(own or names)
    compiled = compile_pattern(pattern)
    strange = [name for name in names if compiled.search(name) is None]
    if strange and len(strange) == len(names) and is_given:
        raise InputError(f"subject_pattern {pattern!r} fits none of the {len(names)} names, such as {strange[0]!r}.")
    if strange:
        logger.warning(
            "The subject pattern %r does not fit %d of %d names (such as %r): each of them is a subject of its own.",
            pattern, len(strange), len(names), strange[0],
        )  # fmt: skip
    matches = [compiled.search(name) for name in names]
    return [match["subject"] if match else other for match, other in zip(matches, own or names, strict=True)]


def draw(subjects: Sequence[str], fraction: float, seed: int) -> set[str]:
    """A share of distinct subjects drawn at random, at least one, and not all of them."""
    count = min(max(1, round(fraction * len(subjects))), len(subjects) - 1)
    return set(np.random.default_rng(seed).choice(subjects, size=count, replace=False).tolist())


def hold_out(frame: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Move a share of the training subjects (at least one) to the split valid; no subject is in both.

    Raises InputError when the fraction is outside (0, 1) or there are fewer than two training subjects.
    """
    if not 0 < fraction < 1:
        raise InputError(f"valid_fraction must lie between 0 and 1, not {fraction!r}.")
    subjects = sorted(set(frame.loc[frame["split"] == "train", "subject"]))
    if len(subjects) < 2:
        raise InputError(
            f"there is no split valid, and none can be held out of {len(subjects)} training subject; "
            "give a folder valid or a subject_pattern that tells subjects apart."
        )
    moved = (frame["split"] == "train") & frame["subject"].isin(draw(subjects, fraction, seed))
    return frame.assign(split=frame["split"].mask(moved, "valid"))
