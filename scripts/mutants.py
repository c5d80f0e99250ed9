"""Mutation testing of the modules that decide: `make mutants`. docs/mutants.md has the results.

Cosmic Ray changes one thing in a module (a boundary, a sign, a condition, ...) and the module's
tests run; if all pass, the mutant survived, and a test is missing. Its own runner starts a process
for every mutant, most of whose time importing TensorFlow would take. Here one process imports the
libraries once and forks; each child works in a copy of the checkout and imports our code anew.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import inspect
import json
import math
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path

import hypothesis
import parso
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).resolve().parent.parent
TARGET = 0.85
"""The share of mutants to kill."""

SAMPLE = 60
"""At most this many mutants of a module, drawn with a fixed seed."""

FEW = {"pipeline/components/pusher.py": 35, "pipeline/releases.py": 35}
"""The same where a mutant that survives costs more than a minute."""

# Of the tests that kill processes, one point in time each.
RELEASES = (
    "tests/pipeline/test_releases.py"
    " -k 'not full and not two and not waits and (not killed or published)'"
)

TESTS = {
    "pipeline/windows.py": "tests/pipeline/test_windows.py",
    "features/batch.py": "tests/features tests/models/test_specification.py",
    "features/definitions.py": "tests/features",
    "features/history.py": "tests/features",
    "models/network/threshold.py": "tests/models/network/test_threshold.py",
    "models/network/training.py": "tests/models/network/test_training.py",
    "models/evaluation/metrics.py": "tests/models/evaluation/test_metrics.py",
    "models/evaluation/bootstrap.py": "tests/models/evaluation/test_bootstrap.py",
    "models/evaluation/registry.py": (
        "tests/models/evaluation/test_eval_config.py tests/models/evaluation/test_bootstrap.py"
        " tests/report tests/pipeline/test_summary.py"
    ),
    "models/evaluation/eval_config.py": (
        "tests/models/evaluation/test_eval_config.py tests/models/evaluation/test_comparison.py"
    ),
    "models/evaluation/tfma_metrics.py": (
        "tests/models/evaluation/test_tfma_metrics.py tests/models/evaluation/test_comparison.py"
    ),
    "models/evaluation/extractors.py": "tests/models/evaluation/test_extractors.py",
    "models/evaluation/slice_data.py": (
        "tests/models/evaluation/test_slice_data.py tests/models/evaluation/test_extractors.py"
    ),
    "monitoring/decide.py": "tests/monitoring/test_decide.py",
    "monitoring/promises.py": "tests/monitoring/test_promises.py",
    "monitoring/shadow.py": "tests/monitoring/test_shadow.py",
    "pipeline/drift.py": "tests/pipeline/test_drift.py",
    "pipeline/components/champion.py": (
        "tests/pipeline/components/test_champion.py"
        " tests/pipeline/components/test_champion_inputs.py"
    ),
    "pipeline/components/pusher.py": f"tests/pipeline/components/test_pusher.py {RELEASES}",
    "pipeline/releases.py": f"tests/pipeline/test_verification.py {RELEASES}",
}
"""The modules, and the tests that should kill their mutants."""

LIBRARIES = """
    numpy pandas pyarrow.dataset pyarrow.parquet sklearn.metrics scipy.stats tensorflow keras
    tensorboard apache_beam ml_metadata tfx.components tfx.orchestration.portable.launcher
    tfx.dsl.compiler.compiler tensorflow_model_analysis tensorflow_data_validation
