"""``dinodp prefetch``: what a run or a model needs from a network, in a folder that can be carried."""

import argparse
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tabulate import tabulate

from dinodp import store
from dinodp.backbones.hub import HUB_NAME, Offer, cached, fetch, offered, require_whole
from dinodp.commands.arguments import Commands, add_command, folder_lock, require_writable, say
from dinodp.commands.benchmark import require_snakemake
from dinodp.datasets import archives
from dinodp.errors import InputError, told
from dinodp.jobs.files import user_path
from dinodp.jobs.logs import configure_logging
from dinodp.jobs.snakefile import project_file
from dinodp.jobs.strangers import require_plain
from dinodp.options.archive import ArchiveOptions
from dinodp.scans.naming import MODEL_SUFFIX

DESCRIPTION = """\
Fetch what a run or a model needs from a network, weights at their pinned revisions and archives, into one folder. Sizes
are said first. What is there already is not fetched again, and a download that broke off goes on where it was.

  dinodp prefetch config/paper.yaml mine.yaml --to carried/
  dinodp prefetch model.h5 --to carried/
  dinodp prefetch config/paper.yaml --to carried/ --check      what is missing; asks no network

Where there is no network: export HF_HOME=.../carried/huggingface HF_HUB_OFFLINE=1, and run in the folder
(dinodp benchmark --directory .../carried) or put its data/ where the run is."""
HOME = "huggingface"  # HF_HOME of the offline machine


class Need(ABC):
    """One thing from a network."""

    what: str

    @abstractmethod
    def is_there(self) -> bool:
        """Whether it is in the folder, whole. Raises InputError where it is there but damaged."""

    @abstractmethod
    def size(self) -> tuple[int | None, int]:
        """Bytes of all of it, where they are known, and of what is still to fetch. Asks the network."""

    @abstractmethod
    def fetch(self) -> None:
        """Fetch what is missing. Raises InputError where it cannot be had."""


@dataclass
class Weights(Need):
    """Those of a backbone; ``sha256`` is what a model says of them."""

    name: str
    revision: str | None
    folder: Path
    sha256: str | None = None
    what: str = field(init=False)

    def __post_init__(self) -> None:
        self.what = f"{self.name}, revision {self.revision or 'main (not pinned)'}"
        self.cache = self.folder / HOME / "hub"

    @cached_property
    def offer(self) -> Offer:
        """What the hub has."""
        return offered(self.name, self.revision, self.cache)

    def is_there(self) -> bool:
        """Whether the cache of the folder holds all files."""
        try:
            snapshot = cached(self.name, self.revision, self.cache)
            require_whole(snapshot)
        except InputError:
            return False
        self._require_same(snapshot)
        return True

    def size(self) -> tuple[int | None, int]:
        """As the hub says."""
        return self.offer.size, self.offer.missing

    def fetch(self) -> None:
        """Into the cache of the folder."""
        snapshot = fetch(self.name, self.revision, self.cache)
        require_whole(snapshot)
        self._require_same(snapshot)

    def _require_same(self, snapshot: Path) -> None:
        from dinodp.backbones.vision_transformer import weights_sha256  # torch takes seconds to import

        if self.sha256 is not None and (found := weights_sha256(snapshot)) != self.sha256:
            raise InputError(
                f"The weights of {self.what} have SHA-256 {found[:12]}, but the model was fitted with "
                f"{self.sha256[:12]}: delete {snapshot}, or ask whoever made the model."
            )


@dataclass
class Archive(Need):
    """The packed file of an archive of the catalog."""

    name: str
    options: ArchiveOptions
    folder: Path
    what: str = field(init=False)

    def __post_init__(self) -> None:
        self.what = f"archive {self.name}"
        self.packed = self.folder / self.options.file

    def is_there(self) -> bool:
        """Whether the file is there, with the catalog's checksum."""
        if self.packed.is_file():
            archives.verify_checksum(self.packed, self.options.sha256)
        return self.packed.is_file()

    def size(self) -> tuple[int | None, int]:
        """As the catalog or the server says. Raises InputError where no program may fetch it, or not yet."""
        if self.options.url is None:
            raise InputError(f"Archive {self.name}: {self.options.instructions} Then put it at {self.packed}.")
        archives.require_accepted_licence(self.name, self.options)
        size = self.options.size or archives.size_of(self.options.url)
        partial = archives.partial_of(self.packed)
        return size, max(0, (size or 0) - (partial.stat().st_size if partial.exists() else 0))

    def fetch(self) -> None:
        """To its place in the folder."""
        assert self.options.url is not None
        archives.download(self.options.url, self.packed, size=self.options.size)
        archives.verify_checksum(self.packed, self.options.sha256)


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    summary = "fetch what a run or a model needs from a network, to carry it to where there is none"
    parser = add_command(commands, "prefetch", run, summary, DESCRIPTION)
    parser.add_argument(
        "files", type=user_path, nargs="+", metavar="CONFIG|MODEL", help="run files (.yaml) or models (.h5)"
    )
    parser.add_argument("--to", dest="out", type=user_path, required=True, metavar="FOLDER", help="the folder")
    parser.add_argument("--check", action="store_true", help="say what is missing in the folder, and fetch nothing")


