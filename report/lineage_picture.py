"""The lineage of something as a picture: Graphviz's language, and a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import mean

from fraud.pipeline.lineage_graph import COMPARED, Execution, Graph, Origin, Reach
from fraud.report import lineage_text
from fraud.report.pages import render_page

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 216, 54, 22, 40
_MOST = 28  # characters in a box
_ROUNDS = 8


@dataclass(frozen=True)
class Box:
    """An execution in the picture.

    Attributes:
      execution: the execution.
      x, y: its upper left corner.
      lines: what is written in it: its node, and what it made.
    """

    execution: Execution
    x: float
    y: float
    lines: tuple[str, ...]

    @property
    def leads_to(self) -> int | None:
        """The first artifact that it made."""
        return next((i for ids in self.execution.outputs.values() for i in ids), None)


@dataclass(frozen=True)
class Edge:
    """An output of one execution that another one read, as a curve between their boxes."""

    path: str
    title: str
    compared: bool


@dataclass(frozen=True)
class Picture:
    """Boxes and edges, with the size of the whole."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    width: float
    height: float
    box_width: int = _WIDTH
    box_height: int = _HEIGHT


def to_dot(found: Origin | Reach) -> str:
    """The graph in Graphviz's language: executions are boxes, artifacts are ellipses."""
    graph = found.forward if isinstance(found, Reach) else found.back
    lines = ["digraph lineage {", "  rankdir=LR;", '  node [fontname="sans-serif"];']
    for artifact in graph.artifacts:
        words = lineage_text.phrase(artifact)
        label = f"{artifact.type} {artifact.id}" + (f"\n{words}" if words else "")
        lines.append(f"  a{artifact.id} [label={_quoted(label)}, shape=ellipse];")
    for execution in graph.executions:
        label = f"{execution.node}\n{execution.run_id}".rstrip()
        lines.append(f"  e{execution.id} [label={_quoted(label)}, shape=box];")
        for key, ids in execution.inputs.items():
            style = " [style=dashed]" if key in COMPARED else ""
            lines += [f"  a{i} -> e{execution.id}{style};" for i in ids]
        for ids in execution.outputs.values():
            lines += [f"  e{execution.id} -> a{i};" for i in ids]
    return "\n".join([*lines, "}"])


def to_html(found: Origin | Reach, link: str = "") -> str:
    """The lineage as a page that loads nothing.

    Args:
      found: the lineage.
      link: what the addresses of the lineages of others begin with; "" for no links.
    """
    return render_page(
        "lineage.html",
        found=found,
        is_day=isinstance(found, Reach),
        headline=lineage_text.headline(found),
        later=() if isinstance(found, Reach) else tuple(lineage_text.happened_later(found)),
        contents=lineage_text.contents_of(found.touched) if isinstance(found, Reach) else {},
        picture=None if isinstance(found, Reach) else picture(found.back),
        code=() if isinstance(found, Reach) else tuple(lineage_text.code_of(found.back)),
        words=lineage_text,
        link=link,
    )


def picture(graph: Graph) -> Picture:
    """Lays the executions of a graph out in layers, from the data down.

    The method of Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system
    structures", IEEE Transactions on Systems, Man, and Cybernetics 11 (1981): each execution is
    one layer below the lowest that it read from, and the order within layers follows the mean
    position of the neighbours, several times down and up. What is implied by longer ways is not
    drawn: everything reads the examples.
    """
    executions = {execution.id: execution for execution in graph.executions}
    above: dict[int, dict[int, str]] = {i: {} for i in executions}  # → what it read, by maker
    for execution in graph.executions:
        for key, ids in execution.inputs.items():
            for artifact_id in ids:
                maker = graph.makers.get(artifact_id)
                if maker and maker.id != execution.id:
                    above[execution.id][maker.id] = key
    level: dict[int, int] = {}
    for i in sorted(executions):  # what an execution read was made before it
        level[i] = 1 + max((level.get(j, -1) for j in above[i]), default=-1)
    layers: list[list[int]] = [[] for _ in range(1 + max(level.values(), default=-1))]
    for i in sorted(executions):
        layers[level[i]].append(i)
    _drop_implied(above)
    below: dict[int, list[int]] = {i: [] for i in executions}
    for i, makers in above.items():
        for j in makers:
            below[j].append(i)
    _order(layers, {i: list(makers) for i, makers in above.items()}, below)

    widest = max(map(len, layers), default=0)
    width = max(widest * (_WIDTH + _GAP_X) - _GAP_X, 0)
    corners = {}
    for row, layer in enumerate(layers):
        left = (width - len(layer) * (_WIDTH + _GAP_X) + _GAP_X) / 2
        for column, i in enumerate(layer):
            corners[i] = (left + column * (_WIDTH + _GAP_X), row * (_HEIGHT + _GAP_Y))
    boxes = [
        Box(executions[i], x, y, _lines(executions[i], graph)) for i, (x, y) in corners.items()
    ]
    edges = [
        Edge(
            _curve(corners[j], corners[i]),
            f"{key.lstrip('_')} of {executions[i].node}",
            key in COMPARED,
        )
        for i, makers in above.items()
        for j, key in makers.items()
    ]
    height = max(len(layers) * (_HEIGHT + _GAP_Y) - _GAP_Y, 0)
    return Picture(tuple(boxes), tuple(edges), width, height)


def _drop_implied(above: dict[int, dict[int, str]]) -> None:
    """Removes, in place, what an execution read from others that it also depends on indirectly."""
    ancestors: dict[int, set[int]] = {}
    for i in sorted(above):
        ancestors[i] = {*above[i]}.union(*(ancestors.get(j, ()) for j in above[i]))
    for makers in above.values():
        for j in list(makers):
            if any(j in ancestors.get(k, ()) for k in makers if k != j):
                del makers[j]


def _order(
    layers: list[list[int]], above: dict[int, list[int]], below: dict[int, list[int]]
) -> None:
    """Sorts each layer, in place, so that few edges cross."""
    for turn in range(_ROUNDS):
        neighbours, order = (above, layers) if turn % 2 == 0 else (below, layers[::-1])
        place = {
            i: (position + 0.5) / len(layer) for layer in layers for position, i in enumerate(layer)
        }
        for layer in order:
            wanted = {
                i: mean([place[j] for j in neighbours[i]]) if neighbours[i] else place[i]
                for i in layer
            }
            layer.sort(key=wanted.__getitem__)
            place |= {i: (position + 0.5) / len(layer) for position, i in enumerate(layer)}


def _lines(execution: Execution, graph: Graph) -> tuple[str, ...]:
    made = [graph.by_id[i] for ids in execution.outputs.values() for i in ids]
    shown = list(filter(None, map(lineage_text.phrase, made))) or [f"{a.type} {a.id}" for a in made]
    text = ", ".join(shown) or execution.state
    return (execution.node, text if len(text) <= _MOST else text[: _MOST - 1] + "…")


def _curve(start: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1 = start[0] + _WIDTH / 2, start[1] + _HEIGHT
    x2, y2 = end[0] + _WIDTH / 2, end[1]
    middle = (y1 + y2) / 2
    return f"M{x1:g},{y1:g} C{x1:g},{middle:g} {x2:g},{middle:g} {x2:g},{y2:g}"


def _quoted(text: str) -> str:
    """A string in Graphviz's language."""
    return json.dumps(text, ensure_ascii=False)
