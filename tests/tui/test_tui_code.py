"""Code in colours: the text stays what it is, whatever the language."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui.code import LONGEST, coloured


def test_words_have_their_colours():
    first, second = coloured("def f(x):\n    return 'a'  # why\n", "python")
    assert (first.plain, second.plain) == ("def f(x):", "    return 'a'  # why")
    assert {str(span.style) for span in first.spans} != {str(span.style) for span in second.spans}
    assert len(first.spans) > 2


@pytest.mark.parametrize("language", ["", "klingon", "text"])
def test_an_unknown_language_is_left_as_it_is(language: str):
    (line,) = coloured("def f(x):", language)
    assert line.plain == "def f(x):"
    assert {str(span.style) for span in line.spans} == {"$text"}


def test_a_line_that_nobody_wrote_has_no_colours():
    short, long = coloured("x=1", "python"), coloured("x=1;" * LONGEST, "python")
    assert len(short[0].spans) > len(long[0].spans) == 1


def test_a_string_over_several_lines():
    lines = coloured('x = """a\nb\n"""\n', "python")
    assert [line.plain for line in lines] == ['x = """a', "b", '"""']
    assert lines[1].spans


@settings(max_examples=80, deadline=None)
@given(
    text=st.text(alphabet="ab 1.-*#>|`'\"{}()!\\\\\n\t$中\u2028\ufeff<", max_size=80),
    language=st.sampled_from(["python", "html", "c++", "php", "bash", "json", "diff", "jinja", "console"]),
)
def test_any_text_stays_what_it_is(text: str, language: str):
    wanted = text.removesuffix("\n").expandtabs(4).split("\n")
    assert [line.plain for line in coloured(text, language)] == wanted
