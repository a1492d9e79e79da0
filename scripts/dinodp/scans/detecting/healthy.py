"""What the healthy scans were like, and whether a new scan is like them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.datasets.geometry import LARGEST_TILT, Affine
from dinodp.datasets.volumes import PERCENTILES, window_of
from dinodp.errors import InputError, require_finite
from dinodp.scans.detecting.look import Look, Looks
from dinodp.scans.reading.scan import Scan

VALUE_FACTOR = 4.0  # a range of values may be this much narrower or wider than any healthy one, and shifted as much
SPACING_FACTOR = 2.0  # likewise for distances between voxels
FIELD_MARGIN = 1.05  # the field of view is this much wider than the largest healthy foreground
LARGEST_CANVAS = 8192  # pixels along a side of the field of view, and of a slice at its scale
IMPOSSIBLE_FACTOR = 10.0  # sizes that differ by as much are of another unit, and not even forced
SIZE_FACTOR = 4.0  # by which the body in one healthy scan may be larger or smaller than in most
IDEAL_SPACING_RATIO = 2.5  # voxels of a slice that are longer than this: slices should be cut along another axis


@dataclass(frozen=True)
class Measures:
    """Of one scan: kind, channels, bit depth of an image, ends of its values, spacing and extent in mm of a volume.

    ``spacing`` is between slices, rows and columns; ``extent`` the larger side of the foreground within the slices.
    """

    kind: str
    channels: int
    depth: int
    low: float
    high: float
    spacing: tuple[float, float, float] | None
    extent: float
    shape: tuple[int, int] = (0, 0)  # height and width of a slice, pixels
    tilt: float = 0.0  # degrees of a volume's axes against those along which it is sliced
    look: Look | None = None  # of a volume

    @classmethod
    def median(cls, measured: Sequence["Measures"]) -> "Measures":
        """The first of ``measured`` with the median of the numbers of all."""
        low, high, extent = (
            float(np.median([getattr(item, name) for item in measured])) for name in ("low", "high", "extent")
        )
        return replace(measured[0], low=low, high=high, extent=extent)

    @classmethod
    def of(cls, scan: Scan) -> "Measures":
        """Measure a scan. Raises InputError when its foreground has no contrast."""
        low, high = window_of(scan.values[scan.foreground], PERCENTILES, scan.path)
        sizes = (1.0, 1.0) if scan.spacing is None else scan.spacing[1:]
        sides = [(last + 1 - first) * size for (first, last), size in zip(bounds(scan.foreground), sizes, strict=True)]
        tilt = 0.0 if scan.geometry is None else scan.geometry.tilt
        height, width = scan.foreground.shape[1:]
        return cls(
            scan.kind, scan.channels, scan.depth, low, high, scan.spacing, max(sides), (height, width), tilt,
            Look.of(scan, (low, high)),
        )  # fmt: skip


def bounds(foreground: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last row, and first and last column, of the foreground over all slices."""
    ends = [np.flatnonzero(foreground.any(axis=axes))[[0, -1]] for axes in ((0, 2), (0, 1))]
    return [(int(first), int(last)) for first, last in ends]


