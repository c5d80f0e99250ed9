"""Who may import whom, and what the command may load before it knows what to do."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Package → what of ours it may import besides itself and the foundation. A package that is no key
# (tests, benchmarks, …) is outside the rule. The longest name wins.
FOUNDATION = ("errors", "codec", "time", "names", "files", "text", "progress", "tracing")
ROOMS = ("data", "features", "models", "monitoring", "pipeline", "report", "schema", "serving")
MAY_IMPORT = {
    **{f"fraud.{module}": () for module in FOUNDATION},
    "fraud.data": (),
    "fraud.schema": (),
    "fraud.features": (),
    "fraud.models": ("fraud.features",),
    # What a served model computes its inputs from.
    "fraud.serving": ("fraud.features", "fraud.models.columns", "fraud.models.specification"),
    # The sections of the configuration are classes of the rooms that read them.
    "fraud.pipeline": (
        "fraud.features",
        "fraud.models",
        "fraud.monitoring.checks",
        "fraud.monitoring.policy",
        "fraud.monitoring.spec",
        "fraud.serving.spec",
    ),
    # Facts reach the model card from its component.
    "fraud.pipeline.components.model_card_gen": (
        "fraud.features",
        "fraud.models",
        "fraud.report.document",
        "fraud.report.model_card",
    ),
    # It checks the very server.
    "fraud.pipeline.components.serving_check": (
        "fraud.features",
        "fraud.models",
        "fraud.serving",
    ),
    # Its workers score with the very server's model.
    "fraud.pipeline.ingestion.scoring": (
        "fraud.features",
        "fraud.models",
        "fraud.serving.batch",
        "fraud.serving.models",
        "fraud.serving.scorer",
    ),
    # It looks at production.
    "fraud.pipeline.components.monitor": ("fraud.features", "fraud.models", "fraud.monitoring"),
    "fraud.pipeline.cli": tuple(f"fraud.{room}" for room in ROOMS),
    "fraud.pipeline.commands": tuple(f"fraud.{room}" for room in ROOMS),
    "fraud.report": (
        "fraud.monitoring.alerts",
        "fraud.monitoring.checks",
        "fraud.pipeline.artifacts",
        "fraud.pipeline.decisions",
        "fraud.pipeline.distributions",
        "fraud.pipeline.lineage",
        "fraud.pipeline.lineage_graph",
        "fraud.pipeline.records",
    ),
    # It measures with the arithmetic of the pipeline, and runs none of its components.
    "fraud.monitoring": (
        "fraud.features",
        "fraud.models",
        "fraud.pipeline.artifacts",
        "fraud.pipeline.config",
        "fraud.pipeline.data_facts",
        "fraud.pipeline.drift",
        "fraud.pipeline.ingestion",
        "fraud.pipeline.lineage",
        "fraud.pipeline.production",
        "fraud.pipeline.root",
        "fraud.pipeline.windows",
        "fraud.serving.prediction_log",
    ),
    # Decisions are replayed from recorded checks alone.
    "fraud.monitoring.checks": (),
    "fraud.monitoring.decide": (),
    "fraud.monitoring.policy": (),
    "fraud.monitoring.spec": (),
}


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
    own = ".".join(module.split(".")[:2])
    shared = tuple(f"fraud.{module}" for module in FOUNDATION)
    allowed = (own, *shared, *MAY_IMPORT[max(rules, key=len)])
    return [
        f"{module} line {line}: imports {name}"
        for line, name in imported(source, module, is_package)
        if lies_in(name, "fraud") and not any(lies_in(name, may) for may in allowed)
    ]


def our_modules() -> dict[str, Path]:
    modules = {}
    for path in [*ROOT.glob("fraud/*.py"), *ROOT.glob("fraud/*/**/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def test_no_module_imports_what_it_may_not() -> None:
    modules = our_modules()
    assert {"fraud.errors", "fraud.data", "fraud.features.batch", "fraud.pipeline.cli"} <= set(
        modules
    )
    found = [
        message
        for module, path in modules.items()
        for message in violations(path.read_text(), module, path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fraud.errors", "from fraud import codec\nimport fraud.features"),
        ("fraud.features.batch", "import fraud.pipeline.config"),
        ("fraud.features.batch", "def f():\n    from fraud.pipeline import config"),
        ("fraud.features.batch", "from fraud.models import spec"),
        ("fraud.models.entry_point", "from fraud.pipeline.config import Config as C"),
        ("fraud.models.entry_point", "import json, fraud.serving"),
        ("fraud.models.deep.er", "from ...pipeline import config"),
        ("fraud.data.simulator", "from fraud.features.spec import DAY"),
        ("fraud.pipeline.components.gate", "from fraud.data.simulator import simulate"),
        ("fraud.pipeline.artifacts", "from fraud.report import model_card"),
        ("fraud.pipeline.lineage", "import fraud.monitoring"),
        ("fraud.report.document", "from fraud.pipeline import graph"),
        ("fraud.serving.server", "from fraud.pipeline import lineage"),
        ("fraud.monitoring.drift", "from fraud.pipeline import graph"),
        ("fraud.monitoring.drift", "from fraud.pipeline.lineages import x"),
        ("fraud.monitoring.drift", "from fraud.serving import scorer"),
        ("fraud.monitoring.decide", "from fraud.pipeline import lineage"),
    ],
)
def test_a_violation_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fraud.codec", "from fraud.errors import BadInput"),
        ("fraud.features.batch", "from fraud.features.spec import DAY\nimport numpy, fraudulent"),
        ("fraud.models.entry_point", "from fraud.features import spec\nfrom . import network"),
        ("fraud.pipeline.cli", "def f():\n    from fraud.data.simulator import simulate"),
        ("fraud.pipeline.commands.serve", "from fraud.serving import server"),
        ("fraud.monitoring.drift", "from fraud.pipeline.lineage import champion"),
        ("tests.test_imports", "import fraud.pipeline.config"),
    ],
)
def test_what_is_allowed_is_not_reported(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_relative_imports_are_followed_from_modules_and_from_packages() -> None:
    deep = "fraud.models.deep"
    assert imported("from . import a", f"{deep}.er") == [(1, f"{deep}.a")]
    assert imported("from . import a", deep, is_package=True) == [(1, f"{deep}.a")]
    assert imported("from ..b import a", f"{deep}.er") == [(1, "fraud.models.b.a")]


@pytest.mark.parametrize("module", ["fraud.pipeline.cli", "fraud.monitoring.decide"])
def test_nothing_heavy_is_loaded(module: str) -> None:
    """`fraud-pipeline --help` answers at once, and decisions are replayed by the thousand."""
    code = (
        f"import sys, {module}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"apache_beam", "keras", "ml_metadata", "pandas", "pyarrow", "tensorflow", "tfx"}
    assert not heavy & set(done.stdout.split())
