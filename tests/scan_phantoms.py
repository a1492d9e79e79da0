"""Small head-like volumes and pictures for the tests of own scans."""

import json
from collections.abc import Iterable, Sequence
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from dinodp import store
from dinodp.datasets.geometry import VolumeGeometry
from dinodp.scans.detecting.model_file import KIND

SHAPE = (36, 44, 30)  # right, front, top
SPACING = 2.0
AFFINE = np.array([[2.0, 0, 0, -30], [0, 2.0, 0, -50], [0, 0, 2.0, -20], [0, 0, 0, 1]])
MAP_SHAPE, OUTSIDE = (12, 14, 6), -5.0
LESION_AT, LESION_RADIUS = (24, 28, 16), 4
MIXTURE = {"family": "dpmm", "components": 16, "epochs": 2}
FAST = {"backbone": "classical", "resolution": 168, "method": MIXTURE, "slice_step": 2}
FAST["window"] = (0, 900)
FAST_FIT = [
    "--backbone", "classical", "--resolution", "168", "--method", "dpmm", "components=16", "epochs=2",
    "--score", "log_likelihood", "--slice-step", "2",
]  # fmt: skip
WINDOW = ["--window", "0", "900"]  # so that the lesion does not darken the rest
ORIENTATIONS = [
    np.column_stack([axes, flips]) for axes in permutations(range(3)) for flips in product((1, -1), repeat=3)
]

FLIPPED = np.array([[2, -1], [0, 1], [1, -1]])  # one of them


def head(seed: int, *, lesion: bool = False) -> np.ndarray:
    """Voxels int16 on canonical axes: textured ellipsoid with an asymmetric bright core, background 0."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    centre, radius = (np.array(SHAPE) - 1) / 2, np.array(SHAPE) / 2 - 2
    inside = (((grid - centre) / radius) ** 2).sum(axis=-1) < 1
    core = (((grid - centre - [4, 2, 0]) / (0.4 * radius)) ** 2).sum(axis=-1) < 1
    texture = ndimage.gaussian_filter(generator.normal(size=SHAPE), 1.5)
    values = 300 + 30 * texture / texture.std() + 150 * core
    if lesion:
        values[lesion_mask()] += 450
    return np.where(inside, np.clip(values, 50, None), 0).astype(np.int16)


def lesion_mask() -> np.ndarray:
    """Where the lesion is: a ball."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    return ((grid - np.array(LESION_AT)) ** 2).sum(axis=-1) <= LESION_RADIUS**2


