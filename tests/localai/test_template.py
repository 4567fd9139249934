"""Templates from model files: used as they are meant, and harmless when they are hostile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment

from localai import processes
from localai.chat import sandbox, template
from localai.chat.messages import ChatMessage
from localai.chat.prompt import Segment
from localai.chat.sizes import LimitExceeded
from localai.chat.template import EmbeddedFormat
from localai.errors import UnsupportedModel

ROOT = Path(__file__).parents[2]
R1 = json.loads((ROOT / "tests/data/r1-tokenizer/tokenizer_config.json").read_text())["chat_template"]
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


MALFORMED = {
    "syntax": "{% for %}",
    "type error": "{{ messages + 1 }}",
    "drops the message": "hello",
    "raises": "{{ raise_exception('no') }}",
    "changes the messages": "{{ messages.clear() }}",
    "missing key": "{{ messages[7].content }}",
    "includes a file": "{% include '/etc/passwd' %}",
    "imports a file": "{% import '/etc/passwd' as x %}",
    "extends a file": "{% extends '/etc/passwd' %}",
    "a filter that there is not": "{{ 'a'|center(9) }}",
    "a number of 60,000 digits": "{{ " + "9" * 60_000 + " }}",
    "20,000 brackets": "{{ " + "[" * 20_000 + "]" * 20_000 + " }}",
    "20,000 terms": "{{ " + "+".join(["1"] * 20_000) + " }}",
    "loops 30 deep": "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
    "conditions 3,000 deep": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "4,000 conditions": "{% if 0 %}" + "{% elif 0 %}x" * 4000 + "{% endif %}",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_template_that_cannot_work_is_one_error(case: str) -> None:
    with pytest.raises(UnsupportedModel, match="chat template in the file") as caught:
        EmbeddedFormat(MALFORMED[case], "", "").render([ChatMessage("user", "canary")])
    assert str(caught.value).isprintable()


DOUBLED = "{% set ns = namespace(a=A) %}{% for i in range(N) %}B{% endfor %}{{ ns.a|string|length }}"


def doubled(first: str, body: str) -> str:
    return DOUBLED.replace("A", first).replace("B", body)


LONG = "{% set b = 'a' * 500000 %}"
BOMBS = {
    "a loop": ("{% for i in range(N) %}{% endfor %}", 9, 10**9),
    "loops in loops": ("{% for a in range(N) %}" * 4 + "{% endfor %}" * 4, 2, 9999),
    "loops over texts": ("{% for a in 'x' * N %}" * 4 + "{% endfor %}" * 4, 2, 500_000),
    "a text times a number": ("{{ ('a' * N)|length }}", 9, 10**10),
    "a number times a text": ("{{ (N * 'a')|length }}", 9, 10**10),
    "a list times a number": ("{{ ([0] * N)|length }}", 9, 10**9),
    "a power": ("{{ 2 ** N }}", 9, 10**9),
    "squares": (doubled("9", "{% set ns.a = ns.a * ns.a %}"), 3, 9999),
    "sums of texts": (doubled("'x'", "{% set ns.a = ns.a + ns.a %}"), 3, 60),
    "texts side by side": (doubled("'x'", "{% set ns.a = ns.a ~ ns.a %}"), 3, 60),
    "joined texts": (doubled("'x'", "{% set ns.a = [ns.a, ns.a]|join %}"), 3, 60),
    "joined by a text": (doubled("'xx'", "{% set ns.a = ns.a.join([ns.a, ns.a]) %}"), 3, 60),
    "captured texts": (doubled("'x'", "{% set ns.a %}{{ ns.a }}{{ ns.a }}{% endset %}"), 3, 60),
    "replaced texts": (doubled("'x'", "{% set ns.a = ns.a|replace('x', ns.a ~ 'x') %}"), 3, 60),
    "replaced by a method": (doubled("'x'", "{% set ns.a = ns.a.replace('', ns.a) %}"), 3, 60),
    "formatted texts": (doubled("'x'", "{% set ns.a = '%s%s' % (ns.a, ns.a) %}"), 3, 60),
    "formatted by a method": (doubled("'x'", "{% set ns.a = '{0}{0}'.format(ns.a) %}"), 3, 60),
    "lists in lists": (doubled("[1]", "{% set ns.a = [ns.a, ns.a] %}"), 3, 60),
    "deep lists": (doubled("[1]", "{% set ns.a = [ns.a] %}"), 3, 9999),
    "dictionaries in dictionaries": (doubled("1", "{% set ns.a = dict(a=ns.a, b=ns.a) %}"), 3, 60),
    "two trees that are compared": (
        "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(N) %}{% set ns.a = [ns.a, ns.a] %}"
        "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
        3,
        60,
    ),
    "arguments": (
        "{% set ns = namespace(a=[1]) %}{% macro m() %}{% set ns.a = varargs %}{% endmacro %}"
        "{% for i in range(N) %}{{ m(ns.a, ns.a) }}{% endfor %}",
        3,
        60,
    ),
    "a macro that calls itself twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}x{% endmacro %}{{ m(N) }}",
        3,
        60,
    ),
    "a macro that calls itself": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}x{% endmacro %}{{ m(N) }}",
        3,
        10**6,
    ),
    "a loop that calls itself": (
        "{% for x in [N] recursive %}{% if x %}{{ loop([x - 1]) }}{% endif %}{% endfor %}",
        3,
        10**6,
    ),
    "an indentation": ("{{ 'a\nb'|indent(N)|length }}", 9, 10**9),
    "indented JSON": ("{{ [1]|tojson(indent=N)|length }}", 4, 10**9),
    "a width": ("{{ ('%Nd' % 1)|length }}", 9, 10**9),
    "a width of a method": ("{{ '{:>N}'.format(1)|length }}", 9, 10**9),
    "a width of a mapping": ("{{ '{a:>N}'.format_map({'a': 1})|length }}", 9, 10**9),
    "many large texts": (
        LONG + "{% set m = N %}" + "".join(f"{{% set v{i} = (b * m)[1:] %}}" for i in range(1500)),
        0,
        1,
    ),
    "a large output": (LONG + "{% for i in range(N) %}{{ b }}{% endfor %}", 1, 9999),
    "large texts for all": (
        LONG + "{{ range(N)|map('string')|map('replace', '1', b)|list|length }}",
        2,
        9999,
    ),
    "a date": ("{{ strftime_now('%c' * N)|length }}", 2, 10**5),
}
REST = "{{ messages[0].content }}"


@pytest.mark.parametrize("case", BOMBS)
def test_what_grows_without_end_is_stopped(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, small, large = BOMBS[case]
    tame = EmbeddedFormat(source.replace("N", str(small)) + REST, "", "")
    assert Segment("canary") in tame.render([ChatMessage("user", "canary")])
    monkeypatch.setattr(sandbox, "TIME_LIMIT_S", 0.3)
    started = time.monotonic()
    with pytest.raises(UnsupportedModel, match="chat template in the file") as caught:
        EmbeddedFormat(source.replace("N", str(large)) + REST, "", "").render([ChatMessage("user", "canary")])
    assert time.monotonic() - started < 20
    assert str(caught.value).isprintable()


SEARCH = "{% set s = 'a' * 500000 %}{% set q = 'a' * 60 + 'b' + 'a' * 60 %}"
TWO_LISTS = "{% set a = [0] * 30000 %}{% set b = [1] * 30000 %}"
COLLIDING = "range(0, (2 ** 61 - 1) * 10000, 2 ** 61 - 1)|list"
PAIRS = (
    "{% set ns = namespace(all=[]) %}{% for a in range(25) %}{% set ns.part = [] %}{% for b in range(100) %}"
    "{% set ns.part = ns.part + [[(2 ** 61 - 1) * (a * 100 + b), 0]] %}{% endfor %}"
    "{% set ns.all = ns.all + ns.part %}{% endfor %}"
)
LINES = {
    "a condition of a loop": TWO_LISTS + "{% for x in a if x in b %}{% endfor %}",
    "a test in a filter": TWO_LISTS + "{{ a|select('in', b)|list }}",
    "items in a text": SEARCH + "{{ ([q] * 10000)|select('in', s)|list }}",
    "many searches": SEARCH + "{% set z = [" + "q in s," * 3000 + "] %}",
    "many tests": SEARCH + "{% set z = [" + "q is in s," * 3000 + "] %}",
    "searches in joined texts": SEARCH + "{{ " + "~".join(["(q in s)"] * 3000) + " }}",
    "lists that are equal": TWO_LISTS + "{% set c = a[:] %}{% set z = [" + "a == c," * 3000 + "] %}",
    "lists in order": TWO_LISTS + "{% set c = a[:] %}{% set z = [" + "a < c," * 3000 + "] %}",
    "unique numbers": "{{ " + COLLIDING + "|unique|list|length }}",
    "a dictionary of numbers": "{% set m = 2 ** 61 - 1 %}{% set d = {"
    + ", ".join(f"m * {n}: 0" for n in range(2500))
    + "} %}",
    "a dictionary of pairs": PAIRS + "{{ dict(ns.all)|length }}",
    "a namespace of pairs": PAIRS + "{% set x = namespace(ns.all) %}",
    "attributes of attributes": TWO_LISTS + "{{ (['a'] * 30000)|rejectattr('" + "0." * 9000 + "0')|list }}",
    "a search backwards": "{{ ('a' * 500000).rfind('ab' + 'a' * 249998) }}",
    "a split from the end": "{{ ('a' * 500000).rsplit('ab' + 'a' * 249998) }}",
    "a part from the end": "{{ ('a' * 500000).rpartition('ab' + 'a' * 249998) }}",
    "characters to strip": "{{ ('a' * 500000).strip('b' * 499990 + 'a') }}",
    "characters to trim": "{{ ('a' * 500000)|trim('b' * 499990 + 'a') }}",
}


@pytest.mark.parametrize("case", LINES)
def test_no_single_line_is_longer_than_the_limit(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "TIME_LIMIT_S", 0.5)
    box = sandbox.Sandbox()
    made = box.compiled(LINES[case])
    started = time.process_time()
    with pytest.raises(LimitExceeded):
        box.run(made)
    assert time.process_time() - started < 1.5


def test_a_loop_is_not_used_up_to_make_a_dictionary() -> None:
    box = sandbox.Sandbox()
    with pytest.raises(TypeError, match="dictionary of a loop"):
        box.run(box.compiled("{% for x in [['a', 1]] %}{{ dict(loop) }}{% endfor %}"))


@pytest.mark.parametrize("sign", ["-", "/", "//"])
def test_only_numbers_are_subtracted_and_divided(sign: str) -> None:
    box = sandbox.Sandbox()
    with pytest.raises(TypeError, match="calculates with a dict_keys"):
        box.run(box.compiled(f"{{{{ {{'a': 1}}.keys() {sign} ['a'] }}}}"))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the most that a program used")
def test_no_bomb_takes_much_memory() -> None:
    code = (
        "from tests.localai.test_template import all_bombs; all_bombs();"
        "print(*[line for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, timeout=120)
    assert int(done.stdout.split()[1]) * 1024 < 400_000_000


def all_bombs() -> None:
    """Each of them, one after the other, in a process of its own: the most that was used is counted."""
    sandbox.TIME_LIMIT_S = 0.5
    for source, _, large in BOMBS.values():
        with suppress(UnsupportedModel):
            EmbeddedFormat(source.replace("N", str(large)), "", "")


ESCAPES = {
    "a class": "''.__class__.__mro__",
    "a class by its name": "''['__class__']",
    "an object's methods": "dict.mro()",
    "the cycler": "cycler.__init__.__globals__",
    "the joiner": "joiner.__init__.__globals__",
    "the lorem ipsum": "lipsum.__globals__",
    "a namespace": "namespace.__init__.__globals__",
    "the template itself": "self._TemplateReference__context",
    "a format string": "'{0.__class__}'.format(1)",
    "a format string of a mapping": "'{a.__class__}'.format_map({'a': 1})",
    "a safe format string": "('{0.__class__}'|safe).format(1)",
    "a filter of attributes": "''|attr('__class__')",
    "attributes of all": "[[]]|map(attribute='__class__')|list",
    "a generator's frame": "(messages|map('string')).gi_frame",
    "a function's globals": "raise_exception.__globals__",
    "bytes": "'a'.encode()",
    "a method that changes": "messages[0].setdefault('a', 'changed')",
    "the same by its name": "messages[0]['setdefault']('a', 'changed')",
}


@pytest.mark.parametrize("case", ESCAPES)
def test_nothing_outside_is_reached(case: str) -> None:
    source = "{{ " + ESCAPES[case] + " }}"
    plain = Environment()
    plain.globals["raise_exception"] = sandbox._raise
    assert plain.from_string(source).render(messages=[{}])  # this is what there would be to see
    try:
        shown = EmbeddedFormat(source + REST, "", "").render([ChatMessage("user", "canary")])
    except UnsupportedModel:
        return
    assert shown in ([Segment("canary")], [Segment("[Undefined]", special=True), Segment("canary")])


def test_real_templates_give_what_jinja_gives() -> None:
    messages = [{"role": role, "content": "x"} for role in ("system", "user", "assistant", "user")]
    given = {"messages": messages, "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
    box = sandbox.Sandbox()
    for source in (CHATML, R1):
        assert box.run(box.compiled(source), **given) == plain_jinja(source, given)


@settings(max_examples=40)
@given(st.lists(st.sampled_from(("user", "assistant")), min_size=1, max_size=6), st.booleans())
def test_the_sandbox_only_limits(roles: list[str], reasons: bool) -> None:
    source = (
        "{% set ns = namespace(said='', count=0) %}{% macro tag(name, open=true) %}"
        "<{{ '' if open else '/' }}{{ name|upper }}>{% endmacro %}{% for m in messages[::-1] recursive %}"
        "{% set ns.said = tag(m['role']) ~ m.content|trim ~ tag(m.role, open=false) ~ ns.said %}"
        "{% set ns.count = ns.count + loop.index0 * 2 %}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
        "{{ ns.said }}{{ [ns.count, messages|length, reasons]|tojson }}"
        "{% set c %}{{ roles|join(', ') }}{% endset %}"
        "{{ c.split(',')[-1].strip() if reasons and 'user' in c else '%s!' % c }}"
        "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list|length }}"
    )
    messages = [{"role": role, "content": f" {number} "} for number, role in enumerate(roles)]
    given = {"messages": messages, "roles": roles, "reasons": reasons}
    box = sandbox.Sandbox()
    assert box.run(box.compiled(source), **given) == plain_jinja(source, given)


COMPARED = (
    "{{ [1 < 2 < 3, 1 < 3 < 2, 1 == 1.0 != 2, 2 >= 2 > 1, 3 <= 2, 'a' in 'cat', 'a' not in {'a': 1}] }}",
    "{{ 3 in range(4) }}{{ 'k' in {'k': 1}.keys() }}{{ nothing == none }}{{ none in [none] }}",
    "{{ x in nothing }}",
    "{{ 1 > 2 > 3 }}{{ (1 < 2) == true }}{{ [1, [2]] == [1, [2]] }}{{ ('a' < 'b') ~ ('b' ~ 'c') }}",
    "{% for n in [1, 2, 3, 4] if n is even and n in [2, 3, 4] %}{{ loop.index }}{{ n }}{% endfor %}",
    "{% for n in [1] if n > 1 %}{{ n }}{% else %}none{% endfor %}",
    "{{ 4 is divisibleby(num=2) }}{{ 2 is in([2]) }}",
    "{{ ['a', 'A', 1, 1.0, true, (1, 2), (1, 2)]|unique|list }}{{ ['a', 'A']|unique(true)|list }}",
    "{{ [{'a': 1}, {'a': 1}, {'a': 2}]|unique(attribute='a')|list }}",
    "{{ [{'a': {'b': 3}}]|map(attribute='a.b')|join }}",
    "{{ {'a': [1, 2][1:], 1: {}, 'a': 'last'} }}{{ dict([['a', 1], (2, 3)], b=4) }}",
    "{{ dict({'a': 1}) }}{{ dict() }}",
    "{{ 7 - 2 }}{{ 7 / 2 }}{{ 7 // 2 }}{{ -7 }}{{ ' a '.strip() }}{{ 'xax'.strip('x') }}",
    "{{ 'xax'|trim('x') }}",
    "{{ 'a.b.c'.rsplit('.', 1) }}{{ 'abca'.rfind('a') }}{{ 'a-b-c'.rpartition('-') }}",
    "{{ [3, 1, 2]|sort|first }}",
    "{{ ['a', 'b']|select('in', 'cat')|list }}{{ 'upper' is test }}{{ 'e' is filter }}{{ none is none }}",
)


@pytest.mark.parametrize("source", COMPARED)
def test_what_is_counted_gives_what_jinja_gives(source: str) -> None:
    box = sandbox.Sandbox()
    assert box.run(box.compiled(source)) == plain_jinja(source, {})


def plain_jinja(source: str, given: dict[str, object]) -> str:
    plain = Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    return plain.from_string(source).render(**given)


def test_a_long_conversation_is_no_bomb() -> None:
    said = [ChatMessage(("user", "assistant")[n % 2], f"{n}") for n in range(2001)]
    assert len(EmbeddedFormat(CHATML, "", "").render(said)) == 2 * 2001 + 1


def test_the_system_ends_a_process_that_the_sandbox_does_not() -> None:
    if not hasattr(signal, "ITIMER_VIRTUAL"):
        pytest.skip("there is no such timer here")
    code = (
        "from localai.chat import template; template.LAST_RESORT_S = 0.2\n"
        "with template.last_resort(): sum(range(10**12))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGVTALRM
    assert "took too long" in processes.describe_exit(done.returncode)


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
