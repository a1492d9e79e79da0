"""Which modules of the library a script can run, and the digest of their code: what a result can depend on.

Found by parsing, so that nothing is imported. What counts:

- modules that are imported, with the packages they are in, at the top, within functions, and so on from there;
- not what is imported for types only (``if TYPE_CHECKING:``);
- a package whole, where one of its modules finds others by itself (`FINDERS`);
- files that are no modules, below the folder of a module that asks for ``__file__`` (templates);
- of a module its syntax tree: comments, docstrings and layout do not count.
"""

import ast
import contextlib
import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).parents[1]
FINDERS = {"__path__", "iter_modules", "walk_packages", "import_module"}
CACHE = Path(".snakemake/dinodp-modules.json")  # below the working directory of a run; only where there is one
DIGITS = 16
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Code:
    """What counts of one Python file. ``imports``: names of modules or of what is in them, relative ones with dots."""

    digest: str
    imports: tuple[str, ...]
    finds_others: bool
    reads_files: bool

    @classmethod
    def of(cls, source: bytes) -> "Code":
        """Parse a file's bytes. Raises SyntaxError."""
        tree = ast.parse(source)
        nodes = list(_running(tree))
        names = {name for node in nodes for name in _names(node)}
        imports = sorted({name for node in nodes for name in _imported(node)})
        digest = hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()[:DIGITS]
        return cls(digest, tuple(imports), not names.isdisjoint(FINDERS), "__file__" in names)


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        yield node
        hidden = isinstance(node, ast.If) and "TYPE_CHECKING" in _names(node.test)
        nodes += node.orelse if isinstance(node, ast.If) and hidden else ast.iter_child_nodes(node)


def _names(node: ast.AST) -> tuple[str, ...]:
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        return (node.attr,)
    return (node.name,) if isinstance(node, ast.alias) else ()


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        origin = "." * node.level + (node.module or "")
        yield origin
        yield from (f"{origin}.{alias.name}" if node.module else origin + alias.name for alias in node.names)


def _plain(node: Any) -> Any:
    """A syntax tree as nested tuples: no positions, no docstrings, and no empty fields, which Python versions add."""
    if isinstance(node, list):
        return tuple(map(_plain, node))
    if not isinstance(node, ast.AST):
        return node
    fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
    if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
        fields = [(name, value[1:] if name == "body" else value) for name, value in fields]
    return type(node).__name__, *((name, _plain(value)) for name, value in fields)


class Closures:
    """Closures of imports within the library at ``library``, the folder of the package.

    The library is read once, so an object is for one moment. A file is parsed once: what was parsed is kept under the
    digest of the file's bytes, in memory and, where its folder exists, in the file ``cache``; so an answer is never
    that of an older file.
    """

    def __init__(self, library: Path = LIBRARY, cache: Path | None = None) -> None:
        self.library, self.cache = library, cache
        self._parsed: dict[str, Code] = _load(cache) if cache else {}
        self._stored = len(self._parsed)
        self._modules, self._data = _files_of(library)
        self._codes: dict[Path, Code] = {}
        self._next: dict[str, set[str]] = {}

    def digest(self, start: Path | str) -> str:
        """The digest of what a script (a path), or a module (its dotted name) with itself, can run of the library."""
        names = self.modules(start)
        content = [(name, self._code(self._modules[name]).digest) for name in sorted(names)]
        content += [(str(path.relative_to(self.library)), _sha256(path.read_bytes())) for path in self.data(names)]
        self._save()
        return _sha256(repr(content).encode())[:DIGITS]

    def modules(self, start: Path | str) -> set[str]:
        """Dotted names of the modules of the library that a script or a module can run, itself if it is one."""
        found: set[str] = set()
        waiting = self._runs(self._code(start).imports if isinstance(start, Path) else [start])
        while waiting:
            found |= waiting
            waiting = set().union(*map(self._imports, waiting)) - found
        return found

    def data(self, modules: Iterable[str]) -> list[Path]:
        """The sorted files, other than modules, that some of the ``modules`` can read."""
        folders = {path.parent for path in map(self._modules.__getitem__, modules) if self._code(path).reads_files}
        return sorted(path for path in self._data if not folders.isdisjoint(path.parents))

    def _imports(self, name: str) -> set[str]:
        """The modules that one module imports or finds."""
        if name not in self._next:
            path = self._modules[name]
            code = self._code(path)
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            found = self._runs(_absolute(imported, package) for imported in code.imports)
            siblings = {other for other in self._modules if f"{other}.".startswith(f"{package}.")}
            self._next[name] = found | siblings if code.finds_others else found
        return self._next[name]

    def _runs(self, imported: Iterable[str]) -> set[str]:
        """What the import of dotted names runs: the packages on the way and, where the last part is one, the module."""
        ends = ((name, index) for name in imported for index, sign in enumerate(f"{name}.") if sign == ".")
        return {name[:end] for name, end in ends} & self._modules.keys()

    def _code(self, path: Path) -> Code:
        if path not in self._codes:
            source = path.read_bytes()
            key = _sha256(source)
            if key not in self._parsed:
                self._parsed[key] = Code.of(source)
            self._codes[path] = self._parsed[key]
        return self._codes[path]

    def _save(self) -> None:
        """Keep what was parsed for the next process, where the cache's folder exists and can be written."""
        if self.cache is None or len(self._parsed) == self._stored or not self.cache.parent.is_dir():
            return
        content = {"parser": _parser(), "files": {key: asdict(code) for key, code in self._parsed.items()}}
        temporary = self.cache.with_name(f"{self.cache.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(self.cache)
        self._stored = len(self._parsed)


def _absolute(name: str, package: str) -> str:
    """A dotted name without leading dots, as seen from within a package."""
    base = name.lstrip(".")
    level = len(name) - len(base)
    origin = package.split(".")[: package.count(".") + 2 - level] if level else []
    return ".".join([*origin, base]).rstrip(".")


def _files_of(library: Path) -> tuple[dict[str, Path], list[Path]]:
    """{dotted name: file} of all modules, and the other files but for those that are hidden or left by Python."""
    modules, data = {}, []
    for folder, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name != "__pycache__"]
        package = ".".join([library.name, *Path(folder).relative_to(library).parts])
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py"):
                modules[package if name == "__init__.py" else f"{package}.{path.stem}"] = path
            elif not name.startswith(".") and not name.endswith("~"):
                data.append(path)
    return modules, data


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _parser() -> str:
    """What the parsed form of a file depends on beside its bytes: Python, and this module."""
    return f"{sys.version} {_sha256(Path(__file__).read_bytes())}"


def _load(cache: Path) -> dict[str, Code]:
    """What another process has parsed; nothing where the file is missing, torn, or of another parser."""
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
        if content["parser"] != _parser():
            return {}
        return {key: Code(**{**code, "imports": tuple(code["imports"])}) for key, code in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


@functools.cache
def code_digest(module: str) -> str:
    """The digest of a module's code and all that it imports, of the library that this process runs."""
    return Closures(cache=CACHE).digest(module)
