"""Markdown as rows: what it looks like, what of it is text, and that growing ends up as laid out at once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.content import Content
from textual.geometry import Offset
from textual.selection import SELECT_ALL, Selection

from tui import growing
from tui.growing import CODE_LINES, Growing
from tui.lines import Line, folded, indented, selected, wrapped
from tui.markdown import lay_out
from tui.tables import table

DOCUMENT = """Intro **bold** `code` and [a page](https://example.org), long enough to be wrapped.

# Head

1. one
2. two
3. three goes on and on and on and on and on and on and on

- a

- b

  within b
  - nested
  - more
- c

| left | right |
|------|------:|
| x y  | 12    |
| x    | **5** |

> quoted
> on

```python
def f(x):
    return x


class A:
    pass
```

Before the rule

---

The end. 中文字符中文字符中文字符中文字符中文字符中文字符
"""


def rows(lines: list[Line]) -> list[str]:
    return [line.content.plain.rstrip() for line in lines]


def grown(text: str, seed: int, width: int = 40) -> list[Line]:
    chance, growing_text, at = random.Random(seed), Growing(width), 0
    while at < len(text):
        step = chance.randint(1, 17)
        before = rows(growing_text.lines)
        first = growing_text.add(text[at : at + step])
        assert rows(growing_text.lines)[:first] == before[:first]
        at += step
    return growing_text.lines


# ----------------------------------------------------------------------------------------- what it looks like


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\nb", ["a b"]),
        ("a  \nb", ["a", "b"]),
        ("# Head\n\ntext", ["Head", "", "text"]),
        ("- a\n- b\n  - c", ["• a", "• b", "  ◦ c"]),
        ("- a\n\n- b", ["• a", "", "• b"]),
        ("9. a\n10. b", [" 9. a", "10. b"]),
        ("-", ["•"]),
        ("> a\n>\n> b", ["▌ a", "▌", "▌ b"]),
        ("> - a", ["▌ • a"]),
        ("***", ["─" * 12]),
        ("one two three four", ["one two", "three four"]),
        ("    code", ["       copy", " code"]),
        ("```py\na\n\nb\n```", [" py    copy", " a", "", " b"]),
        ("```a-long-name\n```", [" a-lon…copy", ""]),
        ("<b>x</b> &amp;", ["<b>x</b>", "&amp;"]),
        ("[bold]x[/bold]", ["[bold]x[/bol", "d]"]),
        ("![an image](x.png)", ["an image"]),
        ("~~gone~~", ["gone"]),
        ("a\tb `c\td`", ["a b c d"]),
        ("```\n\ta\n```", ["       copy", "     a"]),
    ],
)
def test_blocks(text: str, wanted: list[str]):
    assert rows(lay_out(text, 12)) == wanted


def test_a_table_is_as_wide_as_it_needs():
    lines = lay_out("| a | number |\n|---|------:|\n| x | 12 |\n| y | **5** |", 40)
    assert rows(lines) == ["a   │ number", "────┼───────", "x   │     12", "y   │      5"]


def test_a_table_that_is_too_wide_wraps_in_its_widest_column():
    cells = [[Content("k"), Content("what")], [Content("a"), Content("word " * 8 + "end")]]
    lines = table(cells, ["left", "center"], 20)
    assert all(line.content.cell_length <= 20 for line in lines)
    assert [row.split("│")[0].strip() for row in rows(lines)[2:]] == ["a", "", ""]
    assert " ".join(row.split("│")[1].strip() for row in rows(lines)[2:]) == "word " * 8 + "end"


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"{'  ' * depth}- level {depth}" for depth in range(40)),
        "\n".join(f"{'>' * depth} level {depth}" for depth in range(40)),
    ],
)
def test_nothing_is_lost_however_deep_it_is_nested(text: str):
    rows = "\n".join(line.content.plain for line in lay_out(f"{text}\n\nThe end.", 120))
    assert all(f"level {depth}" in rows for depth in range(40))
    assert rows.splitlines()[-1] == "The end."


def test_links_and_code_say_what_they_do():
    (line,) = lay_out("see [a page](https://example.org/it's)", 40)
    assert any("example.org" in str(span.style) for span in line.content.spans)
    head, *_ = lay_out("```py\nx = 1\ny = 2\n```", 40)
    assert head.copies == "x = 1\ny = 2\n"


def test_a_table_without_room_for_its_columns_is_a_list_of_its_cells():
    names = [f"n{i}" for i in range(8)]
    text = f"|{'|'.join(names)}|\n|{'|'.join('-' * 8)}|\n|{'|'.join('abcdefgh')}|\n|{'|'.join('ABCDEFGH')}|"
    wanted = [f"{name}: {letter}" for name, letter in zip(names, "abcdefgh", strict=True)]
    assert rows(lay_out(text, 30)) == [
        *wanted,
        "",
        *[row.replace(row[-1], row[-1].upper()) for row in wanted],
    ]


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="ab 1.-*#>|`~_[]()!\\\n\t$中é\u2028", max_size=120), width=st.integers(8, 40))
def test_any_text_has_rows(text: str, width: int):
    nesting = 2 * 20  # what the parser allows; deeper text has no room of its own
    assert all(line.content.cell_length <= width + nesting for line in lay_out(text, width))


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.lists(st.sampled_from([f"{part}\n\n" for part in DOCUMENT.split("\n\n")]), max_size=8),
    seed=st.integers(0, 1000),
)
def test_blocks_in_any_order_grow_to_the_same(blocks: list[str], seed: int):
    # Lists that touch become one, whose items move apart only at the end.
    text = "And:\n\n".join(blocks)
    assert rows(grown(text, seed)) == rows(lay_out(text, 40))


# ---------------------------------------------------------------------------------------------------- growing


@pytest.mark.parametrize("seed", range(6))
def test_growing_ends_up_as_laid_out_at_once(seed: int):
    assert rows(grown(DOCUMENT, seed)) == rows(lay_out(DOCUMENT, 40))


@pytest.mark.parametrize("width", [20, 60])
def test_long_code_grows_to_the_same(width: int):
    code = "".join(f"    line_{i} = {i} * 2 # \u2028\n" + "\n" * (i % 3) for i in range(3 * CODE_LINES))
    text = f"Before\n\n```python\ndef f():\n{code}```\n\nAfter\n"
    assert rows(grown(text, 1, width)) == rows(lay_out(text, width))


@pytest.mark.parametrize(
    "line",
    [lambda i: f"{i + 1}. item number {i}\n", lambda i: f"x_{i} = {i}\n", lambda i: f"A paragraph, {i}.\n\n"],
    ids=["list", "code", "paragraphs"],
)
def test_what_is_laid_out_anew_does_not_grow_with_the_text(line):
    text = Growing(40)
    text.add("```python\n" if line(0).startswith("x") else "")
    anew = []
    for i in range(400):
        first = text.add(line(i))
        anew.append(len(text.lines) - first)
    assert max(anew) <= CODE_LINES + 5
    assert len(text.lines) >= 400


def test_numbers_count_on_while_the_text_comes():
    text = "1. a\n1. b\n1. c\n"
    assert rows(grown(text, 3)) == ["1. a", "2. b", "3. c"]


def test_a_line_that_has_not_ended_settles_nothing():
    text = Growing(40)
    for piece in ("- a\n", "*", "*bold** text\n"):
        text.add(piece)
    assert rows(text.lines) == rows(lay_out("- a\n**bold** text\n", 40))


def test_an_empty_block_takes_no_room():
    assert rows(grown("a\n\n> \n\nb", 1)) == rows(lay_out("a\n\n> \n\nb", 40))


def test_growing_reads_only_its_end(monkeypatch: pytest.MonkeyPatch):
    read: list[int] = []
    nodes_of = growing.nodes_of
    monkeypatch.setattr(growing, "nodes_of", lambda tokens: read.append(len(tokens)) or nodes_of(tokens))
    text = Growing(40)
    for i in range(300):
        text.add(f"- item **{i}**\n")
    assert max(read) <= 20


# -------------------------------------------------------------------------------------------------- selection


def test_what_is_selected_is_the_text_and_not_how_it_is_shown():
    text = "one two three four\n\n- an item that is wrapped\n\n> said\n\n```py\nf(1)\n  g(2, 3, 4, 5)\n```"
    wanted = "one two three four\n\nan item that is wrapped\n\nsaid\n\nf(1)\n  g(2, 3, 4, 5)"
    assert selected(lay_out(text, 12), SELECT_ALL) == wanted


def test_a_part_is_selected_by_rows_and_columns():
    lines = lay_out("one two three four", 12)
    assert selected(lines, Selection(Offset(4, 0), Offset(5, 1))) == "two three"
    assert selected(lines, Selection(Offset(1, 0), Offset(3, 0))) == "ne"


def test_rows_are_put_together_again():
    assert [(row.content.plain, row.then) for row in wrapped(Content("aa bb ccccccc"), 5)] == [
        ("aa bb", " "),
        ("ccccc", ""),
        ("cc", "\n"),
    ]
    assert [(row.content.plain, row.then) for row in folded(Content("abcdef"), 4)] == [
        ("abcd", ""),
        ("ef", "\n"),
    ]
    assert [
        (row.content.plain, row.lead) for row in indented([Line(Content("a"), 1)], Content("> "), Content(""))
    ] == [("> a", 3)]
