"""The HDF5 contracts: embeddings, models and scores. Write to a temporary name, rename when complete.

Every file begins with a line that says its kind, format version and the digest of its content, and carries ``format``,
``format_version``, ``library_digest`` (of the code that makes files of its kind, whoever calls it),
``package_versions``, ``config``, ``made_from`` (JSON; the digest of each input by role) and, in the workflow,
``made_for`` (JSON; `dinodp.jobs.asked`).
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from dinodp import errors
from dinodp.errors import InputError
from dinodp.jobs.asked import made_for, require_made_for
from dinodp.jobs.closure import code_digest
from dinodp.jobs.files import replaced_file
from dinodp.jobs.origin import AGAIN, sha256
from dinodp.jobs.provenance import package_versions

Maps = dict[str, npt.NDArray[np.float32]]
FORMAT_VERSION = 2
FORMATS = {  # each with the module that computes what a file holds
    "embeddings": "dinodp.embeddings.computing",
    "model": "dinodp.families",
    "scores": "dinodp.families",
    "curves": "dinodp.evaluation.test_split",
    "detector": "dinodp.scans.detecting.model_file",
}
LARGE = "embeddings"  # too large to be read whole each time: it has a digest of each image instead
HEAD_BYTES = 512  # the user block of an HDF5 file, which HDF5 itself leaves alone
HEAD = re.compile(
    rb"dinodp ([a-z]+) (\d+) sha256 ([0-9a-f]{64}) bytes ([0-9a-f]{64}) without (\d{1,18}) (\d{1,18})\n\0+"
)
BLOCK_BYTES = 2**20
SIGNATURE = b"\x89HDF\r\n\x1a\n"
IMAGE_DIGESTS = "image_sha256"
MADE_FOR = "made_for"
FOREGROUND = "foreground"  # bool [image, row, col]: patches that show a pixel that is not black
DIGEST_BYTES = 32


def origin_attributes(
    path: Path, kind: str, config: Mapping[str, Any], made_from: Mapping[str, str] | None = None
) -> dict[str, str | int]:
    """The attributes that every file carries; ``made_from``: the digest of each input by its role.

    ``made_for`` (JSON) only where the workflow asks for something at this place.
    """
    wanted = made_for(path)
    return {
        "format": kind,
        "format_version": FORMAT_VERSION,
        "library_digest": code_digest(FORMATS[kind]),
        "package_versions": json.dumps(package_versions(), sort_keys=True),
        "config": json.dumps(dict(config), sort_keys=True),
        "made_from": json.dumps(dict(made_from or {}), sort_keys=True),
        **({MADE_FOR: json.dumps(wanted, sort_keys=True)} if wanted else {}),
    }


@contextmanager
def writing(
    path: Path, kind: str, config: Mapping[str, Any], made_from: Mapping[str, str] | None = None
) -> Iterator[h5py.File]:
    """Open an HDF5 file in memory; it is written under the name ``path`` when the block ends without an error.

    HDF5 itself never writes it: it may crash where it cannot, on a full disk.
    """
    with replaced_file(path) as temporary:
        options: dict[str, Any] = {"driver": "core", "backing_store": False, "userblock_size": HEAD_BYTES}
        with h5py.File(temporary, "w", track_order=False, **options) as file:
            file.attrs.update(origin_attributes(path, kind, config, made_from))
            yield file
            if kind == LARGE and IMAGE_DIGESTS not in file:
                tokens = file["tokens"]
                digests = [image_digest(tokens[index]) for index in range(len(tokens))]
                write_image_digests(file, digests)
            file.flush()
            image = file.id.get_file_image()  # all that follows the head
        temporary.write_bytes(bytes(HEAD_BYTES) + image)
        seal(temporary, kind)


def image_digest(tokens: npt.NDArray[Any]) -> bytes:
    """SHA-256 of the embeddings of one image, as they are stored."""
    return hashlib.sha256(np.ascontiguousarray(tokens).data).digest()


def write_image_digests(file: h5py.File, digests: list[bytes]) -> None:
    """Write the SHA-256 of each image's embeddings, uint8 [image, 32]."""
    values = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(digests), DIGEST_BYTES)
    file.create_dataset(IMAGE_DIGESTS, data=values, track_times=False)


def seal(path: Path, kind: str) -> None:
    """Write the digests of a closed file into its head, as the last thing that is done to it."""
    identity, start, stop = None, 0, 0
    if kind == LARGE:
        with h5py.File(path, "r") as file:
            identity, (start, stop) = _large_digest(file), place_of_images(file)
    whole = bytes_digest(path, start, stop)
    head = f"dinodp {kind} {FORMAT_VERSION} sha256 {identity or whole} bytes {whole} without {start} {stop}\n"
    with path.open("r+b") as stream:
        stream.write(head.encode().ljust(HEAD_BYTES, b"\0"))


