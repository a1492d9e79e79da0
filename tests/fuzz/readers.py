"""Every reader that takes files from strangers: small true files, how they are damaged, and what reads them."""

import gzip
import io
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml
from mutator import BINARY, TEXT, mutated, with_checksums
from PIL import Image
from project_copy import ROOT

from dinodp import store
from dinodp.configuration import Configuration
from dinodp.datasets.archives import unpack
from dinodp.datasets.dicom import read_placed_series, read_series
from dinodp.datasets.manifest import image_row, image_size, make_manifest, read_manifest, write_manifest
from dinodp.datasets.volumes import open_nifti, open_volume
from dinodp.embeddings import EmbeddingReader
from dinodp.errors import InputError
from dinodp.images import read_image, read_mask, read_values
from dinodp.jobs.files import write_json
from dinodp.jobs.origin import Origin, origin_path, sha256

GREY = np.arange(96, dtype=np.uint8).reshape(8, 12)  # too many values for a mask
SHAPE = np.kron(np.array([[0, 255], [255, 0]], dtype=np.uint8), np.ones((8, 8), dtype=np.uint8))  # also a mask
CATALOG = yaml.safe_load((ROOT / "config/catalog.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Target:
    """A reader: ``seeds`` makes its true files, ``finish`` what a damaged one is still given, ``name`` its file."""

    name: str
    seeds: Callable[[Path], Sequence[bytes]]
    read: Callable[[Path], object]
    damages: Sequence[Callable[..., None]] = BINARY
    finish: Callable[[bytes, random.Random], bytes] = lambda data, draw: data
    place: Callable[[Path, Path, bytes], Path] | None = None

    def inputs(self, folder: Path, seed: int) -> Callable[[int], Path]:
        """Writes input ``number``, the same in every run, and says where."""
        seeds = list(self.seeds(folder))

        def write(number: int) -> Path:
            draw = random.Random(f"{self.name} {seed} {number}")
            data = seeds[number] if number < len(seeds) else self.damaged(seeds, draw)
            if self.place is not None:
                return self.place(folder, folder / self.name, data)
            path = folder / self.name
            path.write_bytes(data)
            return path

        return write

    def damaged(self, seeds: Sequence[bytes], draw: random.Random) -> bytes:
        """A damaged file."""
        return self.finish(mutated(seeds, draw, self.damages), draw)


# --- images and volumes ----------------------------------------------------------------------------------------------


def _saved(array: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def _images(kind: str, *, deep: bool = False, **options: object) -> Callable[[Path], list[bytes]]:
    arrays = [SHAPE, GREY, np.repeat(GREY[:, :, None], 3, axis=2)]
    arrays += [GREY.astype(np.uint16) * 257] if deep else []
    return lambda folder: [_saved(array, kind, **options) for array in arrays]


def _tiffs(folder: Path) -> list[bytes]:
    packed = [_saved(GREY, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "packbits")]
    return [*_images("TIFF", deep=True)(folder), _saved(GREY.astype(np.float32) / 96, "TIFF"), *packed]


def _read_picture(path: Path) -> None:
    sentences = []
    for read in (image_size, read_image, read_mask, read_values):
        try:
            read(path)
        except InputError as error:
            sentences.append(error)
    if sentences:
        raise sentences[0]


def _niftis(folder: Path) -> list[bytes]:
    voxels = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    volumes = [voxels, voxels.astype(np.float32), voxels.astype(np.uint8), np.stack([voxels] * 2, axis=3)]
    images = [nib.Nifti1Image(volume, np.diag([1.0, 2.0, 3.0, 1.0])) for volume in volumes]
    images.append(nib.Nifti2Image(voxels, np.eye(4)))
    return [image.to_bytes() for image in images]


def _read_volume(path: Path) -> None:
    try:
        open_volume(path)
    finally:
        open_nifti(path).stack(2)


def _packed(data: bytes, draw: random.Random) -> bytes:
    """Compressed after the damage; some are damaged again."""
    packed = gzip.compress(data, mtime=0)
    return mutated([packed], draw, BINARY) if draw.random() < 0.2 else packed


def _some_checksums(data: bytes, draw: random.Random) -> bytes:
    return with_checksums(data) if draw.random() < 0.7 else data


# --- DICOM: the damaged file is one of three slices of a series ------------------------------------------------------


def dicom_slice(number: int) -> bytes:
    """A small true slice."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID = f"1.2.3.{number + 1}"
    item.SeriesInstanceUID, item.Modality, item.InstanceNumber = "1.2.3", "MR", number
    item.Rows, item.Columns, item.SamplesPerPixel = *GREY.shape, 1
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 0
    item.PhotometricInterpretation, item.RescaleSlope, item.RescaleIntercept = "MONOCHROME2", "2", "-5"
    item.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    item.ImagePositionPatient = ["0", "0", str(3 * number)]
    item.PixelSpacing, item.SliceThickness = ["1", "1.5"], "3"
    item.PixelData = (GREY.astype(np.uint16) + number).tobytes()
    stream = io.BytesIO()
    item.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _series(folder: Path, path: Path, data: bytes) -> Path:
    path.mkdir(exist_ok=True)
    for number in (0, 2):
        if not (file := path / f"{number}.dcm").is_file():
            file.write_bytes(dicom_slice(number))
    (path / "1.dcm").write_bytes(data)
    return path


def _read_dicom(path: Path) -> None:
    read_placed_series(path)
    read_series(path)


# --- texts -----------------------------------------------------------------------------------------------------------


def _manifests(folder: Path) -> list[bytes]:
    images = [folder / f"{number}.png" for number in range(4)]
    for image in images:
        Image.fromarray(GREY).save(image)
    kinds = [("train", "normal"), ("valid", "normal"), ("test", "normal"), ("test", "anomalous")]
    rows = [image_row(*kind, image, image, "s1", 3) for kind, image in zip(kinds, images, strict=True)]
    write_manifest(make_manifest(rows), folder / "true.csv")
    return [(folder / "true.csv").read_bytes()]


def _with_origin(folder: Path, path: Path, data: bytes) -> Path:
    """A stranger's table fits its digest, whatever it holds."""
    path.write_bytes(data)
    write_json(origin_path(path), asdict(Origin(sha256(data), "", {})))
    return path


def _configurations(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "config").glob("*.yaml")) if path.name != "catalog.yaml"]


def _read_configuration(path: Path) -> None:
    """As Snakemake reads it, which itself refuses what is no YAML, over the catalog."""
    try:
        overlay = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError):
        return
    if isinstance(overlay, dict):
        Configuration.of(merged(CATALOG, overlay))


