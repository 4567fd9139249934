"""What the status line says about a session."""

from __future__ import annotations

from localai.confine.report import short
from tui.format import count
from tui.loader import Loader
from tui.session import Session
from tui.turn import Turn
from tui.widgets.status_line import Status, Tone


def status_of(session: Session) -> Status:
    """The session at this moment, in words and numbers."""
    loader, turn = session.loader, session.turn
    entry, loaded = loader.entry, loader.loaded
    used, speed = _measured(session)
    state: str
    tone: Tone
    if session.summarizing:
        state, tone = "summarizing", "busy"
    else:
        state, tone = _turn_state(turn, loader) if turn and session.busy else _model_state(loader)
    return Status(
        sandbox=short(session.engine.sandbox) if loaded else "",
        confined=session.engine.sandbox.level == "full",
        notice={"encrypted": "", "plain": "not encrypted", "memory": "incognito"}[session.kept],
        model=entry.name if entry else "",
        file_type=loaded.file_type if loaded else entry.file_type if entry else "",
        context_used=used,
        context=loaded.context if loaded else 0,
        tokens_per_s=speed,
        state=state,
        tone=tone,
        busy=session.busy,
        thinking=turn is not None and turn.phase == "thinking",
    )


def _model_state(loader: Loader) -> tuple[str, Tone]:
    match loader.state:
        case "none":
            return "choose a model", "quiet"
        case "loading":
            return f"loading {loader.fraction:.0%}", "busy"
        case "failed":
            return "not loaded", "bad"
        case "ready":
            return "ready", "good"


def _turn_state(turn: Turn, loader: Loader) -> tuple[str, Tone]:
    if turn.phase == "waiting":
        return _model_state(loader) if loader.state != "ready" else ("waiting", "busy")
    if turn.phase == "reading":
        done, total = turn.prefill
        progress = f" {count(done)}/{count(total)}" if total else ""
        return f"reading prompt{progress}", "busy"
    return turn.phase, "busy"


def _measured(session: Session) -> tuple[int | None, float]:
    """The context that the conversation takes, in tokens, and the latest reply's tokens per second.

    None: not known, because another model counted it, and its tokens are not this one's.
    """
    turn, name = session.turn, session.loader.entry.name if session.loader.entry else ""
    if turn and turn.message.model == name and (session.busy or turn.context_used):
        return turn.context_used, turn.tokens_per_s
    counted = [m for m in session.conversation.branch() if m.role == "assistant" and m.prompt_tokens]
    if not counted:
        return 0, 0.0
    last = counted[-1]
    return (last.prompt_tokens + last.completion_tokens if last.model == name else None), 0.0
