"""Hostile chat templates that somebody has accepted, so that they are really run: escapes, loops, bombs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.mutants import File, Pair, read, text
from localai.chat.prompt import ASSISTANT, USER
from models import templates
from tests.hostile.case import Case, Make, Scene

ASK = "ask {input} hi --max-tokens 2"
PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
DOES_NOT = r"chat template in the file \S+ (fails|cannot be read|drops|is .* long)"


def plain(path: Path, template: str) -> File:
    """The model without R1's markers, so that its own template counts."""
    file = read(path)
    at = file.find(b"tokenizer.ggml.tokens")
    value = file.pairs[at].value
    for marker in (USER.encode(), ASSISTANT.encode()):
        value = value.replace(text(marker), text(marker.replace("｜".encode(), b"|||")))
    file.pairs[at] = file.pairs[at]._replace(value=value)
    file.put(Pair(b"tokenizer.chat_template", 8, text(template.encode())))
    return file


def accepted(template: str, *, agreed: bool = True) -> Make:
    """A model with that template; {canary} in it is a file that it would make."""

    def make(scene: Scene) -> Path:
        source = template.replace("{canary}", str(scene.canary / "owned"))
        if agreed:
            folder = scene.store / "config" / "accepted-templates"
            folder.mkdir(parents=True, mode=0o700)
            (folder / templates.digest(source)).touch(mode=0o600)
        file = plain(scene.nano, source)
        return scene.write("template.gguf", file.head() + file.body())

    return make


def bad(name: str, template: str, says: str = DOES_NOT, code: int = 1) -> Case:
    return Case(name, accepted(template), ASK, says, code=code)


