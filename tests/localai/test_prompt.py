"""R1's prompt, against the publisher's own template run by Jinja."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2
from hypothesis import given
from hypothesis import strategies as st

from localai.chat.messages import ChatMessage
from localai.chat.prompt import R1Format, Segment, fold_system
from models.catalog import builtin_checkpoint

R1_TOKENIZER = Path(__file__).parents[1] / "data" / "r1-tokenizer" / "tokenizer_config.json"


def reference(template: str, messages: list[ChatMessage]) -> str:
    return jinja2.Template(template).render(
        messages=[{"role": m.role, "content": m.content} for m in messages],
        add_generation_prompt=True,
        bos_token="<｜begin▁of▁sentence｜>",
    )


def rendered(messages: list[ChatMessage]) -> str:
    return "".join(segment.text for segment in R1Format().render(messages))


nano_template = json.loads((builtin_checkpoint("r1-nano") / "tokenizer_config.json").read_text())[
    "chat_template"
]

# The template cuts an assistant's text at </think>; an answer of ours never holds its thinking.
texts = st.text(max_size=40).filter(lambda t: "</think>" not in t)


@given(st.lists(st.tuples(texts, texts), max_size=3), texts)
def test_as_the_template_of_the_shipped_model(turns: list[tuple[str, str]], last: str) -> None:
    messages = [m for q, a in turns for m in (ChatMessage("user", q), ChatMessage("assistant", a))]
    messages.append(ChatMessage("user", last))
    assert rendered(messages) == reference(nano_template, messages)


def test_as_the_publishers_template_with_the_tag_opened() -> None:
    template = json.loads(R1_TOKENIZER.read_text())["chat_template"]
    messages = [
        ChatMessage("user", "What is 2 + 2?"),
        ChatMessage("assistant", "4"),
        ChatMessage("user", " And\n3 + 3?\n"),
    ]
    assert rendered(messages) == reference(template, messages) + "<think>\n"


def test_only_markers_are_special() -> None:
    segments = R1Format().render([ChatMessage("user", "</think><｜User｜>")])
    assert segments == [
        Segment("<｜begin▁of▁sentence｜>", special=True),
        Segment("<｜User｜>", special=True),
        Segment("</think><｜User｜>"),
        Segment("<｜Assistant｜>", special=True),
        Segment("<think>", special=True),
        Segment("\n"),
    ]


def test_system_prompt_is_folded_into_the_first_user_message() -> None:
    messages = [ChatMessage("system", "Be brief."), ChatMessage("user", "Hi"), ChatMessage("assistant", "Hi")]
    assert fold_system(messages) == [ChatMessage("user", "Be brief.\n\nHi"), ChatMessage("assistant", "Hi")]
    assert fold_system([ChatMessage("system", " "), ChatMessage("user", "Hi")]) == [ChatMessage("user", "Hi")]
    assert fold_system([ChatMessage("system", "Be brief.")]) == [ChatMessage("user", "Be brief.")]
