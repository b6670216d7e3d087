"""Draw a workflow's graph as SVG: a box for each step, an arrow for each artifact that it passes on."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

from raypath.components.core.graph import Graph
from raypath.deploy.execution.workflow_loader import load_workflow

WIDTH, HEIGHT, GAP, ROW, EDGE = 116, 50, 38, 120, 14
STYLE = """
.box { fill: #ffffff; stroke: #4263eb; stroke-width: 1.5 }
text { text-anchor: middle; font-family: system-ui, -apple-system, "Segoe UI", sans-serif }
.name { font-size: 15px; font-weight: 600; fill: #1c2541 }
.type { font-size: 11.5px; fill: #5c677d }
.arrow { fill: none; stroke: #8d99ae; stroke-width: 1.5; marker-end: url(#head) }
"""
HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 z" fill="#8d99ae"/></marker></defs>'
)


def draw(workflow: str, path: Path) -> None:
    """Write the graph of a workflow with its default settings to `path`."""
    flow = load_workflow(workflow)
    graph = flow.trace(flow.params_type())
    places = _places(graph)
    width = max(x for x, _ in places.values()) + WIDTH + EDGE
    height = max(y for _, y in places.values()) + HEIGHT + 2 * EDGE
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    background = '<rect width="100%" height="100%" rx="8" fill="#f8f9fb"/>'
    shapes = "\n".join([*_arrows(graph, places), *_boxes(graph, places)])
    title = f"<title>{escape(workflow)}</title>"
    path.write_text(f"{svg}>{title}<style>{STYLE}</style>{HEAD}{background}\n{shapes}\n</svg>\n", encoding="utf-8")


def _places(graph: Graph) -> dict[str, tuple[int, int]]:
    """Upper left corners of the boxes: a row from left to right, the next one from right to left."""
    columns = (len(graph.nodes) + 1) // 2
    places = {}
    for number, node in enumerate(graph.nodes):
        row, column = divmod(number, columns)
        column = columns - 1 - column if row % 2 else column
        places[node.name] = (EDGE + column * (WIDTH + GAP), EDGE + row * ROW)
    return places


def _boxes(graph: Graph, places: dict[str, tuple[int, int]]) -> Iterator[str]:
    for node in graph.nodes:
        x, y = places[node.name]
        middle = x + WIDTH / 2
        yield f'<rect class="box" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>'
        yield f'<text class="name" x="{middle}" y="{y + 22}">{escape(node.name)}</text>'
        yield f'<text class="type" x="{middle}" y="{y + 39}">{escape(node.component.output.__name__)}</text>'


def _arrows(graph: Graph, places: dict[str, tuple[int, int]]) -> Iterator[str]:
    for node in graph.nodes:
        for source in dict.fromkeys(ref.step for ref in node.inputs):
            yield f'<path class="arrow" d="{_curve(places[source], places[node.name])}"/>'


def _curve(source: tuple[int, int], target: tuple[int, int]) -> str:
    (x, y), (to_x, to_y) = source, target
    step = WIDTH + GAP
    if y == to_y and abs(x - to_x) == step:
        begin, end = (x + WIDTH, to_x) if to_x > x else (x, to_x + WIDTH)
        return f"M{begin} {y + HEIGHT / 2} H{end}"
    if y == to_y:
        # Past the boxes between the two.
        begin, end, bottom = x + WIDTH / 2, to_x + WIDTH / 2, y + HEIGHT
        return f"M{begin} {bottom} C{begin} {bottom + 30} {end} {bottom + 30} {end} {bottom}"
    # Apart from each other where several begin or end at one box.
    begin = x + WIDTH / 2 + 30 * _sign(to_x - x)
    end = to_x + WIDTH / 2 + 30 * _sign(x - to_x)
    middle = (y + HEIGHT + to_y) / 2
    return f"M{begin} {y + HEIGHT} C{begin} {middle} {end} {middle} {end} {to_y}"


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
