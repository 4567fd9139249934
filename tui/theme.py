"""The program's own themes: a quiet dark one, which Textual's light one goes with, and a high contrast."""

from __future__ import annotations

from typing import Final

from textual.theme import Theme

LIGHT: Final = "textual-light"

DARK: Final = Theme(
    name="localai-dark",
    primary="#8fb0d6",
    secondary="#8c9bab",
    accent="#d9ac68",
    warning="#d9ac68",
    error="#e08585",
    success="#93bd87",
    foreground="#d8dbe0",
    background="#14161a",
    surface="#1a1d22",
    panel="#23272e",
    dark=True,
    variables={
        "border": "#3b4350",
        "border-blurred": "#2a2f38",
        "block-cursor-background": "#2f3845",
        "block-cursor-foreground": "#e8eaee",
        "block-cursor-blurred-background": "#252b34",
        "block-cursor-blurred-foreground": "#d8dbe0",
        "block-cursor-text-style": "none",
        "block-cursor-blurred-text-style": "none",
        "block-hover-background": "#20242b",
        "input-selection-background": "#8fb0d6 30%",
        "scrollbar": "#2a2f38",
        "scrollbar-hover": "#3b4350",
        "scrollbar-active": "#566072",
        "scrollbar-background": "#14161a",
        "scrollbar-background-hover": "#14161a",
        "scrollbar-background-active": "#14161a",
        "scrollbar-corner-color": "#14161a",
        "link-color": "#8fb0d6",
        "link-background-hover": "#2f3845",
        "link-color-hover": "#e8eaee",
        "link-style-hover": "underline",
        "footer-key-foreground": "#8fb0d6",
    },
)

CONTRAST: Final = Theme(
    name="localai-contrast",
    primary="#ffff00",
    secondary="#ffffff",
    accent="#00ffff",
    warning="#ffd700",
    error="#ff8080",
    success="#80ff80",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#1a1a1a",
    dark=True,
    variables={
        "border": "#ffffff",
        "border-blurred": "#c0c0c0",
        "text-muted": "#ffffff",
        "text-disabled": "#d0d0d0",
        "block-cursor-background": "#ffff00",
        "block-cursor-foreground": "#000000",
        "block-cursor-blurred-background": "#404040",
        "block-cursor-blurred-foreground": "#ffffff",
        "block-hover-background": "#303030",
        "input-selection-background": "#0000ff",
        "scrollbar": "#ffffff",
        "scrollbar-background": "#000000",
        "link-color": "#00ffff",
        "footer-key-foreground": "#ffff00",
    },
)