def bytes_digest(path: Path, start: int, stop: int, begin: int = HEAD_BYTES) -> str:
    """SHA-256 of the bytes from ``begin`` (after the head), without those from ``start`` to ``stop``."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        for first, last in ((begin, start), (max(stop, begin), path.stat().st_size)):
            stream.seek(first)
            for position in range(first, last, BLOCK_BYTES):
                found.update(stream.read(min(BLOCK_BYTES, last - position)))
    return found.hexdigest()


def place_of_images(file: h5py.File) -> tuple[int, int]:
    """Where the images' embeddings lie in the file: they have digests of their own. (0, 0) where not in one piece."""
    tokens = file["tokens"]
    offset = None if tokens.is_virtual or tokens.chunks else tokens.id.get_offset()
    return (0, 0) if offset is None else (offset, offset + tokens.nbytes)


def _large_digest(file: h5py.File) -> str:
    """The same for embeddings in one file and gathered from shards."""
    tokens, attributes = file["tokens"], sorted((name, str(value)) for name, value in file.attrs.items())
    foreground = file[FOREGROUND][()].tobytes().hex() if FOREGROUND in file else ""
    about = repr((attributes, tokens.shape, str(tokens.dtype)))
    return sha256(about + image_digests(file).tobytes().hex() + foreground)


def image_digests(file: h5py.File) -> npt.NDArray[np.uint8]:
    """SHA-256 of the embeddings of each image, uint8 [image, 32]."""
    digests: npt.NDArray[np.uint8] = file[IMAGE_DIGESTS][()]
    return digests


class Head(NamedTuple):
    """What the first line of a file says: digests of its content and of its bytes but for a range of them."""

    kind: str
    identity: str
    whole: str
    start: int
    stop: int

    @classmethod
    def read(cls, path: Path) -> "Head":
        """Raises InputError for a file that is missing, of another program or version, or has a damaged head."""
        if not path.is_file():
            raise InputError(f"There is no file {path}.")
        try:
            with path.open("rb") as stream:
                head = stream.read(HEAD_BYTES)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}).") from error
        if head.startswith(SIGNATURE):
            raise InputError(
                f"{path} has format version 1 or is of another program; this version of dinodp reads format version "
                f"{FORMAT_VERSION}: {AGAIN}."
            )
        found = HEAD.fullmatch(head)
        if found is None:
            raise InputError(f"{path} is not a readable HDF5 file of dinodp (its head is damaged): {AGAIN}.")
        kind, version, identity, whole, start, stop = (part.decode() for part in found.groups())
        if int(version) != FORMAT_VERSION:
            raise InputError(
                f"{path} has format version {int(version)}; this version of dinodp reads version {FORMAT_VERSION}."
            )
        return cls(kind, identity, whole, int(start), int(stop))


def digest_of(path: Path) -> str:
    """The digest of its content that a file carries in its head; `reading` checks it."""
    return Head.read(path).identity


@contextmanager
def reading(path: Path, kind: str | None = None) -> Iterator[h5py.File]:
    """Open a file of this project for reading, when it is whole: of embeddings all but the images (`image_digests`).

    Raises InputError when the file is missing, damaged, changed, of another kind or version, made for another
    configuration than the workflow asks for, or is put together from shards of which one is missing or damaged; and
    where HDF5 cannot read what the block asks for.
    """
    head = Head.read(path)
    if head.kind not in FORMATS or (kind is not None and head.kind != kind):
        raise InputError(f"{path} holds {head.kind}, but {kind or 'one of ' + ', '.join(FORMATS)} was expected.")
    with _opened(path, head) as file:
        _check_shards(file, path)
        require_made_for(path, made_for_of(file))
        yield file


@contextmanager
def _opened(path: Path, head: Head) -> Iterator[h5py.File]:
    """A file that is as its head says. HDF5, which may not end on damage, opens no other."""
    _require_bytes(path, head)
    with hdf5_errors(path):
        file = h5py.File(path, "r")
    with file:
        identity, place = head.whole, (0, 0)
        if head.kind == LARGE:
            identity, place = _large_digest(file), place_of_images(file)
        if (identity, place) != (head.identity, (head.start, head.stop)):
            raise _changed(path)
        yield file


def require_whole(path: Path) -> None:
    """Raise InputError unless all but the images' embeddings is as it was written: HDF5 may not end on damage."""
    _require_bytes(path, Head.read(path))


def _require_bytes(path: Path, head: Head) -> None:
    if bytes_digest(path, head.start, head.stop) != head.whole:
        raise _changed(path)


def _changed(path: Path) -> InputError:
    return InputError(f"{path} is not as it was written: it was changed, cut or damaged; {AGAIN}.")


def hdf5_errors(path: Path) -> AbstractContextManager[None]:
    """`dinodp.errors.hdf5_errors`, for a file that can be made again."""
    return errors.hdf5_errors(path, AGAIN)


