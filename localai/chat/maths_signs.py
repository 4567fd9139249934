"""Which characters stand for what in a formula: tables only.

The names of most symbols come from pylatexenc (`maths.py`); here is what it lacks, or has for other uses.
"""

from __future__ import annotations

from typing import Final


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SIGNS: Final = {
    **{"ne": "≠", "iff": "⇔", "implies": "⇒", "impliedby": "⇐", "land": "∧", "lor": "∨", "neg": "¬"},
    **{"triangle": "△", "Box": "□", "Re": "Re", "Im": "Im", "degree": "°", "checkmark": "✓", "qed": "∎"},
    **{"lt": "<", "gt": ">", "divides": "|", "bot": "⊥", "models": "⊨", "lbrack": "[", "rbrack": "]"},
    **{"colon": ":", "pounds": "£", "euro": "€", "cent": "¢", "yen": "¥", "oiint": "∯", "coloneqq": "≔"},
    **{"leqslant": "≤", "geqslant": "≥", "ast": "*", "prime": "′", "lbrace": "{", "rbrace": "}", "And": "&"},
    **{"longrightarrow": "→", "Longrightarrow": "⇒", "longleftarrow": "←", "Longleftarrow": "⇐"},
    **{"Longleftrightarrow": "⇔", "longleftrightarrow": "↔", "gets": "←", "dots": "…", "hdots": "…"},
    **{"{": "{", "}": "}", "|": "‖", "$": "$", "%": "%", "&": "&", "#": "#", "_": "_", "S": "§", "P": "¶"},
    **{"lnot": "¬", "colonequals": "≔", "circledR": "®", "dag": "†", "ddag": "‡", "blacksquare": "∎"},
}

SPACES: Final = {
    **dict.fromkeys(
        [",", ":", ";", " ", "\n", "\t", ">", "space", "thinspace", "enspace", "nobreakspace"], " "
    ),
    "quad": "  ",
    "qquad": "    ",
}

# They change how something looks on paper, or what a reader of the source knows.
IGNORED: Final = _names(
    """
    ! / left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm Bigm
    limits nolimits displaystyle textstyle scriptstyle scriptscriptstyle nonumber notag hline bf rm
    it sf tt bfseries centering small large Large normalsize strut mathstrut noindent allowbreak
    relax
    """
)
HIDDEN_ARGUMENT: Final = _names("label phantom hphantom vphantom hspace vspace cline color")
PLAIN_ARGUMENT: Final = _names(
    """
    mathrm mathbf mathit mathsf mathtt mathnormal boldsymbol bm pmb mathfrak mathscr smash mathop
    mathbin mathrel mathord mathopen mathclose ensuremath
    """
)
TEXT: Final = _names(
    """
    text textbf textit textrm textsf texttt textup textnormal emph mbox hbox ce pu textmd textsc
    """
)
FUNCTIONS: Final = _names(
    """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln lg exp det dim ker deg
    arg hom gcd lcm Pr sgn tr rank
    """
)
RANGED: Final = _names("lim max min sup inf limsup liminf argmax argmin")
BIG: Final = frozenset("∑∏∐∫∬∭∮∯⋃⋂⨁⨂⋁⋀")

FRACTIONS: Final = _names("frac dfrac tfrac cfrac")
CHOICES: Final = _names("binom dbinom tbinom")
BOXES: Final = _names("boxed fbox framebox")
ARROWS: Final = {"xrightarrow": "→", "xleftarrow": "←", "xRightarrow": "⇒"}

# Put behind every character; the other marks go behind the last one.
LINES: Final = {
    "overline": "\u0305",
    "bar": "\u0305",
    "underline": "\u0332",
    "cancel": "\u0336",
    "bcancel": "\u0336",
    "xcancel": "\u0336",
    "sout": "\u0336",
}
MARKS: Final = {
    "vec": "\u20d7",
    "overrightarrow": "\u20d7",
    "hat": "\u0302",
    "widehat": "\u0302",
    "tilde": "\u0303",
    "widetilde": "\u0303",
    "dot": "\u0307",
    "ddot": "\u0308",
    "check": "\u030c",
    "breve": "\u0306",
    "acute": "\u0301",
    "grave": "\u0300",
    "mathring": "\u030a",
}
BLACKBOARD: Final = dict(zip("CHNPQRZ", "ℂℍℕℙℚℝℤ", strict=True))
SCRIPT: Final = dict(zip("BEFHILMR", "ℬℰℱℋℐℒℳℛ", strict=True))
NEGATED: Final = {
    "=": "≠",
    "∈": "∉",
    "∃": "∄",
    "⊂": "⊄",
    "⊆": "⊈",
    "≡": "≢",
    "≤": "≰",
    "≥": "≱",
    "∣": "∤",
    "|": "∤",
}

SUPERSCRIPT: Final = dict(
    zip(
        "0123456789+−=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVW′*°†",
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂ′*°†",
        strict=True,
    )
)
SUBSCRIPT: Final = dict(
    zip(
        "0123456789+−=()aehijklmnoprstuvxβγρφχ",
        "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ",
        strict=True,
    )
)

GRIDS: Final = {
    "matrix": ("", ""),
    "smallmatrix": ("", ""),
    "array": ("", ""),
    "tabular": ("", ""),
    "pmatrix": ("(", ")"),
    "bmatrix": ("[", "]"),
    "Bmatrix": ("{", "}"),
    "vmatrix": ("|", "|"),
    "Vmatrix": ("‖", "‖"),
    "cases": ("{", ""),
    "dcases": ("{", ""),
    "rcases": ("", "}"),
}
EQUATIONS: Final = _names(
    """
    align aligned alignat alignedat eqnarray flalign split gather gathered equation multline
    displaymath math
    """
)

# Brackets over two, three and more lines: first, between, last, and the middle of a brace.
TALL: Final = {
    "(": "⎛⎜⎝⎜",
    ")": "⎞⎟⎠⎟",
    "[": "⎡⎢⎣⎢",
    "]": "⎤⎥⎦⎥",
    "{": "⎧⎪⎩⎨",
    "}": "⎫⎪⎭⎬",
    "|": "││││",
    "‖": "‖‖‖‖",
}
