"""What made a file: library digest, package versions, configuration, machine."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path

LIBRARY = Path(__file__).parents[1]
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


def digest_of_files(paths: Iterable[Path]) -> str:
    """Return the first 16 hexadecimal digits of the sha256 of the files' names and bytes, in sorted order."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def library_digest() -> str:
    """Digest of every module of the library: the code that made a result."""
    return digest_of_files(LIBRARY.rglob("*.py"))


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that results depend on, and of Python."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
