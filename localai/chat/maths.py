"""Formulas in LaTeX, as models write them, as text that can be read in a terminal.

pylatexenc reads the LaTeX and names the symbols (`maths_source`); which spaces, brackets and lines make it
readable is decided here and in `maths_layout`. Nothing is executed: no macro is defined, no file is read, no
character is named by its number.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from localai.chat import maths_signs as signs
from localai.chat.clean import clean
from localai.chat.maths_layout import WEAK, Atom, Kind, Lines, bracketed, fenced, flat, grid, width
from localai.chat.maths_layout import tall as tall_of
from localai.chat.maths_source import (
    Node,
    argument_of,
    items_of,
    kind_of,
    macro_name,
    node_type,
    parsed,
    sign_of,
    split_at,
)

MAX_CHARACTERS: Final = 3000
WIDE: Final = 72
"""Columns. Lines that belong together must not be wrapped, so beyond this a matrix is written in one line."""

MAX_LINED: Final = 20
"""Characters that get a line over or through each of them."""

_SMALL: Final = re.compile(
    r"[√∛∜]?(?:\d[\d.,]*|[d∂Δ]?[^\W\d_])[\u0300-\u036f\u20d0-\u20ff′″⁰-₟ᵢ-ᵪ²³¹]*!?|[fghpEFGHPQ]?§"
)
_INNER: Final = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_ONE: Final = {"^": re.compile(r"\d+|\(?.\)?"), "_": re.compile(r"\d+|[A-Za-z]+|\(?.\)?")}


def readable(latex: str, *, display: bool = False) -> str:
    """`latex`, without its delimiters, as Unicode text; the source itself if it cannot be read as LaTeX.

    One line; with `display` as many as the rows of its alignments, cases and matrices need. Never raises.
    """
    if len(latex) > MAX_CHARACTERS:
        return clean(latex)
    return _readable(latex, display)


@lru_cache(maxsize=1024)
def _readable(latex: str, display: bool) -> str:
    source = clean(latex)
    nodes = parsed(source)
    if nodes is None:
        return source
    lines = _Formula(tall=display).lines(nodes)
    if len(lines) > 1 and max(map(width, lines)) > WIDE:
        lines = _Formula(tall=True, matrices=False).lines(nodes)
    return clean("\n".join(line.rstrip() for line in lines) if display else " ".join(" ".join(lines).split()))


def _scripted(atom: Atom, mark: str, script: str) -> Atom:
    """`atom` with a subscript or superscript: small characters if there are any for it."""
    script = script.strip()
    atom = bracketed(atom)
    table = signs.SUPERSCRIPT if mark == "^" else signs.SUBSCRIPT
    if mark == "^" and script in ("∘", "°"):
        small = "°"
    elif len(script) <= 6 and all(c in table for c in script):
        small = "".join(table[c] for c in script)
    else:
        small = mark + (script if _ONE[mark].fullmatch(script) else f"({script})")
    kind: Kind = "big" if mark == "_" and atom.text in signs.RANGED else atom.kind
    lines = (
        (atom.lines[0] + small, *(line + " " * width(small) for line in atom.lines[1:])) if atom.lines else ()
    )
    return replace(atom, text=atom.text + small, kind=kind, lines=lines)


def _collapsed(text: str) -> str:
    """`text` with § for everything in brackets, but for those too deep to matter."""
    for _ in range(9):
        shorter = _INNER.sub("§", text)
        if shorter == text:
            break
        text = shorter
    return text


def _is_small(atoms: Sequence[Atom], text: str) -> bool:
    """Whether it is one number, letter, word or call, which needs no brackets under a line or a root."""
    if len(atoms) == 1 and atoms[0].kind == "text":
        return " " not in text
    return _SMALL.fullmatch(_collapsed(text)) is not None


def _grouped(text: str, small: bool) -> str:
    return text if small else f"({text})"


def _aligned(rows: Sequence[Sequence[Lines]], name: str = "") -> Lines:
    """Equations one above the other, aligned where & stands."""
    align, gaps = ("rcl", (1,)) if name == "eqnarray" else ("rl", (1, 4))
    if all(len(row) == 1 for row in rows):
        align = "l"
    lines = grid([row for row in rows if any("".join(cell).strip() for cell in row)], align, gaps)
    indent = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    return tuple(line[indent:] for line in lines)


@dataclass(frozen=True, slots=True)
class _Formula:
    """Writes nodes. `tall`: alignments may take lines; `matrices`: so may matrices and cases."""

    tall: bool
    matrices: bool = True

    def lines(self, nodes: Iterable[Node]) -> Lines:
        return _aligned(self._rows(nodes, tall=self.tall))

    def _rows(self, nodes: Iterable[Node], *, tall: bool) -> list[list[Lines]]:
        return [[self._box(cell, tall=tall) for cell in split_at(row, "&")] for row in split_at(nodes, "\\")]

    def _box(self, nodes: Iterable[Node], *, tall: bool) -> Lines:
        return tall_of(self.atoms(nodes, tall=True)) if tall else (self.text(nodes),)

    def text(self, nodes: Iterable[Node], *, tight: bool = False) -> str:
        return flat(self.atoms(nodes), tight=tight)

    def atoms(self, nodes: Iterable[Node], *, tall: bool = False) -> list[Atom]:
        """The parts of one row."""
        waiting: deque[str | Node] = deque(items_of(nodes))
        result: list[Atom] = []
        gap, negated = "", False
        while waiting:
            item = waiting.popleft()
            name = "" if isinstance(item, str) else macro_name(item)
            if isinstance(item, str) and item.isspace():
                gap = gap or WEAK
            elif name in signs.SPACES:
                gap = gap.strip(WEAK) + signs.SPACES[name]
            elif name == "not":
                negated = True
            elif isinstance(item, str) and item in ("^", "_"):
                base = result.pop() if result else Atom("", "word")
                result.append(_scripted(base, item, self._script(waiting)))
            elif isinstance(item, str) and item.startswith("'") and result:
                base = bracketed(result.pop())
                result.append(
                    replace(base, text=base.text + {1: "′", 2: "″"}.get(len(item), "′" * len(item)))
                )
            elif not isinstance(item, str) and (inner := self._spliced(item)) is not None:
                waiting.extendleft(reversed(inner))
            elif (atom := self._atom(item, waiting, tall)) is not None:
                if negated:
                    atom = replace(atom, text=signs.NEGATED.get(atom.text, atom.text + "\u0338"))
                result.append(replace(atom, gap=gap))
                gap, negated = "", False
        return result

    def _spliced(self, item: Node) -> list[str | Node] | None:
        """What a group that only groups consists of; None if it is something else."""
        kind = node_type(item)
        if kind == "Macro" and item.macroname in signs.PLAIN_ARGUMENT:
            return list(items_of(argument_of(item, 0)))
        if kind == "Math" or (kind == "Group" and item.nodelist):
            return list(items_of(item.nodelist))
        return [] if kind == "Comment" else None

    def _script(self, waiting: deque[str | Node]) -> str:
        """The next item, as a subscript or superscript is meant."""
        while waiting and isinstance(waiting[0], str) and waiting[0].isspace():
            waiting.popleft()
        if not waiting:
            return ""
        item = waiting.popleft()
        if not isinstance(item, str):
            return self.text([item], tight=True)
        if item[1:]:
            waiting.appendleft(item[1:])
        return "−" if item[0] == "-" else "′" if item[0] == "'" else item[0]

    def _atom(self, item: str | Node, waiting: deque[str | Node], tall: bool) -> Atom | None:
        if isinstance(item, str):
            sign = "−" if item == "-" else "*" if item == "∗" else item
            return Atom(sign, kind_of(sign))
        if node_type(item) == "Environment":
            return self._environment(item, tall)
        if node_type(item) != "Macro":
            return Atom("", "word")
        name = item.macroname
        if name in ("left", "right", "middle"):
            return self._fence(name, waiting)
        if name in signs.IGNORED or name in signs.HIDDEN_ARGUMENT:
            return None
        atom = self._macro(item)
        if atom.text == "\\" + name and waiting and node_type(group := waiting[0]) == "Group":
            waiting.popleft()
            atom = replace(atom, text=f"{atom.text}{{{self._prose([group])}}}")
        return atom

    def _fence(self, name: str, waiting: deque[str | Node]) -> Atom | None:
        """The bracket after \\left, \\middle or \\right; a full stop there is none."""
        while waiting and isinstance(waiting[0], str) and waiting[0].isspace():
            waiting.popleft()
        if not waiting or node_type(waiting[0]) not in ("str", "Macro"):
            return None
        item = waiting.popleft()
        sign = item[:1] if isinstance(item, str) else sign_of(item.macroname)
        if isinstance(item, str) and item[1:]:
            waiting.appendleft(item[1:])
        kinds: dict[str, Kind] = {"left": "open", "right": "close", "middle": "op"}
        return Atom("" if sign == "." else sign, kinds[name])

    def _environment(self, node: Node, tall: bool) -> Atom:
        name = node.environmentname.rstrip("*")
        if name not in signs.GRIDS:
            rows = self._rows(node.nodelist, tall=tall)
            text = "; ".join(" ".join(" ".join(cell) for cell in row).strip() for row in rows)
            lines = _aligned(rows, name) if tall else ()
            return Atom(text, "group", lines=lines if len(lines) > 1 else ())
        left, right = signs.GRIDS[name]
        cells = [[self.text(cell) for cell in split_at(row, "&")] for row in split_at(node.nodelist, "\\")]
        cells = [[cell.strip() for cell in row] for row in cells if any(cell.strip() for cell in row)]
        if "cases" in name:
            align, text = "l", "{" + "; ".join(" ".join(row) for row in cells) + "}"
        else:
            align, text = "c", left + "; ".join(", ".join(row) for row in cells) + right
        if name in ("array", "tabular"):
            align = "".join(c for c in self.text(argument_of(node, -1)) if c in "lcr") or "c"
        if not (tall and self.matrices and len(cells) > 1):
            return Atom(text, "group")
        lines = grid([[(cell,) for cell in row] for row in cells], align, (2,))
        return Atom(text, "group", lines=fenced(lines, left, right))

    def _prose(self, nodes: Iterable[Node]) -> str:
        """Words, with their spaces."""
        pieces: list[str] = []
        for node in nodes:
            kind = node_type(node)
            if kind == "Chars":
                pieces.append(re.sub(r"\s+", " ", node.chars))
            elif kind == "Group":
                pieces.append(self._prose(node.nodelist))
            elif kind == "Math":
                pieces.append(self.text(node.nodelist))
            elif kind == "Specials":
                pieces.append(" " if node.specials_chars == "~" else node.specials_chars)
            elif kind == "Macro" and node.macroname in signs.SPACES:
                pieces.append(signs.SPACES[node.macroname])
            elif kind == "Macro" and node.macroname in signs.TEXT | signs.PLAIN_ARGUMENT:
                pieces.append(self._prose(argument_of(node, 0)))
            else:
                pieces.append(self.text([node]) + (" " if kind == "Macro" and node.macro_post_space else ""))
        return "".join(pieces)

    def _macro(self, node: Node) -> Atom:
        name = node.macroname
        if name in signs.FRACTIONS:
            return self._fraction(node)
        if name in signs.CHOICES:
            return Atom(f"({self._text(node, 0)} choose {self._text(node, 1)})", "group")
        if name == "sqrt":
            return self._root(node)
        if name == "operatorname":
            return Atom(self._prose(argument_of(node, 1)), "func")
        if name in signs.TEXT:
            return Atom(self._prose(argument_of(node, 0)), "text")
        if name in signs.FUNCTIONS or name in signs.RANGED:
            return Atom(name, "func")
        if name in signs.LINES or name in signs.MARKS:
            return self._marked(node)
        if name == "\\":
            return Atom(";", "punct")
        sign = sign_of(name)
        return Atom(sign, kind_of(sign)) if sign else self._rare(node)

    def _rare(self, node: Node) -> Atom:
        name = node.macroname
        if name in signs.BOXES:
            return Atom(f"▐{self._text(node, 0).strip()}▌", "text")
        if name == "mathbb":
            return Atom("".join(signs.BLACKBOARD.get(c, c) for c in self._text(node, 0)), "word")
        if name == "mathcal":
            return Atom("".join(signs.SCRIPT.get(c, c) for c in self._text(node, 0)), "word")
        if name in ("pmod", "pod", "mod"):
            return Atom(f" (mod {self._text(node, 0)})", "text")
        if name == "bmod":
            return Atom("mod", "op")
        if name == "tag":
            return Atom(f"   ({self._text(node, 0)})", "text")
        if name in ("underbrace", "overbrace"):
            return Atom(f"({self._text(node, 0)})", "group")
        if name in ("overset", "stackrel", "underset"):
            base = (self.atoms(argument_of(node, 1)) or [Atom("", "word")])[-1]
            script = self.text(argument_of(node, 0), tight=True)
            return _scripted(base, "_" if name == "underset" else "^", script)
        if name == "substack":
            return Atom(self._text(node, 0), "word")
        if name == "textcolor":
            return Atom(self._text(node, 1), "text")
        if name in signs.ARROWS:
            return Atom(f"─{self._text(node, 1)}{signs.ARROWS[name]}", "op")
        return Atom("\\" + name, "text")

    def _text(self, node: Node, argument: int) -> str:
        return self.text(argument_of(node, argument))

    def _fraction(self, node: Node) -> Atom:
        above, below = (self.atoms(argument_of(node, index)) for index in (0, 1))
        over, under = flat(above).strip(), flat(below).strip()
        simple = _is_small(above, over) or not re.search(r"[\s/]", _collapsed(over))
        return Atom(f"{_grouped(over, simple)}/{_grouped(under, _is_small(below, under))}", "frac")

    def _root(self, node: Node) -> Atom:
        index = self.text(argument_of(node, 0), tight=True).strip()
        inner = self.atoms(argument_of(node, 1))
        text = flat(inner).strip()
        sign = {"": "√", "2": "√", "3": "∛", "4": "∜"}.get(index)
        if sign is None:
            sign = _scripted(Atom("", "word"), "^", index).text + "√"
        return Atom(sign + _grouped(text, _is_small(inner, text)), "root")

    def _marked(self, node: Node) -> Atom:
        """Letters with a line or an arrow; what is longer than a word in brackets, with the mark behind."""
        text = self._text(node, 0)
        if node.macroname in signs.MARKS:
            text = text if text.isalnum() else f"({text})"
            return Atom(text + signs.MARKS[node.macroname], "word")
        mark = signs.LINES[node.macroname]
        if width(text) < len(text) or len(text) > MAX_LINED:  # marks on marks would double it at each level
            return Atom(f"({text}){mark}", "word")
        return Atom("".join(c if c.isspace() else c + mark for c in text), "word")