def _check_shards(file: h5py.File, path: Path) -> None:
    """HDF5 itself would read zeros where a source of a virtual data set is missing, and opens one that is damaged."""
    for item in file.values():
        if isinstance(item, h5py.Dataset) and item.is_virtual:
            names = [source.file_name for source in item.virtual_sources()]
            if absent := [name for name in names if not (path.parent / name).is_file()]:
                raise InputError(
                    f"{path} is put together from shards, of which {', '.join(absent)} is missing beside it: keep the "
                    "shards, or make them again with `snakemake --forcerun gather_embeddings`."
                )
            for name in names:
                require_whole(path.parent / name)


def made_for_of(file: h5py.File) -> dict[str, str]:
    """What of the configuration an open file was made for, by level."""
    found: dict[str, str] = json.loads(file.attrs.get(MADE_FOR, "{}"))
    return found


def inputs_of(file: h5py.File) -> dict[str, str]:
    """The digests of what an open file was made from, by role."""
    found: dict[str, str] = json.loads(file.attrs["made_from"])
    return found


def read_inputs(path: Path, kind: str) -> dict[str, str]:
    """`inputs_of` a file."""
    with reading(path, kind) as file:
        return inputs_of(file)


def config_of(file: h5py.File) -> dict[str, Any]:
    """The configuration that made an open file."""
    config: dict[str, Any] = json.loads(file.attrs["config"])
    return config


def write_state(
    path: Path,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    history: Mapping[str, Any],
    kind: str = "model",
    made_from: Mapping[str, str] | None = None,
) -> None:
    """Write a model: ``state`` (arrays and numbers, group ``state``) and ``history`` (one array per quantity)."""
    with writing(path, kind, config, made_from) as file:
        for group, values in (("state", state), ("history", history)):
            for name, value in values.items():
                file.create_dataset(f"{group}/{name}", data=np.asarray(value), track_times=False)


def read_state(
    path: Path, kind: str = "model"
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """Return (config, state, history) of a model file."""
    with reading(path, kind) as file:
        return config_of(file), arrays_of(file, "state"), arrays_of(file, "history")


def arrays_of(file: h5py.File, group: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a group of an open model file; none where there is no such group."""
    return {name: item[()] for name, item in file[group].items()} if group in file else {}


def write_maps(
    path: Path,
    config: Mapping[str, Any],
    maps: Mapping[str, npt.NDArray[np.float32]],
    image_scores: Mapping[str, npt.NDArray[np.float32]],
    made_from: Mapping[str, str] | None = None,
) -> None:
    """Write patch scores [image, row, col] and image scores [image], one float32 data set per score.

    The name of a score that knows the masks ends in the mask rule: ``oracle/gt0``.
    """
    with writing(path, "scores", config, made_from) as file:
        for name, values in maps.items():
            file.create_dataset(name, data=values, dtype="float32", track_times=False)
            file.create_dataset(f"image_scores/{name}", data=image_scores[name], dtype="float32", track_times=False)


def read_maps(path: Path, mask_rule: str = "gt0") -> Maps:
    """Return {score name: float32 [image, row, col]} of a scores file, as they are under a mask rule."""
    with reading(path, "scores") as file:
        return _under({name: item for name, item in file.items() if name != "image_scores"}, mask_rule)


def read_image_scores(path: Path, mask_rule: str = "gt0") -> Maps:
    """Return {score name: float32 [image]} of a scores file, as they are under a mask rule."""
    with reading(path, "scores") as file:
        return _under(file["image_scores"], mask_rule)


def n_scored(path: Path) -> int:
    """How many images a scores file holds, under each of its scores; 0 without any score. Raises InputError for more
    than one number.
    """
    with reading(path, "scores") as file:
        found: set[int] = set()
        file.visititems(lambda _, item: found.add(len(item)) if isinstance(item, h5py.Dataset) else None)
    if len(found) > 1:
        raise InputError(f"The scores in {path} are of different numbers of images: {AGAIN}.")
    return found.pop() if found else 0


def _under(items: Mapping[str, h5py.Dataset | h5py.Group], mask_rule: str) -> Maps:
    """A score that knows the masks is a group with one data set per mask rule; the others are data sets."""
    chosen = {name: item[mask_rule] if isinstance(item, h5py.Group) else item for name, item in items.items()}
    return {name: item[()] for name, item in chosen.items()}


def read_curves(path: Path, score: str, mask_rule: str) -> dict[str, npt.NDArray[np.floating]]:
    """Return {name: values of all points} of the curves of a score; empty where it has none (no masks)."""
    with reading(path, "curves") as file:
        group = file.get(f"{score}/{mask_rule}", {})
        return {name: item[()] for name, item in group.items() if isinstance(item, h5py.Dataset)}
