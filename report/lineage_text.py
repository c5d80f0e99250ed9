"""The lineage of a version, a run, an artifact or a day, as text."""

from __future__ import annotations

from collections.abc import Iterator

from fraud.pipeline.lineage_graph import (
    COMPARED,
    FEATURES,
    Artifact,
    Data,
    Execution,
    Graph,
    Origin,
    Reach,
    Touched,
)
from fraud.report.pages import moment
from fraud.text import plain

SHORT = 12
"""Characters of a hash."""


def render(found: Origin | Reach) -> str:
    """The lineage as text: first the answer, then a tree of how it came about."""
    return "\n".join(map(plain, _reach(found) if isinstance(found, Reach) else _origin(found)))


def headline(found: Origin | Reach) -> str:
    """The answer in a sentence."""
    if isinstance(found, Reach):
        versions = {r.version for t in found.touched for r in t.releases}
        models = {i for t in found.touched for i in t.models if t.role in ("train", FEATURES)}
        runs = {run for t in found.touched for run in t.runs}
        return (
            f"Day {found.day}: {_count(len(runs), 'run')} read it, {_count(len(models), 'model')} "
            f"learned from it, {_count(len(versions), 'version')} came of these runs."
        )
    if release := found.release:
        how = "restored by a rollback" if release.restored else "pushed by a run"
        state = f"live since {moment(release.since)}"
        if not release.is_live:
            until = f" to {moment(release.until)}" if release.until else ""
            state = f"was live from {moment(release.since)}{until}"
        return f"Version {release.version}: {how}, {state}."
    if found.kind == "run":
        return f"Run {found.asked}: {_count(len(found.starts), 'artifact')} at its end."
    return f"Artifact {', '.join(map(str, found.starts))}."


def happened_later(found: Origin) -> Iterator[str]:
    """What rollbacks did to a version, a sentence each; nothing about anything else."""
    if found.release is None:
        return
    if found.release.restored:
        yield (
            f"It restored the weights of version {found.release.restored}, by "
            f"{found.release.user}: {found.release.reason}"
        )
    elif found.release.reason:
        yield f"Accepted on request: {found.release.reason}."
    told = [(r, f"Restored as version {r.version}") for r in found.restored]
    told += [(r, f"Taken back by version {r.version}") for r in found.taken_back]
    for rollback, what in sorted(told, key=lambda pair: int(pair[0].version)):
        yield f"{what} at {moment(rollback.since)}, by {rollback.user}: {rollback.reason}"


def phrase(artifact: Artifact) -> str:
    """What is worth knowing about an artifact, in a few words; may be empty."""
    facts = artifact.properties
    text = ""
    if artifact.type == "PushedModel":
        text = f"version {facts.get('pushed_version')}"
        if facts.get("pushed") != 1:
            text = str(facts.get("reason") or facts.get("outcome") or "not pushed")
    elif artifact.type == "Model":
        text = f"as of {facts['as_of']}" if facts.get("as_of") else ""
    elif artifact.type == "ModelBlessing":
        text = "blessed" if facts.get("blessed") == 1 else "refused"
        if facts.get("baseline_model_id"):
            text += f", against model {facts['baseline_model_id']}"
    elif artifact.type == "InfraBlessing":
        text = "it can be served" if facts.get("blessed") == 1 else "it cannot be served"
    elif artifact.type == "fraud.DataVerdict":
        text = "passed" if facts.get("passed") == 1 else "refused"
    elif artifact.type == "Examples":
        text = f"as of {facts['as_of']}" if facts.get("as_of") else ""
    return text if artifact.is_kept else f"{text}; its files are deleted".lstrip("; ")


def days_of(data: Data) -> str:
    """The days that were read, and how many."""
    days = sorted({day for file in data.files for day in file.days})
    if not days:
        return _count(len(data.files), "file") if data.files else "files not recorded"
    return f"{_count(len(days), 'day')} {days[0]} … {days[-1]}"


def code_of(graph: Graph) -> Iterator[str]:
    """The code that ran: each version of it once, with the nodes if there are several."""
    by_code: dict[str, list[str]] = {}
    for execution in graph.executions:
        if code := execution.code:
            commit = f", commit {code.commit[:SHORT]}" if code.commit else ""
            edits = " and edits" if code.dirty else ""
            packages = "".join(f"; {name} {version}" for name, version in code.packages.items())
            text = f"version {code.version or 'unknown'}{commit}{edits}{packages}"
            by_code.setdefault(text, []).append(execution.node)
    for text, nodes in by_code.items():
        yield text if len(by_code) == 1 else f"{', '.join(dict.fromkeys(nodes))}: {text}"