""".split()
"""What the tests import that is not ours."""

BY_HAND = [
    (
        "models/network/training.py",
        "_batches(examples, drawn, ~held_out,",
        "_batches(examples, drawn, held_out >= 0,",
    ),
    (
        "models/network/training.py",
        "return Fitted(model, alert_threshold,",
        "return Fitted(model, 0,",
    ),
]
"""Mutants that no operator makes: module, text, other text. Such a module has no others."""

# Cosmic Ray replaces an operator by every other; those that a person could confuse are enough.
OPERATORS = [
    *"""
    AddNot ReplaceAndWithOr ReplaceOrWithAnd ReplaceTrueWithFalse ReplaceFalseWithTrue
    ReplaceBreakWithContinue ReplaceContinueWithBreak ExceptionReplacer NumberReplacer
    RemoveDecorator ZeroIterationForLoop ReplaceUnaryOperator_USub_UAdd
    ReplaceUnaryOperator_Delete_Invert ReplaceUnaryOperator_Delete_Not
    """.split(),
    *(
        f"ReplaceBinaryOperator_{pair}"
        for pair in """
        Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Div Mod_Div Pow_Mul BitOr_BitAnd BitAnd_BitOr
        """.split()
    ),
    *(
        f"ReplaceComparisonOperator_{pair}"
        for pair in """
        Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is
        """.split()
    ),
]


class OmitCall(Operator):
    """Omits a statement that is only a call, or a `raise`: `lock()` becomes `pass`."""

    def mutation_positions(self, node):  # type: ignore[no-untyped-def]  # noqa: D102
        called = node.type == "atom_expr" and node.parent.type == "simple_stmt"
        if called or node.type == "raise_stmt":
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):  # type: ignore[no-untyped-def]  # noqa: D102
        return parso.parse(node.get_first_leaf().prefix + "pass").children[0]

    @classmethod
    def examples(cls):  # type: ignore[no-untyped-def]  # noqa: D102
        return (Example("lock()", "pass"), Example("raise BadInput(path)", "pass"))


@dataclass(frozen=True)
class Mutant:
    """A changed module: its path, and its text before and after."""

    path: str
    original: str
    changed: str

    def __str__(self) -> str:
        lines = unified_diff(
            self.original.splitlines(), self.changed.splitlines(), n=0, lineterm=""
        )
        _, _, where, *changes = lines
        return "\n    ".join([f"{self.path}:{where.split()[1][1:].split(',')[0]}", *changes])


def mutants_of(path: str) -> list[Mutant]:
    """All mutants of a module that are valid Python and differ in more than type annotations."""
    original = (ROOT / path).read_text()
    if by_hand := [
        Mutant(path, original, _replaced(original, *by)) for at, *by in BY_HAND if at == path
    ]:
        return by_hand
    tree = get_ast(original)
    operators = [get_operator(f"core/{name}")() for name in OPERATORS] + [OmitCall()]
    places = [
        (operator, occurrence)
        for operator in operators
        for occurrence, node in enumerate(
            node for node in ast_nodes(tree) for _ in operator.mutation_positions(node)
        )
        if node.parent.type != "parameters"  # the asterisk before keyword-only parameters
    ]
    random.Random(0).shuffle(places)
    seen = {_meaning(original)}
    mutants: list[Mutant] = []
    for operator, occurrence in places:
        changed = mutate_code(original, operator, occurrence)
        with contextlib.suppress(SyntaxError):
            if (meaning := _meaning(changed)) not in seen:
                seen.add(meaning)
                mutants.append(Mutant(path, original, changed))
        if len(mutants) == FEW.get(path, SAMPLE):
            break
    return mutants


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"BY_HAND: {old!r} is not there once"
    return text.replace(old, new)


def _meaning(source: str) -> str:
    """The syntax tree without annotations, which have no effect."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if hasattr(node, name):
                setattr(node, name, ast.Constant(None))
    return ast.dump(tree)


