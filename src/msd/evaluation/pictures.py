"""Pictures for people: image grids as Pillow pictures, and the report's small charts as inline SVG in one palette."""

from __future__ import annotations

import base64
import io
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from msd.evaluation.results import batch_sizes, latencies

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

# Without a home to keep its fonts in, matplotlib takes a temporary folder, which is nothing to tell a user.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

INK, MUTED, RULE = "#1c2330", "#5d6778", "#e3e7ee"

PART_COLOURS = ("#0f9d8a", "#a23b9e", "#b8860b", "#d1495b", "#5b8c2a", "#6b5bd2", "#8c5a3c", "#2a7f9e")
"""One colour per part, wherever the part is shown; apart from the colours of table rows."""

MAIN_COLOUR = "#1f4fd8"
KIND_COLOURS = {
    "teacher": ("#475569", "#94a3b8", "#c3ccd8"),
    "students": ("#e07b39", "#efb184", "#e8b90c", "#f472b6", "#38bdf8", "#84cc16"),
}
"""The colours of table rows but the main one, in the order in which rows of a kind appear; then again from the first."""

GAP = 2
"""Pixels between the images of a grid, and around it."""

NAME_LENGTH = 20
"""Longest name that a small chart has room for, in letters."""

SHARES = ("discriminator/accuracy",)
"""Those of the curves that lie between 0 and 1, and are drawn so; the others may span powers of ten."""
FEW = 30
"""Values of a curve below which none is smoothed."""

CURVES = (
    ("student/held_out", "Score-matching loss, held out", "student against teacher, on samples that no update sees"),
    ("student/dm", "Distribution-matching loss", "student"),
    ("student/regression", "Regression loss", "student, on teacher pairs"),
    ("critic/loss", "Critic loss", "critic"),
    ("student/gradient_norm", "Student gradient norm", "before clipping"),
    ("critic/gradient_norm", "Critic gradient norm", "before clipping"),
    ("discriminator/accuracy", "Discriminator accuracy", "of a step's last turn; 0.5 is chance"),
    ("student/gradient_ratio", "GAN over distribution matching", "norms of their gradients on the student's samples"),
)


def part_colour(part: int) -> str:
    return PART_COLOURS[part % len(PART_COLOURS)]


def row_colours(rows: Mapping[str, Mapping[str, Any]], main: str) -> dict[str, str]:
    """One colour per table row, by its kind and its place among the rows of that kind; the main row has its own."""
    seen = dict.fromkeys(KIND_COLOURS, 0)
    colours = {}
    for name, row in rows.items():
        if name == main:
            colours[name] = MAIN_COLOUR
            continue
        palette = KIND_COLOURS[row["kind"]]
        colours[name] = palette[seen[row["kind"]] % len(palette)]
        seen[row["kind"]] += 1
    return colours


def shortened(name: str, length: int = NAME_LENGTH) -> str:
    """A name that fits into a small chart: what is too long loses its middle."""
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}\u2026{name[-tail:]}"


def number(value: float | None, decimals: int | None = None) -> str:
    """Three meaningful digits unless `decimals` are given; a dash for nothing."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    if decimals is None:
        decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{decimals}f}"


def grid_image(pixels: Tensor, num_columns: int, zoom: int | None = None) -> Image:
    """Images `[N, C, H, W]` in [-1, 1] as one picture, row by row, each enlarged to at least 40 pixels."""
    from PIL import Image

    num, channels, height, width = pixels.shape
    num_rows = -(-num // num_columns)
    zoom = zoom or max(1, -(-40 // height))
    cells = (num_rows * (height * zoom + GAP) + GAP, num_columns * (width * zoom + GAP) + GAP)
    canvas = np.full((*cells, channels), 255, dtype=np.uint8)
    values = ((pixels.detach().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for index, picture in enumerate(values):
        top = GAP + (index // num_columns) * (height * zoom + GAP)
        left = GAP + (index % num_columns) * (width * zoom + GAP)
        canvas[top : top + height * zoom, left : left + width * zoom] = picture.repeat(zoom, 0).repeat(zoom, 1)
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)


def png_data_uri(image: Image) -> str:
    """The picture itself as a link, so that a page needs no second file."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def bars_svg(values: Mapping[str, float | None], limit: float, colours: Mapping[str, str], label: str) -> str:
    """Horizontal bars, one a table row, from 0 to `limit` (shared by sibling charts); a None is written as a dash."""
    figure, axes = _chart(3.3, 0.28 + 0.25 * len(values))
    for place, (name, value) in enumerate(values.items()):
        axes.barh(place, value or 0.0, height=0.68, color=colours[name])
        _write(axes, number(value), value or 0.0, place)
    axes.set_xlim(0, limit * 1.22)
    axes.set_xticks([])
    _name_rows(axes, list(values))
    axes.spines["left"].set_visible(True)
    return _svg(figure, label)


