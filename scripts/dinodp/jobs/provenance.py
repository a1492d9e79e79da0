"""Versions of what made a file."""

import importlib.metadata
import platform

PACKAGES = (
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "scikit-learn",
    "h5py",
    "pandas",
    "nibabel",
    "matplotlib",
    "pillow",
)


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that results depend on, and of Python."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