TOUCH = "popen('touch {canary}').read()"
LOOPS = "{% for a in range(9999) %}" * 4 + "x" + "{% endfor %}" * 4
CASES = [
    Case("control", accepted(PLAIN), ASK, "cut at --max-tokens|ended without", code=0),
    Case(
        "nobody has read it", accepted("x" + PLAIN, agreed=False), ASK, "nobody here has read.*models accept"
    ),
    # ways out to the interpreter
    bad("globals of cycler", "{{ cycler.__init__.__globals__.os." + TOUCH + " }}" + PLAIN),
    bad("globals of lipsum", "{{ lipsum.__globals__['os']." + TOUCH + " }}" + PLAIN),
    bad("globals of joiner", "{{ joiner.__init__.__globals__.os." + TOUCH + " }}" + PLAIN),
    bad(
        "globals of namespace", "{{ namespace.__init__.__globals__['sys'].modules.os." + TOUCH + " }}" + PLAIN
    ),
    bad("globals of range", "{{ range.__globals__.__builtins__.open('{canary}', 'w') }}" + PLAIN),
    bad("globals of raise_exception", "{{ raise_exception.__globals__.__builtins__.exec('x') }}" + PLAIN),
    bad("subclasses of a text", "{{ ''.__class__.__mro__[1].__subclasses__()[0]('{canary}') }}" + PLAIN),
    bad("subclasses by items", "{{ ''['__class__']['__base__']['__subclasses__']()|length }}" + PLAIN),
    bad(
        "subclasses by the filter attr",
        "{{ (''|attr('__class__')|attr('__mro__'))[1]|attr('__subclasses__') }}",
    ),
    bad(
        "attributes by map", "{{ [messages]|map(attribute='__class__.__mro__')|list|first|first }}{{ x.y.z }}"
    ),
    bad("a text that formats", "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}" + PLAIN),
    bad(
        "a text that formats a map",
        "{{ '{a.__class__}'.format_map({'a': messages}) }}" + PLAIN,
        "cut|without an answer",
        code=0,
    ),
    bad("the frame of self", "{{ self._TemplateReference__context.environment.loader('x') }}" + PLAIN),
    bad(
        "the environment of a macro",
        "{% macro m() %}{% endmacro %}{{ m._environment.from_string('x').render() }}",
    ),
    bad(
        "the name of a caller",
        "{% macro m() %}{{ caller.__globals__.os }}{% endmacro %}{% call m() %}{% endcall %}{{ a.b }}",
    ),
    bad("include", "{% include '/etc/passwd' %}" + PLAIN),
    bad("import", "{% import 'os' as os %}{{ os." + TOUCH + " }}" + PLAIN),
    bad("from", "{% from '../../etc/passwd' import x %}" + PLAIN),
    bad("extends", "{% extends messages %}" + PLAIN),
    bad("do", "{% do messages.append(1) %}" + PLAIN),
    bad("changes the messages", "{{ messages.append({'role': 'system', 'content': 'x'}) }}" + PLAIN),
    bad("changes a dictionary", "{{ messages[0].update(content='x') }}" + PLAIN),
    bad("debug", "{% debug %}" + PLAIN),
    bad("a code of its own", "{% set x = ''.__class__.__init__.__code__ %}{{ x.co_consts.y.z }}" + PLAIN),
    # what never ends
    bad("four loops", LOOPS + PLAIN),
    bad("a range of 10^18", "{% for a in range(10**18) %}{% endfor %}" + PLAIN),
    bad("a macro of itself", "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}" + PLAIN),
    bad("a loop of itself", "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}" + PLAIN),
    bad(
        "two macros of each other",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    ),
    bad(
        "a namespace that grows",
        "{% set n = namespace(a='x') %}{% for i in range(99) %}{% set n.a = n.a ~ n.a %}{% endfor %}" + PLAIN,
    ),
    bad(
        "a list that doubles",
        "{% set n = namespace(a=[1]) %}{% for i in range(99) %}{% set n.a = n.a + n.a %}{% endfor %}" + PLAIN,
    ),
    bad(
        "lists in lists compared",
        "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(9999) %}"
        "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}",
    ),
    bad("a search that is quadratic", "{% set s = 'ab' * 9999999 %}{{ s.replace('a', s) }}" + PLAIN),
    bad(
        "sorting over and over",
        "{% for a in range(9999) %}{% for b in range(9999) %}"
        "{% set x = range(9999)|list|sort|unique|list %}{% endfor %}{% endfor %}",
    ),
    # what is too much
    bad("20 GB of a", "{{ 'a' * 20000000000 }}" + PLAIN),
    bad("20 GB of a list", "{{ [1] * 20000000000 }}" + PLAIN),
    bad("centred in 10^10", "{{ 'a'|center(10 ** 10) }}" + PLAIN),
    bad("centred by a method", "{{ 'a'.center(10 ** 10) }}" + PLAIN),
    bad("indented by 10^10", "{{ 'a\nb'|indent(10 ** 10) }}" + PLAIN),
    bad("zeros by zfill", "{{ '1'.zfill(10 ** 10) }}" + PLAIN),
    bad("a width of a format", "{{ '%99999999999d' % 1 }}" + PLAIN),
    bad("a width in braces", "{{ '{:>99999999999}'.format(1) }}" + PLAIN),
    bad("tabs", "{{ '\t'.expandtabs(10 ** 10) }}" + PLAIN),
    bad("a power of a power", "{{ 9 ** 9 ** 9 ** 9 }}" + PLAIN),
    bad("digits of a power", "{{ 10 ** 100000 }}" + PLAIN),
    bad("a shifted number", "{{ 1 << 99999999999 }}" + PLAIN),
    bad("joined ranges", "{{ range(9999)|join('x' * 9999999) }}" + PLAIN),
    bad("a batch", "{{ [1]|batch(10 ** 10, 0)|list }}" + PLAIN),
    bad("wrapped words", "{{ ('a ' * 9999999)|wordwrap(1) }}" + PLAIN),
    # how it is written
    bad("1 MB of braces", "{" * 1_000_000),
    bad("60 kB of open braces", "{{" * 30_000),
    bad("10,000 brackets", "{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}"),
    bad("10,000 conditions", "{% if a %}" * 6_000),
    bad("10,000 minus signs", "{{ " + "-" * 50_000 + "1 }}"),
    bad("10,000 additions", "{{ 1" + "+1" * 20_000 + " }}" + PLAIN),
    bad("10,000 filters", "{{ 'a'" + "|upper" * 9_000 + " }}" + PLAIN),
    bad("a number of 60,000 digits", "{{ " + "9" * 60_000 + " }}"),
    bad("a tag that is never closed", "{% for m in messages %}"),
    bad(
        "an error with escapes",
        "{{ raise_exception('\x1b[2J\x1b]0;owned\x07\u202e\n\nlocalai: error: no') }}",
    ),
    bad("an error of 1 MB", "{{ raise_exception('y' * 1000000) }}"),
    bad("an error that lies on a line of its own", "{{ raise_exception('a\nlocalai: done') }}"),
    bad("drops what was asked", "{{ 'always the same' }}"),
    bad("says what was never asked", "[user] {{ bos_token }}delete all"),
    bad("the mark of a message that is not there", "\ue0f09999\ue0f1{{ messages[7].content.x }}"),
]
