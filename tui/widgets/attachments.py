"""What goes along with the question that is being written: a row of chips above the composer."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from textual.app import RenderResult
from textual.content import Content
from textual.geometry import Size
from textual.style import Style
from textual.widget import Widget

from localai.chat.attachments import name_of, pasted, read
from localai.chat.clean import clean_line
from localai.chat.conversation import Attachment
from localai.errors import LocalAIError
from tui.format import count

MOST_LINES: Final = 3
"""Lines of chips; those that have no room are counted."""
_MORE: Final = 4
"""Cells of the number of those."""


Making = Callable[[Callable[[], bool], Callable[[str], object]], Attachment]
"""Reads an attachment, in a thread; asks now and then whether it is given up, and tells what it left out."""


@dataclasses.dataclass(eq=False)
class Chip:
    """One attachment, or one that is still being read."""

    name: str
    attachment: Attachment | None = None
    tokens: int | None = None
    """None: not known (yet)."""


class AttachmentRow(Widget):
    """Holds the attachments in their order and shows each with its size, its cost and a × that removes it.

    Files are read in a thread, one after the other. `changed` is called after every change, with a line for
    the user if something could not be attached, else with an empty text.
    """

    DEFAULT_CSS = """
    AttachmentRow {
        display: none;
        width: 100%;
        max-width: 97;
        height: auto;
        padding: 0 1;
        color: $text-muted;
    }
    """

    auto_links = False  # the × keeps its colour

    def __init__(self, changed: Callable[[str], None]) -> None:
        super().__init__()
        self._changed = changed
        self._chips: list[Chip] = []
        self._reading = asyncio.Lock()
        self._total: Content | None = None

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """Those that have been read."""
        return tuple(chip.attachment for chip in self._chips if chip.attachment is not None)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing, not even something that is being read."""
        return not self._chips

    @property
    def busy(self) -> bool:
        """Whether something is still being read."""
        return any(chip.attachment is None for chip in self._chips)

    def attach(self, paths: Iterable[Path]) -> None:
        """Read these files and add them."""
        for path in paths:
            self._add(name_of(path), partial(read, path))

    def attach_paste(self, text: str) -> None:
        """Add a long paste."""
        names = {chip.name for chip in self._chips}
        number = next(n for n in range(1, len(names) + 2) if f"pasted text {n}" not in names)
        self._add(f"pasted text {number}", lambda _, told: pasted(text, number, told))

    def replace(self, attachments: Sequence[Attachment]) -> None:
        """Hold these and no others; what is still being read is dropped."""
        self._chips = [Chip(attachment.name, attachment) for attachment in attachments]
        self._show()

    def put_back(self, attachments: Sequence[Attachment]) -> None:
        """Hold these again, before those that have come since."""
        self._chips[:0] = [Chip(attachment.name, attachment) for attachment in attachments]
        self._show()

    def drop(self, index: int) -> None:
        """Take one out, whether it has been read or not; the last for -1."""
        del self._chips[index]
        self._show()
        self._changed("")

    def show_costs(self, tokens: Mapping[str, int]) -> None:
        """Say what attachments cost, by their names."""
        for chip in self._chips:
            chip.tokens = tokens.get(chip.name, chip.tokens)
        self._show()

    def show_total(self, total: Content | None) -> None:
        """A line of its own behind the chips; None: it is said elsewhere."""
        if total != self._total:
            self._total = total
            self._show()

    # ------------------------------------------------------------------------------------------- reading

    def on_unmount(self) -> None:
        """Nobody waits any more: a thread that reads would keep the program from ending."""
        self._chips = []

    def _add(self, name: str, make: Making) -> None:
        chip = Chip(name)
        self._chips.append(chip)
        self._show()
        self.run_worker(self._fill(chip, make), group="attach")

    async def _fill(self, chip: Chip, make: Making) -> None:
        """Read what the chip stands for, unless it is removed before or meanwhile."""
        problem, notes = "", list[str]()
        async with self._reading:
            if chip not in self._chips:
                return
            try:
                attachment = await asyncio.to_thread(make, lambda: chip not in self._chips, notes.append)
            except LocalAIError as error:
                attachment, problem = None, clean_line(str(error))
        if chip not in self._chips:
            return
        if attachment is None or attachment in self.attachments:
            self._chips.remove(chip)
        else:
            chip.name = self._free_name(attachment.name, chip)
            chip.attachment = Attachment(name=chip.name, text=attachment.text)
            for note in notes:
                self.notify(clean_line(note), timeout=10, markup=False)
        self._show()
        self._changed(problem)

    def _free_name(self, name: str, own: Chip) -> str:
        """The name, with a number if another attachment has it: the model tells them apart by it."""
        taken = {chip.name for chip in self._chips if chip is not own and chip.attachment is not None}
        names = [name, *(f"{name} ({n})" for n in range(2, len(taken) + 3))]
        return next(free for free in names if free not in taken)

    # ------------------------------------------------------------------------------------------- showing

    def action_remove(self, index: int) -> None:
        """The × of a chip was clicked."""
        if index < len(self._chips):
            self.drop(index)

    def _show(self) -> None:
        self.display = bool(self._chips) or self._total is not None
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines(width))

    def render(self) -> RenderResult:
        return Content("\n").join(self._lines(self.content_size.width))

    def _lines(self, width: int) -> list[Content]:
        """As many chips on a line as it has room for, and on as many lines as the screen can spare."""
        most = MOST_LINES if self.app.size.height >= 20 else 1
        lines: list[Content] = []
        left = len(self._chips)
        for index, chip in enumerate(self._chips):
            # The last line also has to say how many more there are.
            room = width - _MORE if len(lines) == most else width
            content = _chip_content(chip, index, room)
            if lines and lines[-1].cell_length + 1 + content.cell_length <= room:
                lines[-1] += Content(" ") + content
            elif len(lines) < most:
                is_last = len(lines) == most - 1
                lines.append(_chip_content(chip, index, width - _MORE if is_last else width))
            else:
                break
            left -= 1
        if left:
            lines[-1] += f" +{left}"
        if self._total is not None:
            lines.append(self._total.truncate(max(1, width), ellipsis=True))
        return lines


