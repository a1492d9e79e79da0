"""The configuration, read once: typed entries with their defaults, or one sentence that says what is wrong.

Free of torch and matplotlib: the workflow reads it whenever it builds the DAG, and in every job.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from dinodp.backbones import EmbeddingOptions, embedding_options
from dinodp.backbones.student import StudentOptions
from dinodp.datasets.sources import dataset_options
from dinodp.datasets.sources.base import ArchivePart, DatasetOptions
from dinodp.errors import InputError
from dinodp.families import FAMILIES, model_options
from dinodp.families.base import ModelOptions
from dinodp.options.archive import ArchiveOptions
from dinodp.options.base import Options, shown
from dinodp.options.finding import known_figures, known_tables
from dinodp.options.run import RunOptions

NAME = re.compile(r"^[a-z0-9_]+$")  # of an entry: it becomes a wildcard
Entry = TypeVar("Entry", bound=Options)


@dataclass(frozen=True)
class Configuration:
    """The run and what exists, by name."""

    archives: Mapping[str, ArchiveOptions]
    datasets: Mapping[str, DatasetOptions]
    embeddings: Mapping[str, EmbeddingOptions]
    models: Mapping[str, ModelOptions]
    run: RunOptions

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The configuration of catalog and run files. Raises InputError for the first thing that is wrong."""
        try:
            read = cls._read(config)
        except InputError as error:
            raise InputError(f"Configuration, {error} Every key is in config/README.md.") from None
        read._check_names()
        read._check_report()
        read._check_students()
        for name in read.run.embeddings:
            read.embeddings[name].check(f"Configuration, embeddings.{name}")
        return read

    @classmethod
    def _read(cls, config: Mapping[str, Any]) -> Self:
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(config) - set(known)):
            raise InputError(f"the top level: unknown key {unknown[0]!r}; it has {', '.join(known)}.")
        return cls(
            archives=_entries(config, "archives", ArchiveOptions.read),
            datasets=_entries(config, "datasets", _dataset),
            embeddings=_entries(config, "embeddings", embedding_options),
            models=_entries(config, "models", model_options),
            run=RunOptions.read(config.get("run"), "run"),
        )

    def _check_names(self) -> None:
        """Every name of the run is one of the catalog; models that are compared are models of the run."""
        run = self.run
        for kind in ("datasets", "embeddings", "models"):
            for name in getattr(run, kind):
                self.require(kind, name)
        self.require("models", run.baseline, "baseline")
        for name in run.datasets:
            if (archive := self.datasets[name].archive) is not None:
                self.require("archives", archive.name, f"datasets ({name}, archive)")
        protocols = [protocol.model for protocol in run.protocols.values()]
        named = {"figure_models": run.figure_models, "alignment_models": run.alignment_models, "protocols": protocols}
        for key, names in named.items():
            for name in names:
                if name not in run.models:
                    raise InputError(
                        f"run.{key} names the model '{name}', which is not among run.models: {', '.join(run.models)}."
                    )

    def _check_report(self) -> None:
        """Tables and figures exist, and what is compared with anatomy has components."""
        for key, known in (("tables", known_tables()), ("figures", known_figures())):
            for name in getattr(self.run, key):
                if name not in known:
                    raise InputError(f"Unknown name '{name}' under run.{key}: choose from {', '.join(known)}.")
        for name in self.run.alignment_models:
            if not self.models[name].HAS_COMPONENTS:
                families = ", ".join(mixtures())
                raise InputError(f"run.alignment_models: {name} is no mixture; choose models of {families}.")

    def _check_students(self) -> None:
        """A student of the run is of an embedding of the catalog, and used on its own data set only, unless told."""
        for name in self.run.embeddings:
            options = self.embeddings[name]
            if not isinstance(options, StudentOptions) or (made := options.trained_on()) is None:
                continue
            (dataset, teacher), where = made, f"Configuration, embeddings.{name}"
            self.require("datasets", dataset, f"embeddings ({name}, backbone)")
            self.require("embeddings", teacher, f"embeddings ({name}, backbone)")
            others = [other for other in self.run.datasets if other != dataset]
            if isinstance(self.embeddings[teacher], StudentOptions):
                raise InputError(f"{where}: the teacher {teacher} is a student itself.")
            if others and not options.other_data:
                raise InputError(
                    f"{where}: its student is trained on {dataset}, but the run has {', '.join(others)}: distil one "
                    "from each, or say other_data: true."
                )
            for key in ("resolution", "square"):
                if getattr(options, key) != getattr(self.embeddings[teacher], key):
                    raise InputError(f"{where}.{key}: it must be that of its teacher {teacher}.")

    def require(self, kind: str, name: str, key: str | None = None) -> None:
        """Raise InputError, which lists the names that exist, unless the catalog has a name that is under run.key."""
        known = getattr(self, kind)
        if name not in known:
            raise InputError(
                f"Unknown name '{name}' under run.{key or kind}: the catalog (config/catalog.yaml) has "
                f"{', '.join(sorted(known))}."
            )

    def archive_of(self, dataset: str) -> ArchivePart | None:
        """The archive that a data set comes from; none where the user's own copy lies at its root."""
        options: Any = self.datasets[dataset]
        return None if options.archive is None or Path(options.root).exists() else options.archive

    def plain(self) -> dict[str, Any]:
        """All of it as plain values, with defaults."""
        kinds = [field.name for field in fields(self) if field.name != "run"]
        entries = {kind: {name: item.plain() for name, item in getattr(self, kind).items()} for kind in kinds}
        return {**entries, "run": self.run.plain()}

    def used(self) -> dict[str, Any]:
        """The run and the entries that it names, as plain values: what the report says was configured."""
        everything = self.plain()
        kinds = ("datasets", "embeddings", "models")
        used = {kind: {name: everything[kind][name] for name in getattr(self.run, kind)} for kind in kinds}
        return {"run": everything["run"], **used}


def mixtures() -> list[str]:
    """The families that have components."""
    return [name for name, kind in FAMILIES.items() if kind.HAS_COMPONENTS]


def _entries(config: Mapping[str, Any], kind: str, read: Callable[[Any, str], Entry]) -> dict[str, Entry]:
    entries = config.get(kind) or {}
    if not isinstance(entries, Mapping):
        raise InputError(f"{kind}: {shown(entries)} is no mapping of names to entries.")
    _require_names(kind, entries)
    return {name: read(entry, f"{kind}.{name}") for name, entry in entries.items()}


def _require_names(kind: str, names: Iterable[object]) -> None:
    for name in names:
        if not isinstance(name, str) or not NAME.match(name):
            raise InputError(f"{kind}: {name!r} does not match {NAME.pattern!r}.")


def _dataset(entry: Any, where: str) -> DatasetOptions:
    """A data set without a root of its own lies where its archive is unpacked."""
    if isinstance(entry, Mapping) and isinstance(entry.get("archive"), Mapping) and entry.get("root") is None:
        part = entry["archive"]
        entry = {**entry, "root": f"data/archives/{part.get('name')}/{part.get('member')}"}
    return dataset_options(entry, where)