def latency_svg(
    milliseconds: Mapping[str, float | None], limits: tuple[float, float], colours: Mapping[str, str], label: str
) -> str:
    """Dots on a logarithmic axis of milliseconds, one a table row; `limits` are shared by sibling charts."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    figure, axes = _chart(4.4, 0.62 + 0.27 * len(milliseconds))
    low, high = 10 ** math.floor(math.log10(limits[0])), limits[1] * (limits[1] / limits[0]) ** 0.3
    for place, (name, value) in enumerate(milliseconds.items()):
        axes.axhline(place, color=RULE, linewidth=1, zorder=0)
        if value is not None:
            axes.plot([value], [place], "o", markersize=7, color=colours[name])
            _write(axes, number(value), value, place)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(numticks=7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(LogLocator(subs=(), numticks=7))
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.spines["bottom"].set_visible(True)
    axes.set_xlabel("ms per request, log scale")
    _name_rows(axes, list(milliseconds))
    return _svg(figure, label)


def curve_svg(points: Sequence[tuple[float, float]], limits: tuple[float, float], colour: str, label: str) -> str:
    """A curve of (step, value): every value faintly, the running mean over 10 steps boldly, once there are FEW.

    The vertical axis is logarithmic, unless `limits` begin at 0.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    kept = [(x, y) for x, y in points if math.isfinite(y) and y > 0]
    x, y = np.array(kept, dtype=float).reshape(-1, 2).T
    stride = max(1, len(x) // 160)
    figure, axes = _chart(2.45, 1.5)
    axes.plot(x[::stride], y[::stride], color=colour, alpha=0.28, linewidth=0.8)
    bold = y if len(y) < FEW else smoothed(y)  # a mean over all that there is would show nothing
    axes.plot(x[::stride], bold[::stride], color=colour, linewidth=1.6)
    axes.set_yscale("log" if limits[0] > 0 else "linear")
    axes.set_ylim(*limits)
    decades = math.log10(limits[1] / limits[0]) if limits[0] > 0 else 0
    if decades < 1:  # too few powers of ten for matplotlib, which then writes every tenth
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    else:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 1.6 else (1.0, 2.0, 5.0), numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axes.grid(color=RULE, linewidth=0.6)
    axes.spines["bottom"].set_visible(True)
    return _svg(figure, label)


def start_svg(starts: Mapping[str, tuple[Sequence[float], Sequence[float | None]]], colours: Mapping[str, str]) -> str:
    """Curves of (noise level, loss), one a table row, both axes logarithmic; a loss of 0 or None is not drawn."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, axes = _chart(5.6, 2.5)
    for name, (sigmas, losses) in starts.items():
        points = [(sigma, loss) for sigma, loss in zip(sigmas, losses, strict=True) if loss]
        axes.plot(*zip(*points, strict=True), "o-", markersize=3.5, linewidth=1.6, color=colours[name]) if points else None
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    axes.grid(color=RULE, linewidth=0.6)
    axes.spines["bottom"].set_visible(True)
    axes.set_xlabel("noise level, log scale")
    return _svg(figure, "loss of each row's start by noise level")


def part_charts(
    rows: Mapping[str, Mapping[str, Any]], main: str, partition: Mapping[str, Any], colours: Mapping[str, str]
) -> dict[str, Any] | None:
    """A chart a part, and the names of the rows left out: 8 times worse than the main row, they would flatten the others."""
    values = {name: row["per_part"] for name, row in rows.items() if any(v is not None for v in row.get("per_part") or [])}
    if not values:
        return None
    worst = {name: max(value for value in parts if value is not None) for name, parts in values.items()}
    bound = 8 * worst.get(main, min(worst.values()))
    shown = [name for name in values if worst[name] <= bound]
    limit = max(worst[name] for name in shown)
    charts = []
    for part in partition["parts"]:
        index = part["part"]
        heights = {name: values[name][index] if index < len(values[name]) else None for name in shown}
        charts.append({"part": part, "svg": bars_svg(heights, limit, colours, f"distance of each row on part {index}")})
    return {"charts": charts, "left_out": [name for name in values if name not in shown]}


def latency_charts(rows: Mapping[str, Mapping[str, Any]], colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """A chart for each size of request, all with the same horizontal axis."""
    measured = {name: latencies(row) for name, row in rows.items() if row.get("latency_ms")}
    everything = [value for batches in measured.values() for value in batches.values() if value]
    if not everything:
        return []
    limits = (min(everything), max(everything))
    charts = []
    for size in batch_sizes(rows):
        values = {name: batches.get(size) for name, batches in measured.items()}
        svg = latency_svg(values, limits, colours, f"milliseconds per request of {size} images, by row")
        charts.append({"batch": size, "svg": svg})
    return charts


@dataclass(frozen=True)
class Curve:
    """The training of one job: a record a step. A job that rows share is shown once, for the first of them."""

    job: str
    row: str
    part: int | None
    """The part of its row's partition that the job's student owns; None where the row is not divided."""
    records: list[dict[str, float]]
    warnings: tuple[str, ...] = ()
    """What it warned of."""


def curve_charts(
    curves: Sequence[Curve], rows: Mapping[str, Mapping[str, Any]], colours: Mapping[str, str]
) -> list[dict[str, Any]]:
    """For each recorded quantity, one panel a training in the order of the rows, all with the same vertical axis."""
    order = {name: place for place, name in enumerate(rows)}
    jobs: dict[str, Curve] = {}
    for curve in sorted(curves, key=lambda curve: order.get(curve.row, len(order))):
        jobs.setdefault(curve.job, curve)
    result = []
    for key, title, note in CURVES:
        series = {}
        for job, curve in jobs.items():
            points = [(record["step"], record[key]) for record in curve.records if key in record]
            if any(math.isfinite(value) and value > 0 for _, value in points):
                series[job] = points
        if not series:
            continue
        positive = sorted(v for points in series.values() for _, v in points if math.isfinite(v) and v > 0)
        limits = (0.0, 1.0) if key in SHARES else (positive[len(positive) // 200] / 1.2, positive[-1] * 1.2)
        panels = []
        for job, points in series.items():
            colour = _curve_colour(jobs[job], rows, colours)
            svg = curve_svg(points, limits, colour, f"{title} of {job}")
            panels.append({"job": job, "caption": shortened(job), "colour": colour, "svg": svg})
        result.append({"title": title, "note": note, "panels": panels})
    return result


def _curve_colour(curve: Curve, rows: Mapping[str, Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    """Its part's, where its row has several students; else its row's."""
    if curve.part is not None and (rows.get(curve.row, {}).get("num_students") or 1) > 1:
        return part_colour(curve.part)
    return colours.get(curve.row, MUTED)


def smoothed(values: np.ndarray, window: int = 10) -> np.ndarray:
    """Centred running mean, over fewer values at the ends; same length."""
    kernel = np.ones(min(window, max(1, len(values))))
    if not len(values):
        return values
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def _chart(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty bare chart of `width` x `height` inches; 72 units an inch, so font size 10 is about 10 pixels."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
    axes = figure.add_subplot()
    for spine in axes.spines.values():
        spine.set_visible(False)
        spine.set_color(RULE)
    axes.tick_params(colors=MUTED, labelsize=9.5, length=0, pad=3)
    axes.xaxis.label.set(color=MUTED, fontsize=9.5)
    return figure, axes


def _write(axes: Axes, text: str, x: float, y: float) -> None:
    """Text to the right of a point."""
    axes.annotate(text, (x, y), (7, 0), textcoords="offset points", va="center", color=INK, fontsize=9.5)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    # Names come from the user: an escaped "$" does not start mathematics.
    axes.set_yticks(range(len(names)), [shortened(name).replace("$", r"\$") for name in names])
    axes.tick_params(axis="y", labelcolor=INK, pad=5)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _svg(figure: Figure, label: str) -> str:
    """The figure as an inline `<svg>`: scalable, text as text, no namespaces, ids or metadata that a page does not need."""
    import matplotlib

    stream = io.StringIO()
    # A fixed salt makes the same report the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "msd"}):
        figure.savefig(stream, format="svg", transparent=True)
    content = stream.getvalue()
    content = content[content.index("<svg") :]
    content = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", content, flags=re.DOTALL)
    content = re.sub(r'<g id="[^"]*"', "<g", content)
    content = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), content)
    head, body = content.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    described = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    opening = f'<svg {box[0] if box else ""} role="img" aria-label="{described}">'
    return opening + re.sub(r"\n\s*", "\n", body.replace("xlink:href", "href"))
