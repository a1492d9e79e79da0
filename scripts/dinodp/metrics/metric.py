"""What a file in ``definitions`` says of its metric."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Metric:
    """A metric: how it is computed, and how it is shown. Its name is that of its file.

    ``compute`` gives a value for each resample, [...], or one where its input has no leading axis:
    of ``pixels``, from `counts.CumulativeCounts`; at ``thresholds``, from `counts.CountsAbove`, [..., threshold] (names
    and headings get the threshold's appended); of ``images``, from scores [n], labels [n] and weights [..., n]; of
    ``lesions``, from false regions per scan and sensitivity, each [..., threshold], at each number of false regions
    [..., limit] (names and headings get it appended).
    ``tolerance``: the share of a published value within which ours counts as reproduced.
    ``rank``: place among the metrics, the lowest first. ``decimals``: of the value as it is shown, in percent or not.
    """

    of: Literal["pixels", "thresholds", "images", "lesions"]
    compute: Callable[..., Any]
    heading: str
    rank: int = 100
    decimals: int = 2
    percent: bool = True
    tolerance: float = 0.05
    higher_is_better: bool = True

    @property
    def shown(self) -> str:
        """The heading, with the direction where it is not the usual one."""
        return self.heading if self.higher_is_better else f"{self.heading} (lower is better)"

    @property
    def factor(self) -> float:
        """From a value in files to the one shown."""
        return 100.0 if self.percent else 1.0
