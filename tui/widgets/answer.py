"""An answer as Markdown: one widget for all of it, so that a screen with many stays quick to lay out.

What is on the screen is painted from rows that are laid out once. While the answer grows, only its end is
laid out anew.
"""

from __future__ import annotations

import asyncio
from typing import Final

from textual import events
from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual
from textual.widget import Widget

from localai.chat.clean import clean_line
from tui.clipboard import code_blocks
from tui.growing import Growing
from tui.lines import Line, selected
from tui.markdown import lay_out

PAINTED: Final = 400
"""Rows that are kept painted: several screens, and not all of a long reply."""


class Answer(Widget):
    """The answer's text, which must have gone through `clean`. `append` as it comes, then `finish`."""

    DEFAULT_CSS = """
    Answer { height: auto; width: 1fr; }
    """

    auto_links = False  # the parts that can be clicked keep their colours

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.source = text
        self._growing: Growing | None = None
        self._lines: list[Line] = []
        self._laid_for = 0
        """The width in cells that `_lines` are for; 0: none yet."""
        self._before: tuple[int, str, list[Line]] = (0, "", [])
        """The width before this one, and the rows for it: the list beside the conversation comes and goes."""
        self._strips: dict[int, Strip] = {}

    def append(self, text: str) -> None:
        """Add text at the end."""
        self.source += text
        if not self._laid_for:
            return
        new = text
        if self._growing is None:
            self._growing, new = Growing(self._laid_for), self.source
        before = self._lines[:]
        first = self._growing.add(new)
        self._show(self._growing.lines, before, first)

    async def finish(self, text: str) -> None:
        """`text` is all of it: what its later lines changed of earlier ones comes right."""
        self.source, self._growing = text, None
        if width := self._laid_for:
            lines = await asyncio.to_thread(lay_out, text, width)
            if width == self._laid_for:
                self._show(lines, self._lines)

    def _show(self, lines: list[Line], before: list[Line], first: int = 0) -> None:
        """Paint what differs from `before`, from row `first` on; lay the screen out if the height does."""
        self._lines = lines
        # Also those of rows that are gone, in whose place there will be others.
        self._strips = {y: strip for y, strip in self._strips.items() if y < min(len(before), len(lines))}
        changed = [
            y
            for y, line in enumerate(lines[first:], first)
            if y >= len(before) or not line.content.is_same(before[y].content)
        ]
        for y in changed:
            self._strips.pop(y, None)
        if len(lines) != len(before):
            self.refresh(layout=True)
        elif changed:
            self.refresh(Region(0, changed[0], self._laid_for, changed[-1] - changed[0] + 1))

    def _lay_out(self, width: int) -> None:
        if width == self._laid_for:
            return
        old_width, old_source, old_lines = self._before
        if self._growing is None and self._laid_for:
            self._before = (self._laid_for, self.source, self._lines)
        known = old_width == width and old_source == self.source
        self._lines = old_lines if known else lay_out(self.source, width)
        self._laid_for, self._growing = width, None
        self._strips.clear()

    # ------------------------------------------------------------------------------ as Textual asks for it

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        self._lay_out(width)
        return len(self._lines) + 1  # an empty row keeps what follows apart

    def render_lines(self, crop: Region) -> list[Strip]:
        """Rows that are ready: there is no edge here that Textual would have to put around them."""
        strips = [self.render_line(y) for y in crop.line_range]
        for line_filter in self.get_line_filters():
            background = self.background_colors[1]
            strips = [strip.apply_filter(line_filter, background) for strip in strips]
        if crop.column_span != (0, self._laid_for):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        if y not in self._strips:
            if len(self._strips) > PAINTED:
                self._strips.clear()
            self._strips[y] = self._strip(y)
        return self._strips[y]

    def _strip(self, y: int) -> Strip:
        if y >= len(self._lines):
            return Strip.blank(self._laid_for, self.visual_style.rich_style)
        content = self._lines[y].content
        if (selection := self.text_selection) is not None and (span := selection.get_span(y)) is not None:
            start, end = span
            style = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            content = content.stylize(
                style, max(start, self._lines[y].lead), len(content) if end == -1 else end
            )
        strips = Visual.to_strips(
            self, content, self._laid_for, 1, self.visual_style, apply_selection=False, pad=True
        )
        return (strips[0] if strips else Strip.blank(self._laid_for)).apply_offsets(0, y)

    def notify_style_update(self) -> None:
        self._strips.clear()
        super().notify_style_update()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        return selected(self._lines, selection), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self._strips.clear()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """A click on the row above a block of code copies it."""
        offset = event.get_content_offset(self)
        line = self._lines[offset.y] if offset is not None and offset.y < len(self._lines) else None
        if line is not None and line.copies:
            # While code comes, the row knows only its beginning.
            blocks = code_blocks(self.source) if self._growing is not None else []
            whole = next((block for block in blocks if block.startswith(line.copies)), line.copies)
            self.app.copy_to_clipboard(whole)
            self.app.notify("The code is copied.", markup=False)

    def action_link(self, address: str) -> None:
        """Say where a link leads; whether to go there is the reader's business."""
        self.app.notify(clean_line(address), title="Link", markup=False)