def reoriented(voxels: np.ndarray, affine: np.ndarray, orientation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same volume with its axes stored otherwise: every voxel keeps its place in mm."""
    stored = nib.orientations.apply_orientation(voxels, orientation)
    return stored, affine @ nib.orientations.inv_ornt_aff(orientation, voxels.shape)


def oblique(affine: np.ndarray, degrees: float = 14.0) -> np.ndarray:
    """The affine turned about two axes."""
    angle = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    about_z = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turned = affine.copy()
    turned[:3] = about_x @ about_z @ affine[:3]
    return turned


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write a NIfTI volume with its own type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def healthy_folder(folder: Path, n: int = 5) -> Path:
    """A folder with n healthy volumes."""
    for seed in range(n):
        save(folder / f"h{seed}.nii.gz", head(seed))
    return folder


def bids_tree(root: Path, controls: int = 6, patients: int = 2) -> Path:
    """A BIDS data set of T1w volumes, with lesion masks of the patients in derivatives/lesions.

    The last control has two sessions; sourcedata, derivatives and a FLAIR are there to be left alone.
    """
    lesions = root / "derivatives/lesions"
    rows = ["participant_id\tgroup\tage\tsex"]
    for number in range(1, controls + patients + 1):
        ill, subject = number > controls, f"sub-{number:02d}"
        rows.append(f"{subject}\t{'patient' if ill else 'control'}\t{30 + number}\t{'FM'[number % 2]}")
        for session in ("1", "2") if number == controls else ("1",):
            stem = f"{subject}/ses-{session}/anat/{subject}_ses-{session}"
            scan = save(root / f"{stem}_acq-mprage_T1w.nii.gz", head(10 * number + int(session), lesion=ill))
            scan.with_name(scan.name.replace(".nii.gz", ".json")).write_text("{}")
        if ill:
            save(lesions / f"{stem}_label-lesion_mask.nii.gz", lesion_mask().astype(np.uint8))
    save(root / "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz", head(99))
    save(root / "sourcedata/sub-01/anat/sub-01_T1w.nii.gz", head(98))
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    (root / "README").write_text("Phantoms drawn by the tests of dinodp. Nobody was scanned.\n" * 4)
    raw, derived = {"DatasetType": "raw"}, {"DatasetType": "derivative", "GeneratedBy": [{"Name": "by hand"}]}
    for folder, more in ((root, raw), (lesions, derived)):
        content = {"Name": "Phantoms", "BIDSVersion": "1.10.0", **more}
        (folder / "dataset_description.json").write_text(json.dumps(content))
    return root


def photo(seed: int, *, spot: bool = False, size: tuple[int, int] = (80, 112), bits: int = 8) -> np.ndarray:
    """A grey picture [H, W] of smooth texture, uint8 or uint16, with a bright spot at row 30, column 60."""
    generator = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(generator.normal(size=size), 3)
    values = 0.4 + 0.08 * texture / texture.std()
    if spot:
        rows, columns = np.ogrid[: size[0], : size[1]]
        values[(rows - 30) ** 2 + (columns - 60) ** 2 <= 64] += 0.4
    top = 2**bits - 1
    return np.round(np.clip(values, 0, 1) * top).astype(np.uint8 if bits == 8 else np.uint16)


def save_photo(path: Path, pixels: np.ndarray) -> Path:
    """Write a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def resign(model: Path) -> None:
    """Give an edited model file the digest of what it holds now, as a stranger would."""
    store.seal(Path(model), KIND)


def write_series(
    folder: Path, volume: np.ndarray, affine: np.ndarray, *, order: Iterable[int] | None = None, **tags: object
) -> Path:
    """A DICOM series of canonical voxels [right, front, top] with an affine in mm (right, front, top)."""
    pydicom = pytest.importorskip("pydicom")
    folder.mkdir(parents=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    for number in order if order is not None else range(volume.shape[2]):
        item = pydicom.Dataset()
        item.file_meta = pydicom.dataset.FileMetaDataset()
        item.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        item.SOPClassUID = pydicom.uid.MRImageStorage
        item.SOPInstanceUID, item.SeriesInstanceUID = f"1.2.3.{number + 1}", "1.2.4"
        item.Rows, item.Columns = volume.shape[1], volume.shape[0]
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 1
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.ImageOrientationPatient = [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]
        item.ImagePositionPatient = list(lps[:3, 2] * number + lps[:3, 3])
        item.PixelSpacing = [spacing[1], spacing[0]]
        for name, value in tags.items():
            setattr(item, name, value)
        item.PixelData = np.ascontiguousarray(volume[:, :, number].T).tobytes()
        item.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)
    return folder


def write_predictions(
    folder: Path,
    shift: float = 1.0,
    names: Sequence[str] = ("p1_a", "p1_b", "p2_a", "p3_a", "p4_a"),
    healthy: Sequence[str] = ("p4_a",),
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Maps of random scores, higher by ``shift`` in lesions; returns scores, lesions and what was scored by name.

    The recorded score of a slice is the mean of what was scored in it.
    """
    generator, scans, truth = np.random.default_rng(0), [], {}
    for number, name in enumerate(names):
        scores = generator.normal(size=MAP_SHAPE).astype(np.float32)
        lesion = np.zeros(MAP_SHAPE, dtype=bool)
        if name not in healthy:
            lesion[3:6, 4 : 7 + number, 2:4] = True
        scores[lesion] += shift
        scored = np.zeros(MAP_SHAPE, dtype=bool)
        scored[1:-1, 1:-1, 1:-1] = True
        scored[3, 4, 2] = False  # a lesion voxel that was not scored
        scores[~scored] = OUTSIDE
        orientation = ORIENTATIONS[(7 * number) % len(ORIENTATIONS)]
        stored, affine = reoriented(scores, AFFINE, orientation)
        save(folder / f"maps/{name}.nii.gz", stored, affine)
        on_disk = VolumeGeometry(stored.shape, affine, 2).slice_on_disk
        slices = [
            {"slice": on_disk(index), "score": float(scores[:, :, index][scored[:, :, index]].mean())}
            for index in range(1, MAP_SHAPE[2] - 1)
        ]
        scans.append(
            {"name": name, "map": f"maps/{name}.nii.gz", "outside": OUTSIDE, "score": float(number), "slices": slices}
        )
        truth[name] = (scores, lesion, scored)
    record = {
        "axis": "axial", "failed": {}, "frame": None, "backbone": {"backbone": "classical"}, "map_range": [-6.0, 9.0],
        "model": folder.name, "scans": scans, "thresholds": {"fpr10": 1.0, "fpr05": 1.5, "fpr01": 2.5},
    }  # fmt: skip
    (folder / "predictions.json").write_text(json.dumps(record))
    return truth
