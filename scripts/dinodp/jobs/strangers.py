"""HDF5 from strangers: looked at in full before anything of it is read or allocated.

HDF5 can name other files, declare what it does not hold, and unpack a little into a lot. This project writes none of
that: plain arrays of numbers, whole and uncompressed. Whatever else a file has is refused.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
from h5py import h5a, h5d, h5g, h5l, h5o, h5t, h5z

from dinodp.errors import InputError, hdf5_errors, visible
from dinodp.jobs.foreign_json import parsed_json

DEEPEST = 4  # groups within groups
MOST_OBJECTS = 4096  # groups and data sets of a file
MOST_DIMENSIONS = 4
LONGEST_NAME = 256  # bytes
MOST_ATTRIBUTES = 64
LONGEST_TEXT = 2**24  # bytes of an attribute
JSON = (b"config", b"made_from", b"package_versions")  # attributes that hold it
FILTERS = {h5z.FILTER_FLETCHER32}  # checksums; no compression is ever written
NUMBERS = {h5t.INTEGER, h5t.FLOAT}
LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link to another file"}


def require_plain(path: Path, require_whole: Callable[[Path], None], *, gathered: bool = False) -> None:
    """Raise InputError for a file that is no HDF5, is damaged, or has anything that this project does not write.

    ``require_whole`` raises InputError for damage before HDF5 opens a file, which may never end on it. ``gathered``: a
    virtual data set is allowed whose sources are plain files below the folder of this one.
    """
    require_whole(path)
    with hdf5_errors(path), h5py.File(path, "r") as file:
        _Examination(path, require_whole, gathered).group(file.id, "", 0)
        _require_attributes(path, file)


class _Examination:
    """Walks through the links of a file by the low-level interface, which follows none of them by itself."""

    def __init__(self, path: Path, require_whole: Callable[[Path], None], gathered: bool) -> None:
        self.path, self.require_whole, self.gathered = path, require_whole, gathered
        self.size, self.seen = path.stat().st_size, 0

    def group(self, group: h5g.GroupID, place: str, depth: int) -> None:
        """Look at everything in a group, and in the groups in it."""
        self.seen += group.get_num_objs()
        if self.seen > MOST_OBJECTS or depth > DEEPEST:
            raise InputError(
                f"{self.path} has more than {MOST_OBJECTS} data sets, or groups nested more than {DEEPEST} deep."
            )
        for name in group:
            inside = f"{place}/{self._name(name)}"
            if (kind := group.links.get_info(name).type) != h5l.TYPE_HARD:
                raise self._refusal(inside, LINKS.get(kind, "a link of an unknown kind"))
            item = h5o.open(group, name)
            if isinstance(item, h5g.GroupID):
                self.group(item, inside, depth + 1)
            elif isinstance(item, h5d.DatasetID):
                self._dataset(item, inside)
            else:
                raise self._refusal(inside, "a named data type")

    def _name(self, name: bytes) -> str:
        if len(name) > LONGEST_NAME or not name.isascii():
            raise InputError(f"{self.path} has a name that is not ASCII or longer than {LONGEST_NAME} characters.")
        return name.decode("ascii")

    def _dataset(self, data: h5d.DatasetID, place: str) -> None:
        self._require_numbers(data, place)
        plist = data.get_create_plist()
        if plist.get_external_count():
            raise self._refusal(place, "values in another file (external storage)")
        if plist.get_layout() == h5d.VIRTUAL:
            self._require_beside(plist, place)
            return
        found = {plist.get_filter(index)[0] for index in range(plist.get_nfilters())}
        if found - FILTERS:
            raise self._refusal(place, "compressed values")
        self._require_stored(data, place)

    def _require_numbers(self, data: h5d.DatasetID, place: str) -> None:
        kind = data.get_type()
        is_boolean = kind.get_class() == h5t.ENUM and data.dtype.kind == "b"
        if (kind.get_class() not in NUMBERS and not is_boolean) or kind.get_size() > 8:
            raise self._refusal(place, "values that are no plain numbers")
        if data.rank > MOST_DIMENSIONS:
            raise self._refusal(place, f"{data.rank} dimensions")

    def _require_stored(self, data: h5d.DatasetID, place: str) -> None:
        """HDF5 itself would fill with zeros what a file declares but does not hold."""
        declared = data.get_type().get_size()
        for length in data.shape:
            declared *= int(length)
        if declared > min(data.get_storage_size(), self.size):
            raise InputError(
                f"{self.path} declares {declared} bytes for {visible(place)}, but holds "
                f"{min(data.get_storage_size(), self.size)}: it is cut off or made up."
            )

    def _require_beside(self, plist: Any, place: str) -> None:
        if not self.gathered:
            raise self._refusal(place, "a virtual data set")
        folder = self.path.parent.resolve()
        for index in range(plist.get_virtual_count()):
            name = plist.get_virtual_filename(index)
            source = (folder / name).resolve()
            if Path(name).is_absolute() or not source.is_relative_to(folder):
                raise self._refusal(place, "a virtual data set with a source that is not beside it")
            if source.is_file():  # `store` tells which ones are missing
                require_plain(source, self.require_whole)

    def _refusal(self, place: str, what: str) -> InputError:
        return InputError(
            f"{self.path} has {what} at {visible(place)}, which dinodp never writes: it is refused unread."
        )


def _require_attributes(path: Path, file: h5py.File) -> None:
    """Attributes of the file: single numbers or texts, neither many nor long."""
    count = h5a.get_num_attrs(file.id)
    if count > MOST_ATTRIBUTES:
        raise InputError(f"{path} has {count} attributes; dinodp writes at most {MOST_ATTRIBUTES}.")
    for index in range(count):
        attribute = h5a.open(file.id, index=index)
        kind = attribute.get_type()
        if attribute.shape != () or kind.get_class() not in {h5t.STRING, *NUMBERS} or kind.get_size() > LONGEST_TEXT:
            raise InputError(f"{path} has an attribute that is neither one text nor one number: it is refused unread.")
        _require_text(path, attribute.name, file)


def _require_text(path: Path, name: bytes, file: h5py.File) -> None:
    value = file.attrs[name] if name.isascii() else b"\xff"
    if isinstance(value, str):  # a lone byte that is not UTF-8 is a surrogate in it
        value = value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes):
        return
    if name in JSON:
        parsed_json(value, path)
    if len(value) > LONGEST_TEXT or not _is_utf8(value):
        raise InputError(f"{path} has an attribute that is no text of UTF-8, or longer than {LONGEST_TEXT} bytes.")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
