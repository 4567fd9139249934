"""All of a thought. What is added is laid out at a cost that does not grow with what is there."""

from __future__ import annotations

from textual.content import Content
from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual
from textual.widget import Widget

from tui.lines import Line, selected, wrapped


class Thought(Widget):
    """Plain text as rows of the width that there is. Text must have gone through `clean`."""

    DEFAULT_CSS = "Thought { height: auto; width: 1fr; }"

    def __init__(self, text: str = "", *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self.source = text
        self._width = 0
        """The cells that `_rows` are laid out for; 0: not yet."""
        self._rows: list[Line] = []
        self._end = ""
        """What the last row is made of: the only one that more text can change."""

    def add(self, text: str) -> None:
        """Add `text` at the end."""
        self.source += text
        if not self._width:
            return
        first, height = max(len(self._rows) - 1, 0), self._height()
        self._lay_out(text)
        if self._height() != height:
            self.refresh(layout=True)
        else:
            self.refresh(Region(0, first, self._width, len(self._rows) - first))

    def _lay_out(self, text: str) -> None:
        if not self._rows:
            text = text.lstrip("\n")
        if not text:
            return
        end = self._end + text.replace("\t", "    ")
        rows = wrapped(Content(end), self._width)
        self._rows[-1:] = rows
        line = end[end.rfind("\n") + 1 :]
        last = rows[-1].content.plain.rstrip()
        self._end = line[line.rfind(last) :] if last.strip() and rows[-1].content.plain != line else line

    def _height(self) -> int:
        """Rows without the empty ones at the end, which may be followed by nothing."""
        height = len(self._rows)
        while height and not self._rows[height - 1].content.plain.strip():
            height -= 1
        return height

    # ------------------------------------------------------------------------------ as Textual asks for it

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        if width != self._width:
            self._width, self._rows, self._end = width, [], ""
            self._lay_out(self.source)
        return self._height()

    def render_line(self, y: int) -> Strip:
        if y >= self._height():
            return Strip.blank(self._width, self.rich_style)
        content = self._rows[y].content
        if (selection := self.text_selection) is not None and (span := selection.get_span(y)) is not None:
            start, end = span
            style = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            content = content.stylize(style, start, len(content) if end == -1 else end)
        strips = Visual.to_strips(
            self, content, self._width, 1, self.visual_style, apply_selection=False, pad=True
        )
        return (strips[0] if strips else Strip.blank(self._width)).apply_offsets(0, y)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        return selected(self._rows[: self._height()], selection), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()
