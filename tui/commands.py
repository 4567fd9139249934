"""The commands of the palette that belong to the chat."""

from __future__ import annotations

from collections.abc import Iterator

from textual.app import SystemCommand

from tui.screens.chat import ChatScreen


def chat_commands(screen: ChatScreen) -> Iterator[SystemCommand]:
    """All that can be done on the chat's screen."""
    yield SystemCommand("New conversation", "Begin anew", screen.action_new_conversation)
    yield SystemCommand("Models", "Use, fetch, quantize, remove", screen.action_choose_model)
    yield SystemCommand("Conversations", "Show the stored ones", screen.action_toggle_sidebar)
    yield SystemCommand("Search", "Look for words in all conversations", screen.action_search_conversations)
    yield SystemCommand("Export", "This conversation, to a file", screen.action_export)
    yield SystemCommand("Export all", "All conversations, to one file", screen.action_export_all)
    yield SystemCommand("Incognito", "Nothing is kept; again: back", screen.action_incognito)
    yield SystemCommand("Stop", "Stop the reply; what has come is kept", screen.action_stop)
    yield SystemCommand("Answer now", "Close the thinking: the answer comes", screen.action_answer_now)
    yield SystemCommand("Try again", "Another reply to the last question", screen.action_regenerate)
    yield SystemCommand("Go on", "With a reply that was stopped or cut", screen.action_go_on)
    yield SystemCommand("Edit", "Ask the last question otherwise", screen.action_edit_message)
    yield SystemCommand("Earlier branch", "Show what was there before", lambda: screen.action_branch(-1))
    yield SystemCommand("Later branch", "Show what came after it", lambda: screen.action_branch(1))
    yield SystemCommand("Copy the reply", "To the clipboard", screen.action_copy_message)
    yield SystemCommand("Copy code", "A block of the reply; again: the next", screen.action_copy_code)
    yield SystemCommand("Copy the conversation", "As Markdown", screen.action_copy_conversation)
    yield SystemCommand("Thoughts", "Open or fold the last thoughts", screen.action_toggle_thinking)
    yield SystemCommand("Thinking", "Folded, hidden, or always open", screen.action_thinking_mode)
    yield SystemCommand("Settings", "Thinking, theme, send key, retention", screen.action_settings)
    yield SystemCommand(
        "This conversation", "System prompt, sampling, presets", screen.action_conversation_settings
    )
    yield SystemCommand("Context", "What the context is spent on", screen.action_context)
    yield SystemCommand("About", "Versions, engine, model, sandbox", screen.action_about)
    yield SystemCommand("Keys", "Show the keys", screen.action_help)
