"""Which edits change which node's fingerprint, and where the code comes from."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import json_format
from tfx.proto.orchestration import pipeline_pb2

from fraud.models.spec import Tuning
from fraud.pipeline import lineage
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root
from fraud.pipeline.runners import code, compiled
from fraud.pipeline.runners.code import Sources

ROOT = Path(__file__).resolve().parents[3]

MODEL = {"Tuner", "Trainer", "ModelCardGen"}

EDITS = {
    "features/definitions.py": {
        "TransactionExampleGen",
        "StatisticsGen",
        "Transform",
        "Evaluator",
        "ServingCheck",
        "Pusher",
        *MODEL,
    },
    "serving/scorer.py": {"ServingCheck"},
    "pipeline/ingestion/source.py": {"TransactionExampleGen"},  # only its driver calls it
    "pipeline/components/batched_reading.py": {"StatisticsGen", "Transform", "Evaluator"},
    "pipeline/components/data_gate.py": {"DataGate"},
    "models/preprocessing/analysis.py": {"Transform", *MODEL},
    "models/preprocessing/__init__.py": {"Transform", *MODEL},
    "models/network/architecture.py": MODEL,
    "models/network/tuning.py": {"Tuner"},
    "pipeline/components/trainer.py": {"Trainer"},
    "models/evaluation/tfma_metrics.py": {"Evaluator"},
    "models/evaluation/extractors.py": {"Evaluator"},
    # Three executors are in one module, which names a metric.
    "models/evaluation/registry.py": {
        *("StatisticsGen", "Transform", "Tuner", "Evaluator", "ModelCardGen")
    },
    "pipeline/components/serving_check.py": {"ServingCheck"},
    "pipeline/components/pusher.py": {"Pusher"},
    "pipeline/artifacts.py": {"ModelCardGen"},
    "report/model_card.py": {"ModelCardGen"},
    "report/page.css": {"ModelCardGen"},
    "report/terminal.py": set(),
    "pipeline/commands/run.py": set(),
    "pipeline/cli.py": set(),
    "pipeline/summary.py": set(),
    "pipeline/graph.py": set(),  # what it decides are the nodes' parameters
    "pipeline/runners/launch.py": set(),
    "pipeline/components/champion.py": set(),  # resolvers are never cached
    "pipeline/backtest/folds.py": set(),
    "data/simulator.py": set(),
    "schema/schema.pbtxt": set(),  # its name, which is a parameter, says what it contains
}
"""File → nodes whose fingerprint changes when the file gets another line."""


@pytest.fixture(scope="module")
def ir(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("graph")
    config = replace(Config(), tuning=Tuning(enabled=True))
    return compiled.read(compiled.write(config, Root(folder / "root"), "/data", folder))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package as a wheel installs it: folders where the checkout has links."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT / "fraud", tmp_path / "fraud", ignore=ignored))


def of_nodes(ir, folder: Path) -> dict[str, str]:
    """The fingerprint of each node, with the code of a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "_installed", lambda: Sources(folder))
        nodes = [n.pipeline_node for n in compiled.for_run(ir, "monday").nodes]
    return {
        node.node_info.id: parameters[lineage.CODE_FINGERPRINT].field_value.string_value
        for node in nodes
        if lineage.CODE_FINGERPRINT in (parameters := node.parameters.parameters)
    }


@pytest.fixture(scope="module")
def before(ir) -> dict[str, str]:
    """The fingerprints in this checkout."""
    return of_nodes(ir, ROOT / "fraud")


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert set(before) == set(after)
    return {node for node in before if before[node] != after[node]}


@pytest.mark.parametrize(("file", "nodes"), EDITS.items(), ids=list(EDITS))
def test_an_edit_changes_the_nodes_that_depend_on_it(
    ir, before, package: Path, file: str, nodes: set[str]
) -> None:
    with open(package / file, "a") as opened:
        opened.write("\nEDITED = 1\n")
    assert changed(before, of_nodes(ir, package)) == nodes


@pytest.mark.parametrize(
    ("file", "old", "new", "node"),
    [
        ("features/definitions.py", "return ", "return 0 * ", "TransactionExampleGen"),
        ("models/network/architecture.py", "ops.relu", "ops.tanh", "Trainer"),
    ],
)
def test_a_few_characters_count(
    ir, before, package: Path, file: str, old: str, new: str, node: str
) -> None:
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    assert node in changed(before, of_nodes(ir, package))


def test_comments_and_docstrings_are_not_code(ir, before, package: Path) -> None:
    for file in ("features/definitions.py", "models/network/architecture.py"):
        text = (package / file).read_text()
        edited, docstrings = re.subn(r'(:\n +""")', r"\1Again: ", text)
        assert docstrings
        (package / file).write_text(f'# Whose.\n"""Again."""\n{edited}\n# End.')
    assert changed(before, of_nodes(ir, package)) == set()