def run(options: argparse.Namespace) -> int:
    """Say what is needed and fetch what is missing; 1 where a check finds something missing."""
    configure_logging()
    needs = needs_of(options.files, options.out)
    if options.check:
        return _check(needs, options.out)
    require_writable(options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    with folder_lock(options.out):
        _fetch([need for need in needs if not need.is_there()], options.out)
    say(f"{options.out} holds all {len(needs)}. Where there is no network:", *_advice(options.out))
    return 0


def needs_of(files: list[Path], folder: Path) -> list[Need]:
    """What run files, merged, and models need. Raises InputError for what is neither."""
    models = [path for path in files if path.suffix == MODEL_SUFFIX]
    needs = [need for path in models for need in _of_model(path, folder)]
    if run_files := [path for path in files if path.suffix != MODEL_SUFFIX]:
        needs += _of_run(run_files, folder)
    return list({need.what: need for need in needs}.values())


def _of_run(paths: list[Path], folder: Path) -> list[Need]:
    require_snakemake()
    from dinodp.configuration import Configuration
    from dinodp.configuration.merging import merged_files

    configuration = Configuration.of(merged_files([Path(project_file(str(path))) for path in paths]))
    parts = (configuration.archive_of(name) for name in configuration.run.datasets)
    names = dict.fromkeys(part.name for part in parts if part is not None)
    weights = dict.fromkeys(configuration.embeddings[name].weights() for name in configuration.run.embeddings)
    found: list[Need] = [Archive(name, configuration.archives[name], folder) for name in names]
    return [*found, *(Weights(*item, folder) for item in weights if item is not None)]


def _of_model(path: Path, folder: Path) -> list[Need]:
    """None for weights that are included, that came from a folder, or for a descriptor without weights."""
    require_plain(path, store.require_whole)
    with told(f"{path} is not a model that this version of dinodp wrote", KeyError, TypeError, ValueError):
        with store.reading(path) as file:
            config = store.config_of(file)
        backbone, included = config["backbone"], config["weights"]
        name, revision = str(backbone["backbone"]), str(backbone["revision"])
    if name == "classical" or included is not None:
        return []
    if revision == "local" or not HUB_NAME.fullmatch(name):
        raise InputError(f"{path} was fitted with the folder {name}: carry that along and name it with --backbone.")
    return [Weights(name, revision, folder, backbone["weights_sha256"])]


def _check(needs: list[Need], folder: Path) -> int:
    missing = [need.what for need in needs if not need.is_there()]
    say(*(f"missing: {what}" for what in missing))
    say(f"{folder} holds {len(needs) - len(missing)} of {len(needs)} that are needed from a network.")
    return 1 if missing else 0


def _fetch(needs: list[Need], folder: Path) -> None:
    """All sizes are said, and checked against the disk, before the first byte comes."""
    sizes = [need.size() for need in needs]
    rows = [(need.what, _shown(size), _shown(left)) for need, (size, left) in zip(needs, sizes, strict=True)]
    say(*tabulate(rows, headers=("needed", "size", "to fetch")).splitlines() if rows else [])
    archives.require_space(folder, sum(left for _, left in sizes), "what is to be fetched")
    for need in needs:
        need.fetch()
        say(f"fetched: {need.what}")


def _shown(size: int | None) -> str:
    return f"{size / 2**20:.1f} MiB" if size else "not said"


def _advice(folder: Path) -> list[str]:
    place = folder.absolute()
    return [
        f"  export HF_HOME={place / HOME} HF_HUB_OFFLINE=1",
        f"  dinodp benchmark --directory {place} --configfile ...   (or put its data/ where the run is)",
    ]
