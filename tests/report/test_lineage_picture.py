"""The picture of a lineage: layers from the data down, and only edges that say something new."""

from __future__ import annotations

from fraud.pipeline.lineage_graph import Artifact, Execution, Graph, Origin
from fraud.report.lineage_picture import picture, to_dot


def artifact(number: int, **properties: object) -> Artifact:
    return Artifact(number, "Model", "", "2026-01-01T00:00:00Z", True, properties)


def execution(number: int, reads: tuple[int, ...]) -> Execution:
    """It makes the artifact with its own number."""
    return Execution(
        id=number,
        node=f"N{number}",
        run_id="r",
        state="COMPLETE",
        began="2026-01-01T00:00:00Z",
        seconds=1.0,
        code=None,
        settings={},
        files=(),
        inputs={"in": reads},
        outputs={"out": (number,)},
    )


def graph(*reads: tuple[int, ...]) -> Graph:
    numbers = range(1, len(reads) + 1)
    return Graph(
        tuple(artifact(n) for n in numbers),
        tuple(execution(n, of) for n, of in zip(numbers, reads, strict=True)),
    )


def test_every_execution_is_below_what_it_read_and_nothing_overlaps():
    drawn = picture(graph((), (1,), (1,), (2, 3), (1, 4)))
    y = {box.execution.id: box.y for box in drawn.boxes}
    assert y[1] < y[2] == y[3] < y[4] < y[5]
    corners = [(box.x, box.y) for box in drawn.boxes]
    for i, (x, y_) in enumerate(corners):
        assert 0 <= x <= drawn.width - drawn.box_width
        for other in corners[i + 1 :]:
            assert abs(x - other[0]) >= drawn.box_width or abs(y_ - other[1]) >= drawn.box_height


def test_edges_that_longer_ways_imply_are_left_out():
    drawn = picture(graph((), (1,), (1, 2)))
    assert sorted(edge.title for edge in drawn.edges) == ["in of N2", "in of N3"]
    assert len(drawn.edges) == 2


def test_layers_are_ordered_so_that_edges_do_not_cross():
    # 1 and 2 lead to 4 and 3: in the order of their ids, the edges would cross.
    drawn = picture(graph((), (), (2,), (1,), (3, 4)))
    x = {box.execution.id: box.x for box in drawn.boxes}
    assert (x[1] < x[2]) == (x[4] < x[3])


def test_nothing_is_a_picture_of_nothing():
    assert picture(Graph()).boxes == ()


def test_names_cannot_break_out_of_graphviz_strings():
    hostile = 'a"];\nb -> c [label="\\'
    model = artifact(1, as_of=hostile)
    dot = to_dot(Origin("1", "artifact", (1,), None, (), (), (), Graph((model,), ())))
    (line,) = [line for line in dot.splitlines() if line.startswith("  a1 ")]
    assert line.startswith('  a1 [label="Model 1\\nas of a\\"];\\nb -> c [label=\\"\\\\"')
