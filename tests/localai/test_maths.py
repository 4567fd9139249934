"""Formulas as models write them, and as they are read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.chat.clean import clean
from localai.chat.maths import MAX_CHARACTERS, readable
from localai.chat.maths_layout import width

FORMULAS = [
    (r"x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}", "x = (−b ± √(b² − 4ac))/(2a)"),
    (r"\boxed{42}", "▐42▌"),
    (r"\boxed{x = -1 \text{ or } x = 2}", "▐x = −1 or x = 2▌"),
    (r"\frac{a+b}{c-d}", "(a + b)/(c − d)"),
    (r"\frac12", "1/2"),
    (r"3\frac{1}{2}", "3 1/2"),
    (r"\dfrac{1}{2}x^{2}", "(1/2)x²"),
    (r"v_0 t + \frac12 a t^2", "v₀t + (1/2)at²"),
    (r"\frac{\frac{1}{2}}{3}", "(1/2)/3"),
    (r"\frac{1}{n(n+1)}", "1/(n(n + 1))"),
    (r"\frac{P(A)}{P(B)}", "P(A)/P(B)"),
    (r"\frac{d}{dx} f(x) = f'(x)", "(d/dx) f(x) = f′(x)"),
    (r"\frac{\partial f}{\partial x}", "∂f/∂x"),
    (r"\frac{\Delta y}{\Delta x}", "Δy/Δx"),
    (r"\text{speed} = \frac{\text{distance}}{\text{time}}", "speed = distance/time"),
    (r"\frac{120\text{ km}}{2\text{ h}} = 60 \text{ km/h}", "(120 km)/(2 h) = 60 km/h"),
    (r"x^2 + y^2 = z^2", "x² + y² = z²"),
    (r"a_{ij}", "aᵢⱼ"),
    (r"x^{n+1}", "xⁿ⁺¹"),
    (r"x^{\frac{1}{2}}", "x^(1/2)"),
    (r"x_{A}^{2}", "x_A²"),
    (r"e^{i\pi} + 1 = 0", "e^(iπ) + 1 = 0"),
    (r"e^{-x^2}", "e^(−x²)"),
    (r"1.5 \times 10^{-3} \, \text{m/s}^2", "1.5 × 10⁻³ m/s²"),
    (r"\sqrt{2}", "√2"),
    (r"\sqrt{x+1}", "√(x + 1)"),
    (r"\sqrt[3]{27} = 3", "∛27 = 3"),
    (r"\sqrt[n]{x}", "ⁿ√x"),
    (r"\sqrt{2}x", "(√2)x"),
    (r"2 \times 3 \cdot 4 \div 5", "2 × 3 · 4 ÷ 5"),
    (r"x \leq 5 \text{ and } y \geq 3", "x ≤ 5 and y ≥ 3"),
    (r"\alpha, \beta, \Gamma, \varepsilon", "α, β, Γ, ε"),
    (r"\sum_{i=1}^{n} i = \frac{n(n+1)}{2}", "∑ᵢ₌₁ⁿ i = n(n + 1)/2"),
    (r"\sum_{n=0}^\infty \frac{x^n}{n!}", "∑ₙ₌₀^∞ xⁿ/n!"),
    (r"\int_0^1 x^2 \, dx = \left[ \frac{x^3}{3} \right]_0^1", "∫₀¹ x² dx = [x³/3]₀¹"),
    (r"\lim_{x \to 0} \frac{\sin x}{x} = 1", "lim_(x→0) (sin x)/x = 1"),
    (r"\max_{x \in [0,1]} f(x)", "max_(x∈[0,1]) f(x)"),
    (r"\binom{n}{k} = \frac{n!}{k!(n-k)!}", "(n choose k) = n!/(k!(n − k)!)"),
    (r"x \in \mathbb{R}", "x ∈ ℝ"),
    (r"\vec{v} = (1, 2)", "v\u20d7 = (1, 2)"),
    (r"\overline{AB}", "A\u0305B\u0305"),
    (r"\hat{x}", "x\u0302"),
    (r"\left( \frac{1}{2} \right)^2", "(1/2)²"),
    (r"\left.\frac{dy}{dx}\right|_{x=0}", "dy/dx|ₓ₌₀"),
    (r"\left\lfloor \frac{n}{2} \right\rfloor", "⌊n/2⌋"),
    (r"\left\{ x \in \mathbb{R} \mid x > 0 \right\}", "{x ∈ ℝ | x > 0}"),
    (r"a \equiv b \pmod{n}", "a ≡ b (mod n)"),
    (r"a \bmod b", "a mod b"),
    (r"a \rightarrow b \Rightarrow c \iff d", "a → b ⇒ c ⇔ d"),
    (r"25\%", "25%"),
    (r"25% of 80", "25% of 80"),
    (r"\$12.50", "$12.50"),
    (r"10{,}000", "10,000"),
    (r"90^\circ", "90°"),
    (r"\angle ABC = 30^{\circ}", "∠ABC = 30°"),
    (r"\sin^2 \theta + \cos^2 \theta = 1", "sin² θ + cos² θ = 1"),
    (r"\log_2 8 = 3", "log₂ 8 = 3"),
    (r"\operatorname{lcm}(a,b)", "lcm(a, b)"),
    (r"\nabla \cdot \mathbf{E} = \frac{\rho}{\varepsilon_0}", "∇ · E = ρ/ε₀"),
    (r"\|v\| |x|", "‖v‖ |x|"),
    (r"-1 < x < -y", "−1 < x < −y"),
    (r"|-5| - 2", "|−5| − 2"),
    (r"2 \pi r", "2πr"),
    (r"x \not= y \notin Z", "x ≠ y ∉ Z"),
    (r"a \quad b", "a b"),
    (r"\overset{?}{=}", "=^?"),
    (r"\{1, 2, \ldots, n\}", "{1, 2, …, n}"),
    (r"P(A \cup B) = 1", "P(A ∪ B) = 1"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "(1, 2; 3, 4)"),
    (r"\begin{cases} x^2 & \text{if } x > 0 \\ 0 & \text{else} \end{cases}", "{x² if x > 0; 0 else}"),
    (r"\unknown{x} + 1", r"\unknown{x} + 1"),
]


@pytest.mark.parametrize(("latex", "text"), FORMULAS, ids=[latex for latex, _ in FORMULAS])
def test_in_one_line(latex: str, text: str):
    assert readable(latex) == text


ROWS = {
    "cases": (
        r"f(x) = \begin{cases} x^2 & \text{if } x > 0 \\ 0 & \text{otherwise} \end{cases}",
        ["f(x) = ⎧ x²  if x > 0", "       ⎩ 0   otherwise"],
    ),
    "three cases": (
        r"\begin{cases} x + y = 10 \\ x - y = 2 \\ z=3 \end{cases}",
        ["⎧ x + y = 10", "⎨ x − y = 2", "⎩ z = 3"],
    ),
    "align": (
        r"\begin{align*} 2x + 3 &= 7 \\[6pt] 2x &= 4 \\ &= 5 \end{align*}",
        ["2x + 3 = 7", "    2x = 4", "       = 5"],
    ),
    "rows without an environment": (r"a &= b \\ cc &= d", [" a = b", "cc = d"]),
    "matrices side by side": (
        r"A = \begin{bmatrix} a_{11} & 0 \\ 0 & a_{22} \end{bmatrix} \begin{bmatrix} x \\ y \end{bmatrix}^T",
        ["A = ⎡a₁₁   0 ⎤ ⎡x⎤ᵀ", "    ⎣ 0   a₂₂⎦ ⎣y⎦"],
    ),
    "determinant": (r"\begin{vmatrix} a & b \\ c & d \end{vmatrix} = ad", ["│a  b│ = ad", "│c  d│"]),
    "brackets around an array": (
        r"\left( \begin{array}{rl} 1 & 2 \\ 33 & 44 \\ 5 & 6 \end{array} \right)",
        ["⎛ 1  2 ⎞", "⎜33  44⎟", "⎝ 5  6 ⎠"],
    ),
    "matrix in an alignment": (
        r"\begin{aligned} xy &= 1 \\ A &= \begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix} \end{aligned}",
        ["xy = 1", " A = ⎛1  0⎞", "     ⎝0  1⎠"],
    ),
    "one row": (r"\frac{1}{2}", ["1/2"]),
}


@pytest.mark.parametrize(("latex", "rows"), ROWS.values(), ids=ROWS.keys())
def test_display(latex: str, rows: list[str]):
    assert readable(latex, display=True).split("\n") == rows


def test_a_matrix_too_wide_to_stand_in_lines_is_written_in_one():
    wide = r"\begin{pmatrix}" + "&".join(["100"] * 30) + r"\\ 1 & 2 \end{pmatrix}"
    assert readable(wide, display=True) == "(" + ", ".join(["100"] * 30) + "; 1, 2)"


@pytest.mark.parametrize(
    "latex",
    [
        "{",
        "}",
        r"\frac{",
        r"\begin{align} x",
        r"\end{align}",
        "a $ b",
        r"\[ x",
        "{" * 100_000,
        "{" * 60 + "}" * 60,
    ],
    ids=lambda latex: latex[:12],
)
def test_what_is_not_latex_is_shown_as_it_is(latex: str):
    assert readable(latex) == latex


def test_what_is_too_long_is_shown_as_it_is():
    latex = "x^2" * MAX_CHARACTERS
    assert readable(latex) == latex


@pytest.mark.parametrize("display", [False, True])
@pytest.mark.parametrize(
    "latex",
    [
        r"\overline{" * 39 + "abc" + "}" * 39,
        r"\frac{a}{" * 39 + "b" + "}" * 39,
        r"\begin{pmatrix}" * 20 + r"1&2\\3" + r"\end{pmatrix}" * 20,
        r"\begin{pmatrix}" + r"a&b\\" * 500 + r"\end{pmatrix}",
        r"\left(" * 480,
        r"x" + "^{2}" * 700,
    ],
    ids=lambda latex: str(latex)[:12],
)
def test_nothing_grows_beyond_measure(latex: str, display: bool):
    assert len(readable(latex, display=display)) < 10_000


def test_nothing_is_executed_and_no_character_is_made_of_its_number():
    for latex in [
        r"\input{/etc/hostname}",
        r"\unicode{x202e}",
        r'\char"1B',
        r"\def\x{1}\x",
        "^^[",
        r"\verb|x|",
    ]:
        text = readable(latex)
        assert text == clean(text)
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert readable(r"\input{/etc/hostname}") == r"\input{/etc/hostname}"


_PARTS = st.sampled_from(
    [
        *re.findall(r"\\[A-Za-z]+|.", "".join(latex for latex, _ in FORMULAS)),
        *[
            r"\begin{align}",
            r"\end{align}",
            r"\begin{cases}",
            r"\end{cases}",
            r"\\",
            "&",
            "{",
            "}",
            "\x1b[2J",
            "\u202e",
        ],
        *[
            r"\left",
            r"\right",
            r"\not",
            r"\sqrt[",
            r"\middle",
            r"\text{",
            "$",
            r"\(",
            r"\)",
            "\n",
            "~",
            "%",
            "\ud800",
        ],
    ]
)


@given(st.one_of(st.text(), st.lists(_PARTS, max_size=60).map("".join)), st.booleans())
def test_any_text_becomes_clean_text(latex: str, display: bool):
    text = readable(latex, display=display)
    assert text == clean(text)
    assert display or "\n" not in text or text == clean(latex)


def test_width_counts_columns():
    assert width("a\u0305b設") == 4
