"""Why the chosen model is not there; stands above the composer for as long as that is so."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from localai.chat.clean import clean_line
from localai.errors import LocalAIError


class LoadFailure(Static):
    """Nothing, or the reason why the model did not load and what to do about it."""

    DEFAULT_CSS = """
    LoadFailure {
        display: none;
        width: 100%;
        height: auto;
        max-height: 4;
        padding: 0 2;
        color: $text-error;
    }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)

    def show(self, error: LocalAIError | None) -> None:
        """Say what happened; for None, be gone."""
        self.display = error is not None
        if error is not None:
            self.update(Content(f"✗ {clean_line(str(error))} · Ctrl+O chooses another model"))
