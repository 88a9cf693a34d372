"""One page with the outcome: ratio bars with their intervals, the roofline, where the time goes, all tables.

Takes a report; gives HTML with inline SVG. Invariant: self-contained, no scripts; every mark has its number as a title.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence

from benchmarks.peers.record import CaseRecord, Report
from tessera_build.driver.profile import KernelRow
from tessera_build.driver.roofline import Roofline

# From operations a byte and GFLOP/s to a place on the drawing.
Place = Callable[[float, float], tuple[float, float]]

_WIDTH = 860
_LABEL = 190
_COLOURS = (
    "#3566a8",
    "#c9702b",
    "#3f8f5b",
    "#a04a8c",
    "#7a6a2f",
    "#5b6b7a",
    "#b03a48",
    "#4d9aa8",
    "#8a8a3a",
    "#6f57a3",
)
_STYLE = """
body{font:14px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.5em 0 1.5em}td:first-child,th:first-child{text-align:left}
td,th{padding:.15em .8em;text-align:right;border-bottom:1px solid #ddd}
svg{display:block;margin:.5em 0 1.5em}svg text{font:12px system-ui,sans-serif}
"""


def page(report: Report) -> str:
    """The whole page."""
    plural = "s" if report.threads > 1 else ""
    roof = report.roofline
    parts = [
        f"<!doctype html><meta charset=utf-8><title>Tessera beside its peers</title><style>{_STYLE}</style>",
        f"<h1>Tessera beside its peers</h1><p>{report.threads} thread{plural}, fp32; rounds interleaved in one process "
        f"group; one core: {roof.gflops:.0f} GFLOP/s, {roof.cache_gbps:.0f} GB/s from L2, "
        f"{roof.memory_gbps:.0f} GB/s from memory. Geometric mean of the ratios to the best peer of each model: "
        f"<b>{report.geometric_mean():.3f}</b>.</p>",
        "<h2>Peer's time over Tessera's</h2>",
        "<p>Median over rounds and its 95 % interval; above 1, Tessera is faster.</p>",
        _ratio_bars(report.cases),
        *_standings(report.cases),
        "<h2>Roofline</h2><p>Every kernel of every model: operations per byte against GFLOP/s.</p>",
        _roofline(report),
        "<h2>Where the time goes</h2>",
        *(_shares(case) for case in report.cases if case.kernels),
        *(_table(case) for case in report.cases),
    ]
    return "\n".join(parts)


def _ratio_bars(cases: Sequence[CaseRecord]) -> str:
    rows = [(case.name, peer, found) for case in cases for peer, found in case.ratios.items()]
    top = max([1.5, *(found.high for _, _, found in rows)]) * 1.05
    scale, lines = (_WIDTH - _LABEL - 60) / top, list[str]()
    peers = list(dict.fromkeys(peer for _, peer, _ in rows))
    for index, (name, peer, found) in enumerate(rows):
        y, middle = 22 * index + 4, 22 * index + 12
        colour = _COLOURS[peers.index(peer) % len(_COLOURS)]
        title = f"{name}, {peer}: {found.median:.3f} ({found.low:.3f} to {found.high:.3f})"
        lines.append(_rectangle((_LABEL, y, found.median * scale, 16), colour, title))
        lines.append(_line(_LABEL + found.low * scale, middle, _LABEL + found.high * scale, middle, "#111"))
        lines.append(_text(_LABEL - 6, y + 12, f"{name} · {peer}", "end"))
        lines.append(_text(_LABEL + found.high * scale + 5, y + 12, f"{found.median:.2f}"))
    height = 22 * len(rows) + 10
    lines.append(_line(_LABEL + scale, 0, _LABEL + scale, height, "#999"))
    return _svg(height, lines)


def _standings(cases: Sequence[CaseRecord]) -> list[str]:
    """What is held to a goal, and how it stands."""
    held = [(c.name, found.text()) for c in cases for found in (c.standing, c.streaming) if found is not None]
    if not held:
        return []
    rows = "".join(f"<tr><td>{html.escape(name)}<td>{html.escape(text)}" for name, text in held)
    return [f"<h2>Goals</h2><table>{rows}</table>"]


def _roofline(report: Report) -> str:
    """Logarithmic axes: 0.01 to 1000 operations a byte, 0.1 GFLOP/s to the peak."""
    roof, height, lines = report.roofline, 360, list[str]()
    top = math.log10(roof.gflops * report.threads * 1.6)

    def at(intensity: float, speed: float) -> tuple[float, float]:
        x = 50 + (math.log10(max(intensity, 1e-2)) + 2) / 5 * (_WIDTH - 70)
        return x, height - 30 - (math.log10(max(speed, 0.1)) + 1) / (top + 1) * (height - 50)

    for bandwidth, name in ((roof.cache_gbps, "L2"), (roof.memory_gbps, "memory")):
        lines += _ceiling(at, roof, bandwidth, name, report.threads)
    for index, case in enumerate(report.cases):
        colour = _COLOURS[index % len(_COLOURS)]
        lines += [_dot(at, row, case.name, colour) for row in case.kernels if row.operations and row.bytes]
        lines.append(_text(60 + 150 * (index % 5), 14 + 14 * (index // 5), f"● {case.name}", colour=colour))
    lines += [_text(at(10.0**e, 0.1)[0], height - 12, f"{10.0**e:g}", "middle") for e in range(-2, 4)]
    lines += [_text(44, at(0.01, 10.0**e)[1] + 4, f"{10.0**e:g}", "end") for e in range(-1, math.ceil(top))]
    return _svg(height, lines)


def _ceiling(at: Place, roof: Roofline, bandwidth: float, name: str, threads: int) -> list[str]:
    peak, ridge = roof.gflops * threads, roof.gflops / bandwidth
    start, corner, end = at(0.01, 0.01 * bandwidth * threads), at(ridge, peak), at(1000, peak)
    label = _text(start[0] + 8, start[1] - 6, f"{name} {bandwidth:.0f} GB/s")
    return [_line(*start, *corner, "#777"), _line(*corner, *end, "#777"), label]


def _dot(at: Place, row: KernelRow, model: str, colour: str) -> str:
    operations, moved = row.operations or 0.0, row.bytes or 1.0
    speed = operations / row.seconds / 1e9
    x, y = at(operations / moved, speed)
    radius = 2 + 12 * math.sqrt(row.share)
    title = html.escape(f"{model}: {row.node}, {1e6 * row.seconds:.1f} µs, {speed:.1f} GFLOP/s")
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"'
    return f'<circle {place} fill="{colour}" fill-opacity=".45"><title>{title}</title></circle>'


def _shares(case: CaseRecord) -> str:
    """One bar of the model's time, a piece for each of its dearest kernels."""
    x, lines = 0.0, list[str]()
    shown = case.kernels[: len(_COLOURS) * 3]
    for index, row in enumerate(shown):
        width = row.share * _WIDTH
        title = f"{row.node}: {1e6 * row.seconds:.1f} µs, {row.share:.1%}"
        lines.append(_rectangle((x, 4, width, 22), _COLOURS[index % len(_COLOURS)], title))
        x += width
    lines.append(_rectangle((x, 4, max(0.0, _WIDTH - x), 22), "#ccc", f"{len(case.kernels) - len(shown)} more"))
    return f"<h3>{html.escape(case.name)}</h3>" + _svg(30, lines)


def _table(case: CaseRecord) -> str:
    head = ("", "median ms", "best ms", "ratio", "build s", "artifact MB", "import ms", "load ms", "first ms")
    head = (*head, "peak MB", "difference")
    rows: list[str] = []
    for r in case.runners:
        if r.error:
            rows.append(f"<tr><td>{r.name}<td colspan=10>{html.escape(r.error)}")
            continue
        found = case.ratios.get(r.name)
        compared = "" if found is None else f"{found.median:.3f}"
        cells = [f"{1e3 * r.median:.3g}", f"{1e3 * r.minimum:.3g}", compared, f"{r.build_seconds:.1f}"]
        cells.append(f"{r.artifact_bytes / 1e6:.1f}")
        cells += [f"{1e3 * t:.0f}" for t in (r.import_seconds, r.load_seconds, r.first_seconds)]
        cells += [f"{r.peak_mb:.0f}", f"{r.difference:.1e}"]
        rows.append(f"<tr><td>{r.name}" + "".join(f"<td>{cell}" for cell in cells))
    titles = "".join(f"<th>{name}" for name in head)
    note = f"<p>{case.rounds} rounds; peak of one core in them: {case.peak_gflops:.0f} GFLOP/s.</p>"
    return f"<h3>{html.escape(case.name)}</h3>{note}<table><tr>{titles}{''.join(rows)}</table>"


def _svg(height: float, lines: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" height="{height:.0f}">{"".join(lines)}</svg>'


def _rectangle(box: tuple[float, float, float, float], colour: str, title: str) -> str:
    x, y, width, height = box
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{colour}"><title>{html.escape(title)}</title></rect>'


def _line(x: float, y: float, to_x: float, to_y: float, colour: str) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{colour}" stroke-width="1.5"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(text)}</text>'
