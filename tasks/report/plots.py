"""Draw plots as inline SVG. The colours are CSS variables of the page, for light and dark mode.

Colour is never the only distinction: series have names, and intervals have marks. A plot is as wide as its column. The
view boxes are narrow, so that text is readable on a phone. All text is escaped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 440  # units of the view box
_TOP, _RIGHT, _BOTTOM, _LEFT = 10.0, 12.0, 38.0, 44.0


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: the count of `low` ≤ value < `high` (the last bar includes `high`)."""

    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Interval:
    """One row of an interval plot. Without bounds only the point is drawn."""

    label: str
    detail: str
    value: float
    low: float | None
    high: float | None
    is_clear: bool


@dataclass(frozen=True)
class Dot:
    """One point of a scatter plot; `kind` names its CSS class."""

    x: float
    y: float
    kind: str


@dataclass(frozen=True)
class _Scale:
    """A linear scale from values to units of the view box."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 2)


def bin_values(values: Sequence[float], low: float, high: float, bins: int) -> list[Bar]:
    """Count values in equal bins from `low` to `high`. Values outside are counted in the first or last bin.

    >>> [bar.count for bar in bin_values([0.1, 0.4, 0.5, 1.0], 0, 1, 2)]
    [2, 2]
    """
    counts = dict.fromkeys(range(bins), 0)
    for value in values:
        place = math.floor((value - low) / (high - low) * bins + 1e-9)
        counts[min(max(place, 0), bins - 1)] += 1
    return bars_of(counts, low, high, bins)


def bars_of(counts: Mapping[int, int], low: float, high: float, bins: int) -> list[Bar]:
    """Return equal bars from `low` to `high` with counts by their number."""
    width = (high - low) / bins
    return [Bar(low + i * width, low + (i + 1) * width, counts.get(i, 0)) for i in range(bins)]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`, roughly `about` many.

    >>> ticks(0, 9)
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, last + 1)]


def histogram(bars: Sequence[Bar], *, label: str, x_title: str, y_title: str) -> Markup:
    """Draw a histogram."""
    height = 230.0
    low, high = (bars[0].low, bars[-1].high) if bars else (0.0, 1.0)
    top = max([bar.count for bar in bars] or [0]) or 1
    x, y = _Scale(low, high, _LEFT, WIDTH - _RIGHT), _Scale(0, top, height - _BOTTOM, _TOP)
    parts = [_y_axis(y, _whole(top), y_title)]
    for bar in bars:
        if bar.count:
            tip = f"{_label(bar.low)} to {_label(bar.high)}: {bar.count}"
            box = _rect(x(bar.low) + 0.8, y(bar.count), x(bar.high) - x(bar.low) - 1.6, y(0) - y(bar.count))
            parts.append(_tag("g", _tag("title", tip) + box, class_="fill-accent"))
    parts.append(_x_axis(x, ticks(low, high), height, x_title))
    return _svg(parts, height, label)


def counts(
    values: Mapping[int, int], *, label: str, x_title: str, y_title: str, cut: tuple[int, str] | None = None
) -> Markup:
    """Draw the count of each whole number as a bar centred on it. `cut` marks the last number that is kept."""
    last = max([*values, cut[0] + 1 if cut else 0, 4])
    bars = [Bar(i - 0.5, i + 0.5, values.get(i, 0)) for i in range(last + 1)]
    mark = (cut[0] + 0.5, cut[1]) if cut else None
    height = 300.0
    x = _Scale(-0.5, last + 0.5, _LEFT, WIDTH - _RIGHT)
    top = max(bar.count for bar in bars) or 1
    y = _Scale(0, top, height - _BOTTOM, _TOP + (28 if mark else 12))
    parts = [_y_axis(y, _whole(top), y_title)]
    step = max(1, math.ceil((last + 1) / 16))
    for i, bar in enumerate(bars):
        kind = "fill-cut" if cut and i > cut[0] else "fill-none" if i == 0 else "fill-accent"
        gap = (x(1) - x(0)) * 0.08
        box = _rect(x(bar.low) + gap, y(bar.count), x(bar.high) - x(bar.low) - 2 * gap, y(0) - y(bar.count))
        number = _text(x(i), y(bar.count) - 4, bar.count, anchor="middle", class_="value") if bar.count else Markup()
        parts.append(_tag("g", _tag("title", f"{bar.count} with {i}") + box, class_=kind) + number)
        if i % step == 0:
            parts.append(_text(x(i), height - _BOTTOM + 15, i, anchor="middle"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, height - 5, x_title, anchor="middle", class_="axis-title"))
    if mark:
        parts.append(_mark(x(mark[0]), mark[1], height))
    return _svg(parts, height, label)


def ridges(rows: Sequence[tuple[str, str, Sequence[Bar]]], *, label: str, x_title: str) -> Markup:
    """Draw a small histogram per (kind, name, bars), one above the other on one x axis, each with its own scale."""
    width, band = 330, 66.0
    height = band * max(len(rows), 1) + _BOTTOM
    bounds = rows[0][2] if rows else [Bar(0.0, 1.0, 0)]
    x = _Scale(bounds[0].low, bounds[-1].high, 6.0, width - 6.0)
    parts = []
    for i, (kind, name, bars) in enumerate(rows):
        floor = band * (i + 1) - 2
        total = sum(bar.count for bar in bars)
        y = _Scale(0, max([bar.count for bar in bars] or [0]) or 1, floor, floor - band + 24)
        parts.append(_line(x(x.low), floor, x(x.high), floor, "axis"))
        for bar in bars:
            if bar.count:
                tip = f"{name}, {_label(bar.low)} to {_label(bar.high)}: {bar.count}"
                box = _rect(x(bar.low) + 0.6, y(bar.count), x(bar.high) - x(bar.low) - 1.2, floor - y(bar.count))
                parts.append(_tag("g", _tag("title", tip) + box, class_=f"fill-{kind}"))
        dot = _tag("rect", x=6, y=floor - band + 8, width=9, height=9, rx=2, class_=f"fill-{kind}")
        parts.append(dot + _text(20, floor - band + 16, f"{name}  {total:,}", class_="name"))
    parts.append(_x_axis(x, ticks(x.low, x.high), height, x_title))
    return _svg(parts, height, label, width)


def intervals(rows: Sequence[Interval], *, label: str, x_title: str) -> Markup:
    """Draw a forest plot: a point and its interval per row, with a line at zero."""
    band, height = 46.0, 46.0 * max(len(rows), 1) + _BOTTOM + 6
    ends = [abs(v) for row in rows for v in (row.value, row.low, row.high) if v is not None]
    reach = max([*ends, 0.01]) * 1.12
    x = _Scale(-reach, reach, 8.0, WIDTH - 8.0)
    base = height - _BOTTOM
    parts = [_line(x(tick), 4, x(tick), base, "grid") for tick in ticks(-reach, reach, 6)]
    parts.append(_line(x(0), 2, x(0), base, "zero"))
    for i, row in enumerate(rows):
        middle = band * i + 34
        kind = "neutral" if not row.is_clear else "relevant" if row.value > 0 else "unsure"
        shapes = _tag("title", f"{row.label}: {row.detail}")
        if row.low is not None and row.high is not None:
            low, high = x(row.low), x(row.high)
            shapes += _line(low, middle, high, middle, "whisker")
            shapes += _line(low, middle - 4, low, middle + 4, "whisker") + _line(
                high, middle - 4, high, middle + 4, "whisker"
            )
        shapes += _tag("circle", cx=x(row.value), cy=middle, r=5)
        parts.append(_tag("g", shapes, class_=f"interval {kind}"))
        parts.append(_text(8, middle - 14, row.label, class_="name halo"))
        parts.append(_text(WIDTH - 8, middle - 14, row.detail, anchor="end", class_="value halo"))
    parts.append(_x_axis(x, ticks(-reach, reach, 6), height, x_title, signed=True))
    return _svg(parts, height, label)


def scatter(dots: Sequence[Dot], *, label: str, x_title: str, y_title: str, diagonal: bool = False) -> Markup:
    """Draw points in the unit square, with a line where both values are equal if `diagonal` is set."""
    height = 300.0
    x, y = _Scale(0, 1, _LEFT, WIDTH - _RIGHT), _Scale(0, 1, height - _BOTTOM, _TOP)
    parts = [_y_axis(y, ticks(0, 1), y_title), _x_axis(x, ticks(0, 1), height, x_title)]
    parts += [_line(x(0), y(0), x(1), y(1), "zero")] if diagonal else []
    parts += [_symbol(dot.kind, x(dot.x), y(dot.y)) for dot in dots]
    return _svg(parts, height, label)


def _symbol(kind: str, x: float, y: float) -> Markup:
    """Return the shape of a point. Each kind has another shape, so colour is not needed."""
    shapes = {
        "relevant": f"M{x - 4} {y}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        "unsure": f"M{x} {y - 4.6:.2f}L{x + 4.4:.2f} {y + 3.4:.2f}H{x - 4.4:.2f}z",
        "not_relevant": f"M{x - 3} {y - 3:.2f}h6v6h-6z",
    }
    return _tag("path", d=shapes.get(kind, shapes["not_relevant"]), class_=f"dot fill-{kind}")


def _whole(top: int) -> list[float]:
    return [tick for tick in ticks(0, top, 4) if tick == int(tick)]


def _y_axis(y: _Scale, at: Sequence[float], title: str) -> Markup:
    parts = [_line(_LEFT, y(tick), WIDTH - _RIGHT, y(tick), "axis" if tick == 0 else "grid") for tick in at]
    parts += [_text(_LEFT - 6, y(tick) + 4, _label(tick), anchor="end") for tick in at]
    middle = (y.start + y.end) / 2
    turned = _text(11, middle, title, anchor="middle", class_="axis-title", transform=f"rotate(-90 11 {middle:.1f})")
    return Markup("").join([*parts, turned])


def _x_axis(x: _Scale, at: Sequence[float], height: float, title: str, *, signed: bool = False) -> Markup:
    base = height - _BOTTOM
    parts = [_line(x.start, base, x.end, base, "axis")]
    for tick in at:
        sign = "+" if signed and tick > 0 else ""
        parts.append(_text(min(max(x(tick), 12), x.end - 6), base + 15, sign + _label(tick), anchor="middle"))
    parts.append(_text((x.start + x.end) / 2, height - 5, title, anchor="middle", class_="axis-title"))
    return Markup("").join(parts)


def _mark(x: float, text: str, height: float) -> Markup:
    """Draw a dashed line at the cut, with its name on the side that has room."""
    right = x < WIDTH * 0.6
    name = _text(x + (5 if right else -5), _TOP + 8, text, anchor="start" if right else "end", class_="name halo")
    return _line(x, _TOP, x, height - _BOTTOM, "cut") + name


def _svg(parts: Sequence[Markup], height: float, label: str, width: int = WIDTH) -> Markup:
    return _tag("svg", Markup("").join(parts), viewBox=f"0 0 {width} {height:g}", role="img", aria_label=label)


def _rect(x: float, y: float, width: float, height: float) -> Markup:
    return _tag("rect", x=round(x, 2), y=round(y, 2), width=round(max(width, 0.5), 2), height=round(height, 2), rx=1.5)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return _tag("line", x1=round(x1, 2), y1=round(y1, 2), x2=round(x2, 2), y2=round(y2, 2), class_=kind)


def _text(x: float, y: float, text: object, *, anchor: str = "start", class_: str = "", transform: str = "") -> Markup:
    return _tag(
        "text", escape(text), x=round(x, 2), y=round(y, 2), text_anchor=anchor, class_=class_, transform=transform
    )


def _tag(name: str, content: str = "", **attributes: str | float) -> Markup:
    """Return an element. In attribute names a trailing underscore is dropped, and others become hyphens."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value != ""}
    listed = Markup("").join(Markup(' {}="{}"').format(key, _short(value)) for key, value in given.items())
    return Markup("<{0}{1}>{2}</{0}>").format(name, listed, escape(content))


def _label(value: float) -> str:
    return f"{value:,.6g}".replace("-", "−")


def _short(value: str | float) -> str:
    """Format a number with at most six digits. Text is returned unchanged."""
    if isinstance(value, str):
        return value
    return f"{value:.6g}"