def contents_of(touched: tuple[Touched, ...]) -> dict[tuple[str, ...], str]:
    """Each content that a day has had → a letter, if it has had several."""
    contents = list(dict.fromkeys(t.fingerprints for t in touched if t.fingerprints))
    return {c: chr(65 + i % 26) for i, c in enumerate(contents)} if len(contents) > 1 else {}


def _origin(found: Origin) -> Iterator[str]:
    yield headline(found)
    yield from (f"  {sentence}" for sentence in happened_later(found))
    runs = dict.fromkeys(e.run_id for e in found.back.executions if e.run_id)
    if runs:
        yield f"  run       {', '.join(runs)}"
    yield from (f"  code      {text}" for text in code_of(found.back))
    for data in found.data:
        yield f"  data      {data.path}: {days_of(data)}, fingerprint {data.fingerprint[:SHORT]}"
        for split, (first, last) in data.windows.items():
            rows = f"   {data.rows[split]:,} rows" if split in data.rows else ""
            yield f"    {split:<10}{first} … {last}{rows}"
    yield ""
    tree = _Tree(found.back, named_runs=len(runs) > 1)
    for start in found.starts:
        yield from tree.lines(start)
    if found.forward.executions:
        yield ""
        yield "Made from it:"
        for artifact in found.forward.artifacts:
            maker = found.forward.makers.get(artifact.id)
            if artifact.id not in found.starts and maker:
                yield f"  {_line(artifact, maker)}"


class _Tree:
    """Artifacts, and below each what it was made from.

    Args:
      graph: of all of them.
      named_runs: whether the run of each is named.
    """

    def __init__(self, graph: Graph, named_runs: bool):
        self._graph, self._named_runs = graph, named_runs
        self._shown: set[int] = set()

    def lines(
        self, artifact_id: int, key: str = "", indent: str = "", below: str = ""
    ) -> Iterator[str]:
        """The lines of one artifact.

        Args:
          artifact_id: the artifact.
          key: as what it was read.
          indent, below: what the first line and the others begin with.
        """
        artifact, maker = self._graph.by_id[artifact_id], self._graph.makers.get(artifact_id)
        name = f"{key}: " if key else ""
        if artifact_id in self._shown:
            yield f"{indent}{name}{artifact.type} {artifact.id} (see above)"
            return
        self._shown.add(artifact_id)
        if key in COMPARED or maker is None:
            yield f"{indent}{name}{artifact.type} {artifact.id}  {phrase(artifact)}".rstrip()
            return
        yield f"{indent}{name}{_line(artifact, maker, self._named_runs)}{self._beside(artifact_id)}"
        children = [(k.rpartition(".")[2], i) for k, ids in maker.inputs.items() for i in ids]
        for number, (input_key, child) in enumerate(children, start=1):
            last = number == len(children)
            branch, trunk = ("└─ ", "   ") if last else ("├─ ", "│  ")
            yield from self.lines(child, input_key, below + branch, below + trunk)

    def _beside(self, artifact_id: int) -> str:
        """What else the execution made."""
        outputs = self._graph.makers[artifact_id].outputs.values()
        others = [self._graph.by_id[i] for ids in outputs for i in ids if i != artifact_id]
        return "".join(f", with {other.type} {other.id}" for other in others)


def _line(artifact: Artifact, maker: Execution, named_run: bool = True) -> str:
    run = f" in run {maker.run_id}" if named_run and maker.run_id else ""
    state = "" if maker.state in ("COMPLETE", "CACHED") else f" ({maker.state})"
    return f"{artifact.type} {artifact.id} ← {maker.node}{run}{state}  {phrase(artifact)}".rstrip()


def _reach(found: Reach) -> Iterator[str]:
    yield headline(found)
    live = [r for t in found.touched for r in t.releases if r.is_live]
    for release in live:
        (role,) = {t.role for t in found.touched if release in t.releases}
        where = "its features looked back on the day"
        if role != FEATURES:
            where = f"the day is in its {role} window"
        yield f"  Version {release.version} is live; {where}."
    contents = contents_of(found.touched)
    for content, letter in contents.items():
        yield f"  content {letter}: {', '.join(c[:SHORT] for c in content)}"
    yield ""
    head = ["as of", "used for", "data gate", "models", "versions", "runs"]
    rows = [head, *(_row(touched, contents) for touched in found.touched)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(touched: Touched, contents: dict[tuple[str, ...], str]) -> list[str]:
    letter = contents.get(touched.fingerprints)
    versions = [r.version + (" (live)" if r.is_live else "") for r in touched.releases]
    return [
        touched.as_of,
        touched.role + (f" (content {letter})" if letter else ""),
        touched.gate,
        ", ".join(map(str, touched.models)) or "none",
        ", ".join(versions) or "none",
        ", ".join(touched.runs),
    ]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