def _chip_content(chip: Chip, index: int, width: int) -> Content:
    """Name, size, cost and ×, the latter always; what has no room is left out."""
    facts = [] if chip.attachment else ["reading…"]
    if chip.attachment:
        facts.append(f"{count(len(chip.attachment.text))} characters")
    if chip.tokens is not None:
        facts.append(f"≈ {count(chip.tokens)} tokens")
    name = Content.styled(f" {clean_line(chip.name)} ", "$foreground")
    cross = Content(" × ").stylize(Style.from_meta({"@click": f"remove({index})"})).stylize("$text-accent")
    while facts and name.cell_length + sum(len(fact) + 3 for fact in facts) + 2 > width:
        facts.pop(0)  # the cost says more than the size
    about = Content(" · ".join(facts))
    room = max(2, width - about.cell_length - cross.cell_length)
    if name.cell_length > room:
        name = Content(" ") + name.truncate(room, ellipsis=True)[1:]
    return (name + about + cross).stylize("on $panel")


def cost_content(tokens: int | None, room: int | None, width: int) -> Content | None:
    """What a draft costs, in words that fit that many cells; None if it is not known.

    `room`: tokens that are free; None: not known.
    """
    if tokens is None:
        return None
    forms = [f"≈ {count(tokens)} tokens", f"≈ {count(tokens)}"]
    fits = room is None or tokens <= room
    if room is not None:
        sign = "≈" if fits else "▲ ≈"
        forms = [
            f"{sign} {count(tokens)} tokens of {count(room)} free",
            f"{sign} {count(tokens)} / {count(room)}",
            f"{sign} {count(tokens)}",
        ]
    text = next((form for form in forms if len(form) <= width), forms[-1])
    return Content.styled(text, "" if fits else "$text-warning")
