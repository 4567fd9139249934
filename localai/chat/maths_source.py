"""Reads LaTeX with pylatexenc: the nodes of a formula, the words and signs in them, what names stand for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from localai.chat import maths_signs as signs
from localai.chat.maths_layout import Kind

MAX_DEPTH: Final = 40
"""Of braces, environments and formulas in one another."""

_TOKEN: Final = re.compile(r"\s+|\d+(?:[.,]\d+)*|[A-Za-z]+|'+|.", re.DOTALL)
_BARE_PERCENT: Final = re.compile(r"(?<!\\)((?:\\\\)*)%")
_LINE_END: Final = re.compile(
    r"\\\\\*?(?:\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in)\s*\])?|\\(?:newline|cr)(?![A-Za-z])"
)
_KINDS: Final[dict[str, Kind]] = dict(
    zip("|‖:/,;.", ("bar", "bar", "bar", "slash", "punct", "punct", "punct"), strict=True)
)
_ORDINARY: Final = frozenset("∞∂∇∀∃∄∅∠∡△▽°□¬⊤⊥…⋯⋮⋱ℵ|‖√′″")

Node = Any  # pylatexenc has no types
Nodes = Sequence[Node]


def _depth(latex: str) -> int:
    depth = deepest = 0
    for sign in re.findall(r"\\.|[{}]", latex):
        depth += (sign == "{") - (sign == "}")
        deepest = max(deepest, depth)
    return deepest + max(latex.count(opening) for opening in (r"\begin", r"\(", r"\["))


def parsed(latex: str) -> Nodes | None:
    """The nodes; None if it is not LaTeX, or too deep."""
    from pylatexenc.latexwalker import LatexWalker, LatexWalkerError

    if _depth(latex) > MAX_DEPTH:
        return None
    latex = _BARE_PERCENT.sub(r"\1\\%", _LINE_END.sub(r"\\\\ ", latex))
    try:
        walker = LatexWalker(latex, latex_context=_context(), tolerant_parsing=False)
        nodes: Nodes = walker.get_latex_nodes()[0]
    except (LatexWalkerError, RecursionError):
        return None
    return nodes


@lru_cache(maxsize=1)
def _context() -> Any:
    """What takes arguments, and how many."""
    from pylatexenc.macrospec import (
        EnvironmentSpec,
        LatexContextDb,
        MacroSpec,
        std_environment,
        std_macro,
        std_specials,
    )

    one = [
        *signs.HIDDEN_ARGUMENT,
        *signs.PLAIN_ARGUMENT,
        *signs.TEXT,
        *signs.BOXES,
        *signs.LINES,
        *signs.MARKS,
    ]
    one += ["mathbb", "mathcal", "pmod", "pod", "mod", "tag", "underbrace", "overbrace", "substack"]
    two = [*signs.FRACTIONS, *signs.CHOICES, "overset", "underset", "stackrel", "textcolor"]
    arguments = {**dict.fromkeys(one, "{"), **dict.fromkeys(two, "{{"), "sqrt": "[{", "operatorname": "*{"}
    arguments |= dict.fromkeys(signs.ARROWS, "[{")
    shapes = {"array": "[{", "tabular": "[{", "alignat": "{", "alignat*": "{", "alignedat": "{"}
    context = LatexContextDb()
    context.add_context_category(
        "maths",
        macros=[std_macro(name, spec) for name, spec in arguments.items()],
        environments=[std_environment(name, spec) for name, spec in shapes.items()],
        specials=[std_specials("&"), std_specials("~")],
    )
    context.set_unknown_macro_spec(MacroSpec(""))
    context.set_unknown_environment_spec(EnvironmentSpec(""))
    return context


@lru_cache(maxsize=1024)
def sign_of(name: str) -> str:
    r"""What `\name` stands for; empty if nothing."""
    from pylatexenc.latex2text import get_default_latex_context_db

    if name in signs.SIGNS:
        return signs.SIGNS[name]
    spec = get_default_latex_context_db().get_macro_spec(name)
    text = getattr(spec, "simplify_repl", None)
    return text if isinstance(text, str) and len(text) == 1 and text.isprintable() else ""


def kind_of(sign: str) -> Kind:
    """What a sign is among others; TeX's classes of mathematical atoms, near enough."""
    if sign in _KINDS:
        return _KINDS[sign]
    if sign in signs.BIG:
        return "big"
    category = unicodedata.category(sign) if len(sign) == 1 else ""
    if category in ("Ps", "Pe"):
        return "open" if category == "Ps" else "close"
    operator = category == "Sm" or sign in ("−", "*", "·", "⋆", "•") or "←" <= sign <= "⇿"
    return "op" if operator and sign not in _ORDINARY else "word"


def argument_of(node: Node, index: int) -> Nodes:
    """The nodes of an argument; none if it was left out."""
    given = node.nodeargd.argnlist if node.nodeargd is not None else []
    argument = given[index] if -len(given) <= index < len(given) else None
    if argument is None:
        return []
    nodes: Nodes = argument.nodelist if node_type(argument) == "Group" else [argument]
    return nodes


def node_type(node: Node) -> str:
    """Chars, Group, Macro, Environment, Specials, Math or Comment."""
    return type(node).__name__.removeprefix("Latex").removesuffix("Node")


def items_of(nodes: Iterable[Node]) -> Iterator[str | Node]:
    """Words and signs one by one, and what is not characters as it is."""
    for node in nodes:
        if node_type(node) == "Chars":
            yield from _TOKEN.findall(node.chars)
        elif node_type(node) == "Specials":
            yield " " if node.specials_chars == "~" else node.specials_chars
        else:
            yield node
            if node_type(node) == "Macro" and node.macro_post_space:
                yield " "


def split_at(nodes: Iterable[Node], wanted: str) -> list[list[Node]]:
    r"""`nodes` at the macro \\ or at the special character &."""
    parts: list[list[Node]] = [[]]
    for node in nodes:
        name = {"Macro": "macroname", "Specials": "specials_chars"}.get(node_type(node), "")
        if name and getattr(node, name) == wanted:
            parts.append([])
        else:
            parts[-1].append(node)
    return parts


def macro_name(node: Node) -> str:
    """The name of a macro; empty for other nodes."""
    return str(node.macroname) if node_type(node) == "Macro" else ""