def merged(below: dict, above: dict) -> dict:
    """Mappings key by key, as Snakemake lays one configuration over another."""
    both = {key for key in above if isinstance(above[key], dict) and isinstance(below.get(key), dict)}
    return {**below, **above, **{key: merged(below[key], above[key]) for key in both}}


# --- archives and HDF5 -----------------------------------------------------------------------------------------------


def _zips(folder: Path) -> list[bytes]:
    found = []
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr("train/a.png", _saved(GREY, "PNG"))
            archive.writestr("b.txt", "text " * 9)
        found.append(stream.getvalue())
    return found


def _tars(folder: Path) -> list[bytes]:
    found = []
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as archive:
            for name, data in (("train/a.png", _saved(GREY, "PNG")), ("b.txt", b"text")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        found.append(stream.getvalue())
    return found


def _unpack(path: Path) -> None:
    target = path.parent / "unpacked"
    try:
        unpack(path, target)
    finally:
        assert sorted(p.name for p in path.parent.iterdir()) in ([path.name], [path.name, target.name])
        shutil.rmtree(target, ignore_errors=True)


def _models(folder: Path) -> list[bytes]:
    path = folder / "true.h5"
    state = {"means": np.ones((2, 3), np.float32), "concentration": 2.0, "step_count": 3}
    store.write_state(path, {"family": "dpmm", "seed": 0}, state, {"epoch": [1, 2]})
    found = path.read_bytes()
    path.unlink()
    return [found]


def _scores(folder: Path) -> list[bytes]:
    path, maps = folder / "true.h5", np.ones((2, 3, 3), np.float32)
    names = ("cosine", "oracle/gt0")
    store.write_maps(path, {}, dict.fromkeys(names, maps), dict.fromkeys(names, maps[:, 0, 0]))
    found = path.read_bytes()
    path.unlink()
    return [found]


def _embeddings(folder: Path) -> list[bytes]:
    path = folder / "true.h5"
    with store.writing(path, "embeddings", {}) as file:
        file.create_dataset("tokens", data=np.ones((2, 3, 3, 4), np.float16), chunks=(1, 3, 3, 4), track_times=False)
    found = path.read_bytes()
    path.unlink()
    return [found]


def _read_embeddings(path: Path) -> None:
    reader = EmbeddingReader(path, grid=None)
    reader.read(range(reader.n_images))


def _read_scores(path: Path) -> None:
    store.read_maps(path)
    store.read_image_scores(path)


TARGETS = {
    target.name: target
    for target in (
        Target("image.png", _images("PNG", deep=True), _read_picture, finish=_some_checksums),
        Target("image.tif", _tiffs, _read_picture),
        Target("image.jpg", _images("JPEG"), _read_picture),
        Target("image.bmp", _images("BMP"), _read_picture),
        Target("volume.nii", _niftis, _read_volume),
        Target("volume.nii.gz", _niftis, _read_volume, finish=_packed),
        Target("series", lambda folder: [dicom_slice(1)], _read_dicom, place=_series),
        Target("manifest.csv", _manifests, read_manifest, damages=TEXT, place=_with_origin),
        Target("run.yaml", _configurations, _read_configuration, damages=TEXT),
        Target("archive.zip", _zips, _unpack),
        Target("archive.tar", _tars, _unpack),
        Target("model.h5", _models, store.read_state),
        Target("scores.h5", _scores, _read_scores),
        Target("embeddings.h5", _embeddings, _read_embeddings),
    )
}