def test_the_code_of_a_driver_counts(ir, before) -> None:
    """Ours is in the module of its executor: so look at one that is not."""
    text = json_format.MessageToJson(ir)
    driver = "fraud.pipeline.components.transaction_example_gen.Driver"
    assert driver in text
    elsewhere = text.replace(driver, "fraud.pipeline.components.pusher.Driver")
    other = json_format.Parse(elsewhere, pipeline_pb2.Pipeline())
    assert changed(before, of_nodes(other, ROOT / "fraud")) == {"TransactionExampleGen"}


def test_another_version_of_a_package_changes_every_node(
    ir, before, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"SchemaGen", "Trainer"} <= set(before)
    versions = {**code.package_versions(), "keras": "9"}
    monkeypatch.setattr(code, "package_versions", lambda: versions)
    assert changed(before, of_nodes(ir, package)) == set(before)


def test_resolvers_have_no_fingerprint(before) -> None:
    assert not {"Champion", "ChampionStatistics"} & set(before)


def test_a_checkout_and_a_wheel_of_it_share_their_cache(ir, before, package: Path) -> None:
    assert (ROOT / "fraud" / "models").is_symlink()
    assert of_nodes(ir, package) == before


def test_versions_are_those_of_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(code.package_versions().values())
    monkeypatch.setattr(code, "DISTRIBUTION", "not-installed")
    assert code.origin.__wrapped__().version == ""


@pytest.mark.parametrize(
    "text",
    [
        "import our.deep.target",
        "import our.deep.target as t",
        "from our.deep import target",
        "from our.deep.target import member",
        "from our.deep.target import *",
        "from our.deep import (\n    other,\n    target,\n)",
        "from .deep import target",
        "from . import deep\nfrom .deep.target import member",
        "def f():\n    from our.deep import target",
        "import importlib\ndef f():\n    importlib.import_module('our.deep.target')",
        "from our.by_the_way import other",
    ],
)
def test_imports_are_found_wherever_they_are(tmp_path: Path, text: str) -> None:
    our = tmp_path / "our"
    (our / "deep").mkdir(parents=True)
    for module in ("__init__", "deep/__init__", "deep/target", "unused"):
        (our / f"{module}.py").touch()
    (our / "by_the_way.py").write_text("class C:\n    def f(self):\n        import our.deep.target")
    (our / "start.py").write_text(text)
    found = Sources(our).reachable(["class_path: 'our.start.Executor'"])
    assert {"our", "our.start", "our.deep", "our.deep.target"} <= set(found)
    assert "our.unused" not in found


def test_relative_imports_of_a_package_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "our" / "deep").mkdir(parents=True)
    for module in ("__init__", "target", "deep/target"):
        (tmp_path / "our" / f"{module}.py").touch()
    (tmp_path / "our" / "deep" / "__init__.py").write_text("from . import target")
    found = Sources(tmp_path / "our").reachable(["our.deep"])
    assert set(found) == {"our", "our.deep", "our.deep.target"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git repository like ours: a package with a link to a folder beside it, and docs."""
    for folder in ("our", "models", "docs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "our" / "models").symlink_to("../models")
    (tmp_path / ".gitignore").write_text("venv/\n__pycache__/\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    named = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    command = ["git", "-C", str(folder), *named, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_of_clean_sources(checkout: Path) -> None:
    (checkout / "docs" / "__init__.py").write_text("edited")
    (checkout / "models" / "__pycache__").mkdir()
    (checkout / "models" / "__pycache__" / "x.pyc").touch()
    assert code.commit_of(checkout / "our") == (git(checkout, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize("file", ["our/__init__.py", "models/__init__.py", "models/new.py"])
def test_edited_and_new_sources_are_dirty(checkout: Path, file: str) -> None:
    (checkout / file).write_text("edited")
    assert code.commit_of(checkout / "our") == (git(checkout, "rev-parse", "HEAD"), True)


def test_an_environment_in_a_repository_has_no_commit(checkout: Path) -> None:
    installed = shutil.copytree(checkout / "our", checkout / "venv" / "our")
    assert code.commit_of(Path(installed)) == ("", False)


def test_no_repository_no_commit_no_git(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "__init__.py").touch()
    assert code.commit_of(outside) == ("", False)
    git(outside, "init", "--quiet")
    git(outside, "add", ".")
    assert code.commit_of(outside) == ("", False)
    monkeypatch.setenv("PATH", str(outside))
    assert code.commit_of(checkout / "our") == ("", False)
