"""Curves and bars as SVG that takes its colours from the page."""

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--one)",
    "#050505": "var(--two)",
    "#060606": "var(--three)",
}
"""What matplotlib draws with, and what the page puts in its place, light or dark."""
INK, MUTED, LINE, ONE, TWO, THREE = COLOURS
SIZE = (4.6, 2.7)
"""Inches, so that text has its own size on a telephone."""
STYLE: Any = {
    "svg.fonttype": "none",
    # labels are the user's: a dollar sign in them is one
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
}
GIGABYTE = 1e9
MEGABYTE = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A drawing and what it shows, in words."""

    title: str
    svg: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A difference with its interval."""

    name: str
    value: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A model in the trade-off."""

    label: str
    score: float
    bytes: int
    tokens_per_second: float | None


def draw(
    name: str, title: str, plot: Callable[[Axes], None], size: tuple[float, float] = SIZE
) -> Chart:
    """A chart of one pair of axes.

    Args:
        name: made part of the drawing's identifiers, which must differ within a page.
    """
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        plot(axes)
        stream = io.StringIO()
        figure.savefig(
            stream,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    return Chart(title=title, svg=inlined(stream.getvalue(), name, title))


def inlined(svg: str, name: str, title: str) -> str:
    """The drawing as part of a page: sized by it, coloured by it, with identifiers of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(?<=\bid=")', f"{name}-", svg)
    svg = re.sub(r"(?<=url\(#)|(?<=href=\"#)", f"{name}-", svg)
    svg = re.sub(r"font: (\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \1px", svg)
    for drawn, shown in COLOURS.items():
        svg = svg.replace(drawn, shown)
    head = re.match(r"<svg[^>]*>", svg)
    assert head is not None
    box = re.search(r'viewBox="[^"]*"', head[0])
    assert box is not None
    opening = (
        f'<svg {box[0]} role="img" aria-label="{html.escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return opening + svg[head.end() :]


def curves(metrics: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Loss, learning rate, speed and memory over the steps of a run."""
    if not metrics:
        return []
    charts = [draw("loss", "Loss", lambda axes: _loss(axes, metrics))]
    for name, title, unit, key, factor in (
        ("lr", "Learning rate", "learning rate", "lr", 1.0),
        ("speed", "Throughput", "tokens per second", "tokens_per_second", 1.0),
        ("memory", "Peak memory", "GB", "peak_memory_bytes", GIGABYTE),
    ):
        found = [(one["step"], one[key] / factor) for one in metrics if key in one]
        if found:
            charts.append(draw(name, title, _line(found, unit)))
    return charts


def _steps(axes: Axes) -> None:
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def _line(found: Sequence[tuple[int, float]], unit: str) -> Callable[[Axes], None]:
    def plot(axes: Axes) -> None:
        steps, values = zip(*found, strict=True)
        axes.plot(steps, values, color=ONE, marker="o" if len(found) == 1 else None)
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0, top=1.1 * max(values) or 1.0)
        _steps(axes)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))

    return plot


def _loss(axes: Axes, metrics: Sequence[Mapping[str, Any]]) -> None:
    steps = [one["step"] for one in metrics]
    losses = [one["loss"] for one in metrics]
    many = len(losses) > 20
    axes.plot(
        steps,
        losses,
        color=ONE,
        alpha=0.35 if many else 1.0,
        label=None if many else "training",
        marker="o" if len(losses) == 1 else None,
    )
    if many:
        axes.plot(steps, smoothed(losses), color=ONE, label="training, smoothed")
    validated = [one for one in metrics if "validation_loss" in one]
    if validated:
        axes.plot(
            [one["step"] for one in validated], [one["validation_loss"] for one in validated],
            color=TWO, marker="o", markersize=3.5, label="validation",
        )  # fmt: skip
    axes.set_ylabel("loss (nats per token)")
    axes.legend(labelcolor=INK)
    _steps(axes)


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Exponential moving average, corrected for its beginning."""
    result, average = [], 0.0
    for count, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        result.append(average / (1 - weight**count))
    return result


def differences(name: str, title: str, bars: Sequence[Bar], unit: str) -> Chart:
    """Differences with their intervals, one below the other."""

    def plot(axes: Axes) -> None:
        colours = {"better": TWO, "worse": THREE, "unclear": MUTED}
        for place, bar in enumerate(reversed(bars)):
            colour = colours[bar.verdict]
            axes.plot([bar.low, bar.high], [place, place], color=colour, solid_capstyle="round")
            axes.plot([bar.value], [place], "o", color=colour, markersize=5)
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_yticks(range(len(bars)), [bar.name for bar in reversed(bars)])
        axes.set_ylim(-0.6, len(bars) - 0.4)
        axes.set_xlabel(unit)
        axes.grid(visible=False, axis="y")

    return draw(name, title, plot, (SIZE[0], 0.9 + 0.26 * len(bars)))


def trade_off(points: Sequence[Point], score: str, *, percent: bool) -> list[Chart]:
    """A score against size on disk, and against speed."""
    charts = []
    factor = 100 if percent else 1

    def against(values: Sequence[float], unit: str) -> Callable[[Axes], None]:
        def plot(axes: Axes) -> None:
            for index, (point, value) in enumerate(zip(points, values, strict=True)):
                colour = (MUTED, ONE)[index] if index < 2 else TWO
                axes.plot([value], [factor * point.score], "o", color=colour, markersize=7)
                axes.annotate(
                    point.label, (value, factor * point.score), xytext=(0, 8),
                    textcoords="offset points", ha="center", fontsize=8.5,
                )  # fmt: skip
            axes.set_xlabel(unit)
            axes.set_ylabel(f"{score} (%)" if percent else score)
            axes.set_xlim(0, 1.2 * max(values))
            axes.margins(y=0.25)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6))

        return plot

    sizes = [point.bytes / MEGABYTE for point in points]
    charts.append(draw("size", f"{score} against size", against(sizes, "weights on disk (MB)")))
    speeds = [point.tokens_per_second for point in points]
    if all(speeds):
        known = [float(speed or 0) for speed in speeds]
        unit = "generated tokens per second"
        charts.append(draw("rate", f"{score} against speed", against(known, unit)))
    return charts


def lengths(histogram: Sequence[Mapping[str, int]]) -> Chart:
    """How many rows have how many tokens."""

    def plot(axes: Axes) -> None:
        names = [f"{one['to']:,}" for one in histogram]
        axes.bar(range(len(names)), [one["rows"] for one in histogram], color=ONE, width=0.8)
        step = max(len(names) // 6, 1)
        axes.set_xticks(range(0, len(names), step), names[::step])
        axes.set_xlabel("tokens (up to)")
        axes.set_ylabel("rows")
        axes.grid(visible=False, axis="x")

    return draw("lengths", "Lengths of rows", plot)


def short(value: float) -> str:
    """A number for an axis: 2e-05, 0.25, 1,200, 15k."""
    if value == 0:
        return "0"
    if abs(value) < 1e-2:
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    return f"{value / 1000:,.0f}k" if abs(value) >= 10_000 else f"{value:,.4g}"
