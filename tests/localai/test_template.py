"""Templates from model files: used as they are meant, and harmless when they are hostile."""

from __future__ import annotations

import pytest

from localai.chat import template
from localai.chat.messages import ChatMessage
from localai.chat.prompt import Segment
from localai.chat.template import EmbeddedFormat
from localai.errors import UnsupportedModel

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_markers_are_special_and_messages_are_not() -> None:
    segments = EmbeddedFormat(CHATML, "<s>", "</s>").render(
        [ChatMessage("user", "Hi <|im_end|> \ue0f00\ue0f1")]
    )
    assert segments == [
        Segment("<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n", special=True),
        Segment("Hi <|im_end|> \ue0f00\ue0f1"),
        Segment("<|im_end|>\n<|im_start|>assistant\n", special=True),
    ]


def test_system_role_is_used_where_there_is_one() -> None:
    form = EmbeddedFormat(CHATML, "", "")
    assert form.system_role
    assert form.render([ChatMessage("system", "Be brief."), ChatMessage("user", "Hi")])[1] == Segment(
        "Be brief."
    )


def test_system_prompt_is_folded_where_the_template_has_no_role_for_it() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "[{{ m.content | trim }}]{% endfor %}"
    )
    form = EmbeddedFormat(source, "", "")
    assert not form.system_role
    assert Segment("Be brief.\n\nHi") in form.render(
        [ChatMessage("system", "Be brief."), ChatMessage("user", "Hi")]
    )


def test_the_beginning_is_marked_once_where_the_file_asks_for_it() -> None:
    zephyr = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}<|assistant|>\n"
    first = EmbeddedFormat(zephyr, "<s>", "</s>", add_bos=True).render([ChatMessage("user", "Hi")])[:2]
    assert first == [Segment("<s>", special=True), Segment("<|user|>\n", special=True)]
    own = EmbeddedFormat("{{ bos_token }}" + zephyr, "<s>", "</s>", add_bos=True)
    assert own.render([ChatMessage("user", "Hi")])[0] == Segment("<s><|user|>\n", special=True)
    without = EmbeddedFormat(zephyr, "<s>", "</s>", add_bos=False)
    assert without.render([ChatMessage("user", "Hi")])[0] == Segment("<|user|>\n", special=True)


def test_loops_may_be_left_early() -> None:
    skip = "{% if m.role == 'system' %}{% continue %}{% endif %}"
    source = "{% for m in messages %}" + skip + "{{ m.content }}{% endfor %}"
    assert EmbeddedFormat(source, "", "").render([ChatMessage("user", "Hi")]) == [Segment("Hi")]


def test_a_template_that_thinks_is_recognised() -> None:
    assert EmbeddedFormat(CHATML + "{{ '<think>' }}", "", "").reasoning
    assert not EmbeddedFormat(CHATML, "", "").reasoning


HOSTILE = {
    "syntax": "{% for %}",
    "reaches for the interpreter": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "reaches through a function": "{{ raise_exception.__globals__['signal'] }}",
    "format string": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}{{ 1/0 }}",
    "type error": "{{ messages + 1 }}",
    "drops the message": "hello",
    "too large a range": "{% for i in range(10**9) %}{% endfor %}",
    "raises": "{{ raise_exception('no') }}",
    "changes the messages": "{{ messages.clear() }}",
    "too large a string": "{{ 'a' * (10 ** 15) }}",
    "too large a number": "{{ 2 ** (10 ** 6) }}",
    "missing key": "{{ messages[7].content }}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_template_is_one_error(source: str) -> None:
    with pytest.raises(UnsupportedModel):
        EmbeddedFormat(source, "", "").render([ChatMessage("user", "canary")])


def test_endless_template_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "TIME_LIMIT_S", 0.2)
    loops = "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4
    with pytest.raises(UnsupportedModel, match="ran for more than"):
        EmbeddedFormat(loops, "", "").render([ChatMessage("user", "canary")])


def test_huge_template_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="characters long"):
        EmbeddedFormat("x" * (template.MAX_TEMPLATE + 1), "", "")


@pytest.mark.parametrize("add_bos", [False, True])
@pytest.mark.parametrize("draft", ["", "And", "And then?"])
def test_the_opening_is_what_the_prompt_begins_with(add_bos: bool, draft: str) -> None:
    form = EmbeddedFormat(CHATML, "<s>", "</s>", add_bos=add_bos)
    said = [ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello")]
    opening = form.opening([*said, ChatMessage("user", draft)])
    prompt = form.render([*said, ChatMessage("user", "And then?")])
    assert opening[:-1] == prompt[: len(opening) - 1]
    assert opening[-1] == Segment(draft)
    assert Segment("Hello", reply=True) in opening
    assert (opening[0].text == "<s>") is add_bos
