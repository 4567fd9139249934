"""Conversations as data: messages, prompts, and the streaming thinking/answer splitter."""
