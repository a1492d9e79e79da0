"""What is said of a scan that is scored all the same."""

from dinodp.scans.detecting.model_file import FittedDetector
from dinodp.scans.reading.scan import Scan


def notes_on(scan: Scan, detector: FittedDetector) -> str:
    """That a scan is one of the healthy ones, or an image of another size; empty where there is nothing to say."""
    said = []
    if scan.digest in detector.origin.scans_sha256:
        said.append("it is, voxel for voxel, one of the scans that the model was fitted or calibrated on")
    sizes, shape = detector.scorer.preparation.healthy.sizes, scan.foreground.shape[1:]
    if scan.kind == "image" and not all(least <= n <= most for n, (least, most) in zip(shape, sizes, strict=True)):
        heights, widths = (_range(*pair) for pair in sizes)
        said.append(
            f"it has {shape[0]} x {shape[1]} pixels, but the healthy images have {heights} x {widths} (height x "
            "width): what it shows may be seen at another scale"
        )
    return "; ".join(said)


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"
