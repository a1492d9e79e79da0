"""A user's own scans: fit on healthy ones, predict anomaly maps of new ones in the geometry of the input."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dinodp.scans.detecting.detector import AnomalyDetector

__all__ = ["AnomalyDetector"]


def __getattr__(name: str) -> Any:
    """The detector, imported when it is asked for: torch takes seconds, and the command line needs none for help."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dinodp.scans.detecting.detector import AnomalyDetector

    return AnomalyDetector
