"""What is left out of the imports, and that it is there when somebody wants it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import startup

ROOT = Path(__file__).resolve().parent.parent.parent

PROGRAM = """
import sys
from pipeline.startup import lean_imports
with lean_imports():
    from pipeline.runners import compiled, node
unwanted = {"IPython", "docker.api", "kubernetes", "matplotlib", "nltk", "pymongo", "sklearn"}
assert not unwanted & set(sys.modules), unwanted & set(sys.modules)

import IPython  # whoever wants it later has it
import tensorflow_model_analysis as tfma
from scipy import stats
from tfx.components import Evaluator, SchemaGen

assert stats.t.ppf(0.975, 10) > 2
assert Evaluator.__module__ == "tfx.components.evaluator.component"
assert tfma.metrics.rouge.Rouge.__module__ == "tensorflow_model_analysis.metrics.rouge"
try:
    from tfx.components import Nothing
except ImportError:
    print("well")
"""


def test_a_run_imports_neither_notebooks_nor_clients_of_what_it_does_not_use() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["well"], done.stderr[-2000:]


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package that can be imported and has not been."""
    (tmp_path / "late_package").mkdir()
    (tmp_path / "late_package" / "__init__.py").write_text("answer = 42\n")
    (tmp_path / "late_package" / "part.py").write_text("answer = 43\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "late_package"
    for name in [n for n in sys.modules if n.startswith("late_package")]:
        del sys.modules[name]


def test_a_deferred_module_is_imported_when_it_is_used(
    late: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "_DEFERRED", (late,))
    with startup.lean_imports():
        import late_package
    stands_in = sys.modules[late]
    assert not hasattr(stands_in, "__file__")  # a look at it is no use of it
    assert sys.modules[late] is stands_in
    assert late_package.answer == 42
    assert sys.modules[late] is not stands_in
    assert late_package.answer == 42
    with pytest.raises(AttributeError):
        _ = late_package.question


def test_a_part_of_a_deferred_package_is_found(late: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_DEFERRED", (late,))
    with startup.lean_imports():
        from late_package.part import answer
    assert answer == 43


def test_what_is_left_out_is_missing_within_and_there_afterwards(
    late: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "_DONE_WITHOUT", (late, "json"))
    with pytest.raises(ImportError, match=late), startup.lean_imports():
        import json

        assert json.loads("1") == 1  # was there before: stays
        import late_package
    import late_package

    assert late_package.answer == 42
