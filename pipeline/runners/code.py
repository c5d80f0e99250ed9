"""The code that nodes run: a fingerprint for TFX's cache, and its origin for the lineage.

TFX takes a result from the cache if a node's inputs and parameters are the same, whatever its code.
So `compiled.for_run` makes the fingerprint a parameter of each node.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fraud import errors
from fraud.pipeline.lineage import Code

DISTRIBUTION = "fraud-pipeline"
PACKAGES = (
    "tfx",
    "tensorflow",
    "keras",
    "tensorflow-data-validation",
    "tensorflow-model-analysis",
    "tensorflow-transform",
    "tfx-bsl",
    "apache-beam",
    "pyarrow",
    "numpy",
)
"""What the results of nodes depend on besides our code."""

GIT_SECONDS = 10

PACKAGE = Path(errors.__file__).parent
"""The folder of the package; in a checkout it has links to the folders beside it."""


@dataclass(frozen=True)
class Module:
    """What counts of a module.

    Attributes:
      digest: of its code and of the files that it names.
      names: of the modules, or their members, that it imports.
    """

    digest: bytes
    names: frozenset[str]


class Sources:
    """The sources of a package; each file is read once.

    Imports are read off the source, those inside functions included. Comments and docstrings are
    not code. A file that is named in a module and lies beside it, such as a style sheet, is.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._name = re.compile(rf"\b{re.escape(folder.name)}(?:\.\w+)+")
        self._modules: dict[str, Module | None] = {}

    def fingerprint(self, texts: Iterable[str], versions: Mapping[str, str]) -> str:
        """A digest of versions and of all modules that a node can import.

        Args:
          texts: the node's executor, driver and parameters, which name modules or their members:
            `fraud.models.entry_point.run_fn`.
          versions: of the packages that the node depends on.
        """
        digest = hashlib.sha256(repr(sorted(versions.items())).encode())
        for name, module in sorted(self.reachable(texts).items()):
            digest.update(name.encode() + module.digest)
        return digest.hexdigest()

    def reachable(self, texts: Iterable[str]) -> dict[str, Module]:
        """The modules of the package that are named in the texts, and all that these import."""
        found: dict[str, Module] = {}
        names = {name for text in texts for name in self._name.findall(text)}
        while names:
            parts = names.pop().split(".")
            # Importing a.b.c runs a, a.b and a.b.c, which may as well be a member of a.b.
            for name in (".".join(parts[:n]) for n in range(1, len(parts) + 1)):
                module = None if name in found else self._module(name)
                if module:
                    found[name] = module
                    names |= module.names
        return found

    def _module(self, name: str) -> Module | None:
        if name not in self._modules:
            path = self._folder.joinpath(*name.split(".")[1:])
            files = (path / "__init__.py", path.with_name(path.name + ".py"))
            source = next((file for file in files if file.is_file()), None)
            self._modules[name] = self._read(source, name) if source else None
        return self._modules[name]

    def _read(self, path: Path, module: str) -> Module:
        package = module.split(".")[: None if path.name == "__init__.py" else -1]
        tree = ast.parse(path.read_bytes())
        imported, texts = set(), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else []
                origin = ".".join([*above, *filter(None, [node.module])])
                imported |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
            elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                node.body = [statement for statement in node.body if not _is_docstring(statement)]
        digest = hashlib.sha256(ast.dump(tree).encode())
        for file in sorted(path.parent.iterdir()):
            if file.name in texts and file.is_file():
                digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
        # A text may be a name for importlib.import_module.
        return Module(digest.digest(), frozenset(filter(self._name.fullmatch, imported | texts)))


def fingerprint(texts: Iterable[str]) -> str:
    """The fingerprint of a node in this process; see `Sources.fingerprint`."""
    return _installed().fingerprint(texts, package_versions())


@functools.cache
def package_versions() -> dict[str, str]:
    """The versions of `PACKAGES`; empty for those that are not installed under that name."""
    return {package: _version(package) for package in PACKAGES}


@functools.cache
def origin() -> Code:
    """Where the code of this process comes from."""
    commit, dirty = commit_of(PACKAGE)
    return Code(_version(DISTRIBUTION), commit, dirty, package_versions())


def commit_of(package: Path) -> tuple[str, bool]:
    """The git commit that the sources of a package come from, and whether they differ from it.

    Returns:
      "" and False if the sources are not in a git repository, or git cannot tell.
    """
    # Without this check, an environment inside another repository would get its commit.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return "", False
    folders = {str(path.resolve()) for path in (package, *package.iterdir()) if path.is_dir()}
    status = _git(package, "status", "--porcelain=v2", "--branch", "--", *sorted(folders)) or ""
    headers = [line for line in status.splitlines() if line.startswith("#")]
    commits = [line.split()[2] for line in headers if line.startswith("# branch.oid ")]
    if not commits or commits[0] == "(initial)":
        return "", False
    return commits[0], len(status.splitlines()) > len(headers)


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of git; None if it fails or is not installed."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=GIT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


@functools.cache
def _installed() -> Sources:
    return Sources(PACKAGE)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
