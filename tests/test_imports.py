"""Who may import whom, and what the command may load before it knows what to do."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Package → what of ours it may import besides itself. A package that is not a key is outside the
# rule (tests, benchmarks, …). The longest name wins: the command line has a line of its own.
MAY_IMPORT = {
    "data": (),
    "schema": (),
    "features": (),
    "models": ("features",),
    "serving": ("features",),
    "pipeline": ("features", "models"),
    "pipeline.cli": ("data", "features", "models", "monitoring", "pipeline", "serving"),
    "pipeline.commands": ("data", "features", "models", "monitoring", "pipeline", "serving"),
    "monitoring": ("pipeline.lineage", "serving.prediction_log"),
}
OURS = {name.partition(".")[0] for name in MAY_IMPORT}


def lies_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def imported(source: str, module: str, is_package: bool = False) -> list[tuple[int, str]]:
    """All that a module's source imports, wherever in it, with line numbers.

    ``from a import b`` is reported as ``a.b``, which is exact where b is a module and harmless
    where it is not, since rules are about prefixes.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")
                above = above[: len(above) - node.level + is_package]
                base = ".".join([*above, *filter(None, [base])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What a module imports of ours and may not, one message each."""
    rules = [package for package in MAY_IMPORT if lies_in(module, package)]
    if not rules:
        return []
    allowed = (module.partition(".")[0], *MAY_IMPORT[max(rules, key=len)])
    return [
        f"{module} line {line}: imports {name}"
        for line, name in imported(source, module, is_package)
        if name.partition(".")[0] in OURS and not any(lies_in(name, may) for may in allowed)
    ]


def our_modules() -> dict[str, Path]:
    modules = {}
    for package in sorted(OURS):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def test_no_module_imports_what_it_may_not() -> None:
    modules = our_modules()
    assert {"data", "features", "models", "pipeline.cli"} <= set(modules)
    found = [
        message
        for module, path in modules.items()
        for message in violations(path.read_text(), module, path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("features.engine", "import pipeline.config"),
        ("features.engine", "def f():\n    from pipeline import config"),
        ("features.engine", "from models import spec"),
        ("models.trainer", "from pipeline.config import Config as C"),
        ("models.trainer", "import json, serving"),
        ("models.deep.er", "from ...pipeline import config"),
        ("data.simulator", "from features.spec import DAY"),
        ("pipeline.components.gate", "from data.simulator import simulate"),
        ("pipeline.lineage", "import monitoring"),
        ("serving.server", "from pipeline import lineage"),
        ("monitoring.drift", "from pipeline import graph"),
        ("monitoring.drift", "from pipeline.lineages import x"),
    ],
)
def test_a_violation_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("features.engine", "from features.spec import DAY\nimport numpy\nimport pipelines"),
        ("models.trainer", "from features import spec\nfrom . import network"),
        ("pipeline.cli", "def f():\n    from data.simulator import simulate"),
        ("pipeline.commands.serve", "from serving import server"),
        ("monitoring.drift", "from pipeline import lineage\nfrom pipeline.lineage import champion"),
        ("tests.test_imports", "import pipeline.config"),
    ],
)
def test_what_is_allowed_is_not_reported(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_relative_imports_are_followed_from_modules_and_from_packages() -> None:
    assert imported("from . import a", "models.deep.er") == [(1, "models.deep.a")]
    assert imported("from . import a", "models.deep", is_package=True) == [(1, "models.deep.a")]
    assert imported("from ..b import a", "models.deep.er") == [(1, "models.b.a")]


def test_the_command_line_loads_nothing_heavy() -> None:
    """`fraud-pipeline --help` answers at once: heavy packages are imported inside commands."""
    code = (
        "import sys, pipeline.cli;print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"apache_beam", "keras", "ml_metadata", "pandas", "pyarrow", "tensorflow", "tfx"}
    assert not heavy & set(done.stdout.split())
