"""Formulas in answers: where they begin and end, and that they come out the same piece by piece."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.pilot import Pilot

from tui.growing import Growing
from tui.markdown import lay_out
from tui.theme import DARK
from tui.widgets.answer import Answer

REPLY = r"""To solve \(x^2 - 5x + 6 = 0\), use the **quadratic formula** with $a = 1$, $b = -5$ and $c = 6$:
\[
x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a} = \frac{5 \pm \sqrt{25 - 24}}{2}
\]
So \( x_1 = 3 \) and \( x_2 = 2 \). **Check:**

\[
\begin{align*}
x_1 + x_2 &= 3 + 2 = 5 \\
x_1 \cdot x_2 &= 3 \cdot 2 = 6
\end{align*}
\]

1. As a matrix: $$A = \begin{pmatrix} 5 & -6 \\ 1 & 0 \end{pmatrix}$$
2. $f(x) \geq 0$ everywhere but between:
   $$
   f(x) \begin{cases} < 0 & \text{if } 2 < x < 3 \\ \geq 0 & \text{otherwise} \end{cases}
   $$

**Final answer:** \(\boxed{x = 2 \text{ or } x = 3}\)
"""


def shown(text: str, width: int = 70) -> list[str]:
    return [line.content.plain.rstrip() for line in lay_out(text, width)]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"So \(x^2\) is.", "So x² is."),
        ("So $x^2$ is.", "So x² is."),
        ("the $n$th, $x$-axis, ($y$)", "the nth, x-axis, (y)"),
        ("设$x$为整数", "设x为整数"),
        (r"a \boxed{\frac{1}{2}} b", "a ▐1/2▌ b"),
        (r"**\(a_1 * b\) * c_1**", "a₁ * b * c_1"),
        ("$a_1$ and $b_1$ and *c*", "a₁ and b₁ and c"),
        (r"\(x", r"\(x"),
        (r"\[x", r"  \[x"),
        (r"see \[x", r"see \[x"),
        (r"\boxed{x", r"\boxed{x"),
        ("$x", "$x"),
        ("$$", "  $$"),
        (r"\\(x\\)", r"\(x\)"),
        (r"\*no\*", "*no*"),
        (r"\$5 and $x$", "$5 and x"),
    ],
)
def test_within_a_line(source: str, text: str):
    assert shown(source) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $10.",
        "It costs $5, or $4.50 each, not 10$.",
        "from $5-$10, or $20,000/$30,000",
        "between $5 a month and 50$ a year",
        "100$ or 200$",
        "$HOME/$USER and $PATH",
        "$ x $",
    ],
)
def test_money_is_no_formula(text: str):
    assert shown(text) == [text]


def test_code_is_no_formula():
    assert shown(r"`$x^2$` and `\(x\)`") == [r"`$x^2$` and `\(x\)`".replace("`", "")]
    assert r" \[ x^2 \]" in shown("```\n\\[ x^2 \\]\n```")
    assert " $$x^2$$" in shown("    $$x^2$$")


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("a\n\\[\nx^2\n\\]\nb", ["a", "", "  x²", "", "b"]),
        ("a\n$$x^2$$\nb", ["a", "", "  x²", "", "b"]),
        (r"\[ x^2 \].", ["  x²."]),
        ("\\begin{align}\na &= b \\\\ cc &= d\n\\end{align}", ["   a = b", "  cc = d"]),
        (r"with \[ x^2 \] and", ["with", "  x²", "and"]),
        (r"with $$x^2$$.", ["with", "  x²."]),
        ("- a\n  \\[\n  x^2\n  \\]\n- b", ["• a", "    x²", "• b"]),
        ("1. a\n\\[\nx^2\n\\]", ["1. a", "", "  x²"]),
        ("> \\[\n> x^2\n> \\]", ["▌   x²"]),
        ("\\[\nx\n\n*y*", ["\\[ x", "", "y"]),
        ("\\begin{figure}\nx", [r"\begin{figure} x"]),
        ("| \\(x^2\\) | $y_1$ |\n|--|--|\n| $\\frac12$ | b |", ["x²  │ y₁", "────┼────", "1/2 │ b"]),
        ("# The $x^2$", ["The x²"]),
    ],
)
def test_on_its_own_lines(source: str, rows: list[str]):
    assert shown(source) == rows


def test_what_is_boxed_stands_out():
    [line] = lay_out(r"So \(\boxed{42}\).", 40)
    assert line.content.plain == "So ▐42▌."
    spans = {(span.start, span.end, str(span.style)) for span in line.content.spans}
    assert spans == {(3, 7, "bold $primary"), (4, 6, "reverse")}


def test_a_long_formula_is_wrapped():
    rows = shown("$$" + " + ".join(["x^2"] * 40) + "$$", 30)
    assert len(rows) > 3
    assert all(len(row) <= 30 for row in rows)


def test_a_formula_appears_when_its_end_comes():
    growing = Growing(60)
    growing.add("So\n\\[\nx_1 = *y*\n")
    assert [line.content.plain for line in growing.lines] == ["So", "", "  \\[", "  x_1 = *y*"]
    growing.add("\\]\n")
    assert [line.content.plain for line in growing.lines] == ["So", "", "  x₁ = * y *"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, len(REPLY)), max_size=40))
def test_piece_by_piece_it_comes_out_the_same(cuts: list[int]):
    growing = Growing(60)
    edges = [0, *sorted(cuts), len(REPLY)]
    for start, end in pairwise(edges):
        growing.add(REPLY[start:end])
    assert [line.content.plain for line in growing.lines] == [
        line.content.plain for line in lay_out(REPLY, 60)
    ]


_SIGNS = r"\[ \] \( \) $$ $ | \boxed{ } x^2 a&b \\ \begin{align} \end{align} text 5 \ ▐ *"
_PARTS = st.sampled_from([*_SIGNS.split(" "), "\n", "\n\n", "> ", "- ", "1. ", "    ", "```\n"])


@given(st.lists(_PARTS, max_size=40).map("".join))
def test_any_text_can_be_laid_out(text: str):
    lay_out(text, 40)


@pytest.mark.parametrize("opening", ["\\[\n", "\\boxed{"])
def test_each_opening_without_an_end_looks_only_so_far_for_it(opening: str):
    assert shown(opening * 10_000)  # took minutes


class Reading(App[None]):
    """An answer, and nothing else."""

    CSS = "Screen { padding: 1 2; } Answer { width: 1fr; }"

    def compose(self) -> ComposeResult:
        yield VerticalScroll(Answer())

    def on_mount(self) -> None:
        self.register_theme(DARK)
        self.theme = DARK.name


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
def test_answer_with_formulas(snap_compare, size: tuple[int, int]):
    async def stream(pilot: Pilot[None]) -> None:
        shown = pilot.app.query_one(Answer)
        for at in range(0, len(REPLY), 7):
            shown.append(REPLY[at : at + 7])
            await pilot.pause()
        await shown.finish(REPLY)

    assert snap_compare(Reading(), terminal_size=size, run_before=stream)
