"""Figures as SVG for a page of any colour scheme, and as PNG. No window system, no clock, the same bytes every time.

A figure is drawn with a palette. For the page every colour of the palette is a sentinel that is then replaced by the
CSS variable of the same name, text stays text in the page's font, and ids are made the figure's own.
"""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

Palette = Mapping[str, str]
"""Colours by their names."""

LIGHT: Palette = {
    "ink": "#1b1f27", "muted": "#5f6877", "faint": "#b4bcc9", "grid": "#e3e7ed", "paper": "#ffffff",
    "best": "#1d5fc4", "second": "#b2540b", "right": "#147d6c", "wrong": "#b2305a",
}  # fmt: skip
DARK: Palette = {
    "ink": "#e9ecf2", "muted": "#a3adbd", "faint": "#5a6475", "grid": "#2b323e", "paper": "#14181f",
    "best": "#7db1ff", "second": "#ffb067", "right": "#5cd3ba", "wrong": "#ff8cab",
}  # fmt: skip

_SENTINELS: Palette = {name: f"#0fe{number:x}d{number:x}" for number, name in enumerate(LIGHT, 1)}

WIDTH, HEIGHT = 4.2, 3.5
"""Inches: narrow enough for the text to be read on a phone."""

PNG_DPI = 220
FONT_POINTS = 10.5

_STYLE: dict[Any, Any] = {
    "font.size": FONT_POINTS,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": FONT_POINTS - 1.0,
    "legend.handlelength": 1.7,
    "lines.solid_capstyle": "round",
}

Draw = Callable[[Figure, Palette], None]
"""Draws into an empty figure with a palette."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure to be drawn: a file name without an ending, a title, what it shows in a sentence, and how to draw it."""

    name: str
    title: str
    says: str
    draw: Draw
    height: float = HEIGHT

    def svg(self) -> str:
        """An <svg> element for a page with the palette's CSS variables, labelled with the title and the sentence."""
        with mpl.rc_context({**_STYLE, "svg.hashsalt": self.name}):
            figure = self._drawn(_SENTINELS)
            buffer = io.StringIO()
            metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
            figure.savefig(buffer, format="svg", metadata=metadata)
        return _embedded(buffer.getvalue(), self)

    def png(self) -> bytes:
        """The same in light colours, with its title."""
        with mpl.rc_context(_STYLE):
            figure = self._drawn(LIGHT)
            figure.suptitle(self.title, color=LIGHT["ink"], fontsize=FONT_POINTS + 1.0, x=0.02, ha="left")
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=PNG_DPI, metadata={"Software": None})
        return buffer.getvalue()

    def _drawn(self, palette: Palette) -> Figure:
        figure = Figure(figsize=(WIDTH, self.height), layout="constrained", facecolor=palette["paper"])
        self.draw(figure, palette)
        for axes in figure.axes:
            axes.set_facecolor("none")
            axes.grid(True, color=palette["grid"], linewidth=0.8)
            axes.set_axisbelow(True)
            axes.tick_params(colors=palette["muted"], length=0, labelsize=FONT_POINTS - 1.0)
            axes.xaxis.label.set_color(palette["ink"])
            axes.yaxis.label.set_color(palette["ink"])
            for spine in axes.spines.values():
                spine.set_color(palette["faint"])
        return figure


def _embedded(svg: str, picture: Picture) -> str:
    """The <svg> element alone, its colours variables, its ids its own, described for those who do not see it."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    for name, sentinel in _SENTINELS.items():
        element = element.replace(sentinel, f"var(--{name})")
    element = re.sub(r"font-family: [^;\"]*", "font-family: inherit", element)
    element = re.sub(r'\bid="', f'id="{picture.name}-', element)
    element = element.replace("url(#", f"url(#{picture.name}-").replace('href="#', f'href="#{picture.name}-')
    head, rest = element.split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', head)
    label = f"{picture.name}-title {picture.name}-desc"
    return (
        f'<svg viewBox="{box[1] if box else ""}" role="img" aria-labelledby="{label}"'
        ' xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{picture.name}-title">{escape(picture.title)}</title>'
        f'<desc id="{picture.name}-desc">{escape(picture.says)}</desc>{rest}'
    )
