"""Containers that are nothing but a background."""

from __future__ import annotations

from textual.containers import Vertical
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class Ground(Widget):
    """Mixed into a container, as the last base: it is painted as one blank row, repeated.

    Textual would style each row of it, and again whenever something in it grows by a line, although the
    widgets in it hide nearly all of them.
    """

    def render_lines(self, crop: Region) -> list[Strip]:
        if any(edge for edge, _ in self.styles.border):
            return super().render_lines(crop)
        strip = Strip.blank(crop.width, self.visual_style.rich_style)
        for line_filter in self.get_line_filters():
            strip = strip.apply_filter(line_filter, self.background_colors[1])
        return [strip] * crop.height


class Column(Vertical, Ground):
    """Widgets one below the other."""