@dataclass(frozen=True)
class HealthyRange:
    """Ranges over the healthy scans, kept in the model. Lengths in mm; ``side`` is the field of view of a slice."""

    kind: str
    channels: int
    depth: int
    low: tuple[float, float]
    high: tuple[float, float]
    width: tuple[float, float]
    spacing: tuple[tuple[float, float], ...]  # of slices, rows and columns: smallest and largest; empty for images
    side: float
    pixel: float  # the finest in-plane spacing: pixels of the field of view
    sizes: tuple[tuple[int, int], ...] = ()  # smallest and largest height and width in pixels
    frame: tuple[tuple[float, ...], ...] | None = None  # of oblique volumes (`VolumeGeometry`)
    looks: Looks | None = None  # of volumes

    def __post_init__(self) -> None:
        """Raises InputError for what no scans give: the numbers may come from a file."""
        pairs = {"low": self.low, "high": self.high, "width": self.width}
        pairs |= dict(zip(("slices", "rows", "columns"), self.spacing, strict=False))
        for name, (least, most) in pairs.items():
            require_finite(f"The healthy range's {name}", least, most)
            if least > most:
                raise InputError(f"The healthy range's {name} runs from {least:g} down to {most:g}.")
        self._require_lengths()
        self._require_kind()
        if self.axes is not None and not (
            self.axes.shape == (3, 3) and np.allclose(self.axes.T @ self.axes, np.eye(3), atol=1e-3)
        ):
            raise InputError("The healthy range's frame holds no three axes at right angles.")

    @property
    def axes(self) -> Affine | None:
        """The frame as an array [3, 3]."""
        return None if self.frame is None else np.array(self.frame, dtype=np.float64)

    def _require_lengths(self) -> None:
        require_finite("The field of view", self.side, self.pixel)
        if self.width[0] < 0 or min((*(pair[0] for pair in self.spacing), self.side, self.pixel)) <= 0:
            raise InputError("The healthy range has a length or a width that is not above 0.")
        if self.kind == "volume" and self.side / self.pixel > LARGEST_CANVAS:
            raise InputError(
                f"The field of view measures {self.side / self.pixel:.0f} pixels; at most {LARGEST_CANVAS} are allowed."
            )

    def _require_kind(self) -> None:
        depths, spacings = {"volume": ((0,), 3), "image": ((8, 16), 0)}.get(self.kind, ((), 0))
        if (
            self.depth not in depths
            or len(self.spacing) != spacings
            or self.channels not in (1, 3)
            or [len(pair) for pair in self.sizes] != [2, 2]
        ):
            raise InputError(
                f"The healthy scans are of an unknown kind ({self.kind!r}, {self.channels!r} channels, {self.depth!r} "
                f"bits, {len(self.spacing)} spacings)."
            )

    @classmethod
    def over(
        cls, names: Sequence[str], measures: Sequence[Measures], frame: Affine | None = None
    ) -> "HealthyRange":
        """Ranges over scans. Raises InputError for scans of several kinds."""
        require_one_kind(names, measures)
        shapes = zip(*(item.shape for item in measures), strict=True)
        spacings = [item.spacing for item in measures if item.spacing is not None]
        looks = [item.look for item in measures if item.look is not None]
        return cls(
            kind=measures[0].kind,
            channels=max(item.channels for item in measures),
            depth=measures[0].depth,
            low=_ends([item.low for item in measures]),
            high=_ends([item.high for item in measures]),
            width=_ends([item.high - item.low for item in measures]),
            spacing=tuple(_ends(values) for values in zip(*spacings, strict=True)),
            side=FIELD_MARGIN * max(item.extent for item in measures),
            pixel=min((min(spacing[1:]) for spacing in spacings), default=1.0),
            sizes=tuple((min(lengths), max(lengths)) for lengths in shapes),
            frame=None if frame is None else tuple(tuple(row) for row in frame.tolist()),
            looks=Looks.over(looks) if looks else None,
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "HealthyRange":
        """From what `to_json` gave."""
        pairs = {name: tuple(content[name]) for name in ("low", "high", "width")}
        frame = content["frame"] and tuple(tuple(row) for row in content["frame"])
        lists = {name: tuple(tuple(pair) for pair in content[name]) for name in ("spacing", "sizes")}
        looks = None if content["looks"] is None else Looks.from_json(content["looks"])
        return cls(**{**content, **pairs, **lists, "frame": frame, "looks": looks})

    def to_json(self) -> dict[str, Any]:
        """As a mapping of plain values."""
        return asdict(self)

    def require_same_kind(self, scan: Scan, measures: Measures) -> None:
        """Raise InputError when a scan is of another kind: volume or image, colour or grey, 8 or 16 bits."""
        for what in ("kind", "channels", "depth"):
            if getattr(measures, what) != getattr(self, what):
                raise InputError(
                    f"{scan.path} belongs to {_in_words(measures, what)}, but the model was fitted on "
                    f"{_in_words(self, what)}."
                )

    def require_possible(self, scan: Scan, measures: Measures) -> None:
        """Raise InputError when the pixels of a volume are of another order of size, as those in another unit are."""
        if measures.spacing is None:
            return
        (smallest, _), (_, largest) = min(self.spacing[1:]), max(self.spacing[1:])
        sizes = measures.spacing[1:]
        if min(sizes) < smallest / IMPOSSIBLE_FACTOR or max(sizes) > largest * IMPOSSIBLE_FACTOR:
            raise InputError(
                f"{scan.path}: its pixels measure {sizes[0]:.3g} x {sizes[1]:.3g} mm, but those of the healthy scans "
                f"{smallest:.3g} to {largest:.3g} mm: correct its voxel sizes or their unit (--force does not help)."
            )

    def require_similar(self, scan: Scan, measures: Measures) -> None:
        """Raise InputError when values, spacing or size lie far outside those of the healthy scans."""
        self.require_values(scan.path, measures)
        if measures.spacing is not None:
            self._require_spacing(scan, measures.spacing)
            if measures.tilt > LARGEST_TILT:
                raise InputError(
                    f"{scan.path}: its axes are turned by {measures.tilt:.0f} degrees against those along which the "
                    f"model slices, of which at most {LARGEST_TILT:.0f} are clear: resample it."
                )
            if measures.extent > self.side:
                raise InputError(
                    f"{scan.path}: its foreground measures {measures.extent:.0f} mm within the slices, but the field "
                    f"of view of the healthy scans is {self.side:.0f} mm (another body part, or not skull-stripped?)."
                )

    def require_values(self, name: object, measures: Measures) -> None:
        """Raise InputError when the values of a scan lie far outside the range."""
        width, reach = measures.high - measures.low, VALUE_FACTOR * self.width[1]
        lowest, highest = self.low[0] - reach, self.high[1] + reach
        narrow = width < self.width[0] / VALUE_FACTOR and self.depth != 8
        wide = width > reach and self.depth != 8  # 8-bit images differ in contrast
        if narrow or wide or measures.low < lowest or measures.high > highest or self._negative(measures):
            raise InputError(
                f"{name}: its values run from {measures.low:g} to {measures.high:g}, but those of the healthy "
                f"scans from {self.low[0]:g} to {self.high[1]:g}: another modality or scaling."
            )

    def _negative(self, measures: Measures) -> bool:
        """Whether a scan has negative values well below a healthy range that has none."""
        return self.low[0] >= 0 and measures.low < -0.1 * self.width[0]

    def _require_spacing(self, scan: Scan, spacing: tuple[float, float, float]) -> None:
        for what, size, (smallest, largest) in zip(("slices", "rows", "columns"), spacing, self.spacing, strict=True):
            if not smallest / SPACING_FACTOR <= size <= largest * SPACING_FACTOR:
                raise InputError(
                    f"{scan.path}: its {what} lie {size:.3g} mm apart, but those of the healthy scans "
                    f"{smallest:.3g} to {largest:.3g} mm: resample it, or fit a model on scans like it."
                )


def require_one_kind(names: Sequence[str], measures: Sequence[Measures]) -> None:
    """Raise InputError for volumes among images, grey among colour, 8 among 16 bits."""
    for what in ("kind", "channels", "depth"):
        found = {_in_words(item, what): name for name, item in zip(names, measures, strict=True)}
        if len(found) > 1:
            examples = " and ".join(f"{words} ({name})" for words, name in sorted(found.items()))
            raise InputError(f"The healthy scans are {examples}: fit a model for each.")


def require_similar_size(name: str, measures: Measures, median: Measures) -> None:
    """Raise InputError when the body in one healthy volume is much larger or smaller than in most."""
    factor = measures.extent / median.extent
    if measures.kind == "volume" and not 1 / SIZE_FACTOR <= factor <= SIZE_FACTOR:
        raise InputError(
            f"{name}: its foreground measures {measures.extent:.4g} mm within the slices, but in most healthy scans "
            f"about {median.extent:.4g} mm: voxel sizes in another unit, or another body part."
        )


def require_sensible_axis(scan: Scan, axis: str) -> None:
    """Raise InputError when the voxels within the slices are much longer one way than the other."""
    if scan.spacing is None:
        return
    short, long = sorted(scan.spacing[1:])
    if long > IDEAL_SPACING_RATIO * short:
        raise InputError(
            f"{scan.path}: the pixels of its {axis} slices measure {short:.3g} x {long:.3g} mm: cut it along the axis "
            "of its thick slices (--axis sagittal, coronal or axial)."
        )


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _in_words(item: "Measures | HealthyRange", what: str) -> str:
    if what == "kind":
        return f"{item.kind}s"
    if what == "channels":
        return "colour images" if item.channels == 3 else "grey images"
    return f"images of {item.depth} bits"
