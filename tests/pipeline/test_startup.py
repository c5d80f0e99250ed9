"""Lean imports skip optional libraries without losing any name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fraud.pipeline import startup

ROOT = Path(__file__).resolve().parent.parent.parent

NAMES = """
import contextlib, io, json, sys
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    {imports}
    import keras, keras_tuner, tensorflow, tensorflow_data_validation, tensorflow_transform
    import tensorflow_model_analysis, tfx.components
unwanted = ["nltk", "pymongo", "sklearn", "google.cloud.bigquery", "kubernetes", "scipy.stats"]
print(json.dumps({
    "printed": printed.getvalue(),
    "imported": [name for name in unwanted if type(sys.modules.get(name)) is type(sys)],
    "names": [
        f"{module.__name__}.{name}"
        for module in (
            keras, keras_tuner, tensorflow, tensorflow_data_validation, tensorflow_transform,
            tensorflow_model_analysis, tensorflow_model_analysis.view,
            tensorflow_model_analysis.metrics, tfx.components,
        )
        for name in dir(module)
    ],
}))
"""

USED_AFTERWARDS = """
from fraud.pipeline import startup
startup.import_tfx()
import IPython, sklearn.metrics
import tensorflow_model_analysis as tfma
from apache_beam.io.gcp.bigquery import ReadFromBigQuery
from scipy import stats
from tfx.components.infra_validator.model_server_runners import kubernetes_runner

assert stats.t.ppf(0.975, 10) > 2
assert callable(tfma.default_eval_shared_model)
assert tfma.metrics.rouge.Rouge.__module__ == "tensorflow_model_analysis.metrics.rouge"
assert callable(tfma.view.render_slicing_metrics)
assert kubernetes_runner.KubernetesRunner
print("ok")
"""


def _program(text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_lean_imports_give_every_name_that_plain_imports_give() -> None:
    imports = "from fraud.pipeline import startup; startup.import_tfx()"
    lean = json.loads(_program(NAMES.replace("{imports}", imports)))
    plain = json.loads(_program(NAMES.replace("{imports}", "import tfx.components")))
    assert set(plain["names"]) - set(lean["names"]) == set()
    assert lean["printed"] == ""
    assert lean["imported"] == []
    assert len(plain["imported"]) >= 5


def test_skipped_modules_can_be_used_afterwards() -> None:
    assert _program(USED_AFTERWARDS).splitlines()[-1] == "ok"


def test_beam_has_its_caches() -> None:
    program = (
        "from fraud.pipeline import startup\nstartup.import_tfx()\n"
        "from apache_beam.options.pipeline_options import PipelineOptions\n"
        "options = PipelineOptions([])\n"
        "print(options.view_as(PipelineOptions) is options.view_as(PipelineOptions))"
    )
    assert _program(program).split()[-1] == "True"


def test_the_modules_are_exempt_from_garbage_collection() -> None:
    counted = _program(
        "import gc\nfrom fraud.pipeline import startup\nstartup.import_tfx()\n"
        "print(gc.isenabled(), gc.get_freeze_count(), len(gc.get_objects()))"
    )
    enabled, exempt, others = counted.split()[-3:]
    assert enabled == "True"
    assert int(exempt) > 100_000
    assert int(others) < int(exempt) / 10


def test_later_calls_exempt_nothing_from_garbage_collection() -> None:
    counted = _program(
        "import gc, weakref\nfrom fraud.pipeline import startup\nstartup.import_tfx()\n"
        "class Cycle: pass\n"
        "before, cycle = gc.get_freeze_count(), Cycle()\n"
        "cycle.itself, alive = cycle, weakref.ref(cycle)\n"
        "startup.import_tfx()\n"
        "del cycle\n"
        "gc.collect()\n"
        "print(gc.get_freeze_count() <= before, alive() is None)"
    )
    assert counted.split()[-2:] == ["True", "True"]


@pytest.fixture
def lazy_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a package that is importable but not imported."""
    (tmp_path / "late_package").mkdir()
    (tmp_path / "late_package" / "__init__.py").write_text("answer = 42\n")
    (tmp_path / "late_package" / "part.py").write_text("answer = 43\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(startup, "_LAZY_MODULES", ("late_package",))
    yield "late_package"
    for name in [n for n in sys.modules if n.startswith("late_package")]:
        del sys.modules[name]


def test_a_lazy_module_runs_on_first_use(lazy_package: str) -> None:
    with startup._lazy_imports():
        import late_package
    assert hasattr(late_package, "__file__")  # reading a dunder attribute does not run it
    assert not hasattr(late_package, "__wrapped__")
    assert "answer" not in vars(late_package)
    assert late_package.answer == 42
    assert late_package is sys.modules[lazy_package]
    with pytest.raises(AttributeError, match="question"):
        _ = late_package.question


def test_a_submodule_of_a_lazy_package_can_be_imported(lazy_package: str) -> None:
    with startup._lazy_imports():
        from late_package.part import answer
    assert answer == 43


def test_a_lazy_module_that_fails_raises_its_error(lazy_package: str, tmp_path: Path) -> None:
    (tmp_path / "late_package" / "__init__.py").write_text("import no_such_module_anywhere\n")
    with startup._lazy_imports():
        import late_package
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        _ = late_package.answer


def test_hidden_modules_can_be_imported_afterwards(lazy_package: str) -> None:
    with pytest.raises(ImportError, match=lazy_package), startup._hidden((lazy_package, "json")):
        assert json.loads("1") == 1  # already imported: stays visible
        import late_package
    import late_package

    assert late_package.answer == 42