@dataclass
class Order:
    """A pytest plugin for one module's tests: those that kill often and end fast come first.

    Attributes:
      kills: how many mutants each test has killed.
      seconds: how long each test took.
      failed: the first test that failed; empty if none did.
    """

    kills: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    failed: str = ""

    @property
    def total(self) -> float:
        """Seconds of all tests."""
        return sum(self.seconds.values())

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """See pytest."""

        def rank(item: pytest.Item) -> float:
            return self.seconds.get(item.nodeid, 0.0) / (1 + self.kills[item.nodeid])

        items.sort(key=rank)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """See pytest."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed = report.nodeid


@dataclass
class Run:
    """A run of tests in a child process: with a mutant, or without one to measure them.

    Attributes:
      folder: the copy of the checkout that it works in.
      killed: whether a test failed, or took much longer than without a mutant.
    """

    tests: str
    mutant: Mutant | None
    order: Order
    folder: Path = ROOT
    deadline: float = math.inf
    killed: bool = False

    def start(self) -> int:
        """Changes the module and starts the process; returns its id."""
        if self.mutant is not None:
            self._write(self.mutant, self.mutant.changed, 1)
            self.deadline = time.monotonic() + 60 + 10 * self.order.total
        if process := os.fork():
            return process
        try:
            os._exit(self._test())
        finally:
            os._exit(1)

    def _test(self) -> int:
        os.setsid()
        os.chdir(self.folder)
        with open("output", "w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        if self.mutant is not None:
            cpu_seconds = 10 + 3 * int(self.order.total)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
            # Only unchanged code is compiled to files, for all later runs.
            sys.dont_write_bytecode = True
        os.environ["PYTHONPATH"] = str(self.folder)
        sys.path.insert(0, str(self.folder))
        options = "-x -q -p no:cacheprovider --tb=short --hypothesis-seed=0 --basetemp=tmp".split()
        status = pytest.main([*options, *shlex.split(self.tests)], plugins=[self.order])
        Path("result.json").write_text(json.dumps([self.order.failed, self.order.seconds]))
        sys.stdout.flush()
        return int(status)

    def end(self, status: int) -> None:
        """Puts the module back and counts the result."""
        self.killed = status != 0
        if self.mutant is not None:
            self._write(self.mutant, self.mutant.original, 0)
        result = self.folder / "result.json"
        if result.exists():
            failed, seconds = json.loads(result.read_text())
            if self.mutant is None:
                self.order.seconds.update(seconds)
            elif failed:
                self.order.kills[failed] += 1
            result.unlink()

    def _write(self, mutant: Mutant, text: str, younger: int) -> None:
        """Writes the module; Python compiles it anew if the second of its change differs."""
        file, modified = self.folder / mutant.path, (ROOT / mutant.path).stat().st_mtime + younger
        file.write_text(text)
        os.utime(file, (modified, modified))


def finished(runs: Iterable[Run], folders: list[Path]) -> Iterator[Run]:
    """Carries out the runs, one at a time in each folder, and yields each as it ends."""
    waiting, free, running = deque(runs), list(folders), dict[int, Run]()
    try:
        while waiting or running:
            while waiting and free:
                run = waiting.popleft()
                run.folder = free.pop()
                running[run.start()] = run
            for process, run in list(running.items()):
                if time.monotonic() > run.deadline:
                    os.killpg(process, signal.SIGKILL)
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    run.end(status)
                    free.append(running.pop(process).folder)
                    print(f"{len(waiting):6} to go", end="\r", file=sys.stderr)
                    yield run
            time.sleep(0.01)
    finally:  # also of an interrupted run
        for process in running:
            os.killpg(process, signal.SIGKILL)


def copy_checkout(folder: Path) -> Path:
    """Copies the files that git knows, or would, as they stand."""
    listing = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in filter(None, listing.split("\0")):
        if os.path.lexists(ROOT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def import_libraries() -> None:
    """Imports what the tests need, but nothing of ours."""
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    for name in LIBRARIES:
        importlib.import_module(name)
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # no search for the simplest
    hypothesis.settings.register_profile("mutants", database=None, phases=phases)
    hypothesis.settings.load_profile("mutants")
    # Two searches through everything imported, which each child would otherwise repeat: pydantic's
    # for the source of a class, and the garbage collector's.
    inspect.getmodule(import_libraries.__code__)
    gc.freeze()


def main() -> int:
    """Prints the surviving mutants and each module's score; returns the exit status."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("modules", nargs="*", choices=[*TESTS, []], help="all if none is named")
    start = time.monotonic()
    mutants = {path: mutants_of(path) for path in parser.parse_args().modules or TESTS}
    import_libraries()
    orders = {TESTS[path]: Order() for path in mutants}
    survivors: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        folders = [copy_checkout(Path(scratch, str(i))) for i in range(os.cpu_count() or 1)]
        measured = [Run(tests, None, order) for tests, order in orders.items()]
        for run in finished(measured, folders):
            if run.killed:
                print((run.folder / "output").read_text())
                return 1
        runs = (
            Run(TESTS[path], mutant, orders[TESTS[path]])
            for path, found in mutants.items()
            for mutant in found
        )
        for run in finished(runs, folders):
            if run.mutant and not run.killed:
                survivors[run.mutant.path] += 1
                print(run.mutant, flush=True)
    total = sum(map(len, mutants.values()))
    for path, found in mutants.items():
        print(f"{path:40} {len(found) - survivors[path]:4} of {len(found):4} killed")
    score = 1 - survivors.total() / total
    minutes = (time.monotonic() - start) / 60
    print(f"{score:.1%} of {total} mutants killed in {minutes:.0f} minutes; target: {TARGET:.0%}")
    return int(score < TARGET)


if __name__ == "__main__":
    sys.exit(main())
