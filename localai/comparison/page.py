"""A comparison as a report for people: one HTML page, or its pictures as one SVG.

Contract: the page has no scripts and loads nothing; its policy forbids both, and lets no style sheet be used
but the one that is in it. All texts are cleaned and escaped: names come from files of others. It says all
that a reader needs who never heard of quantization, and what one needs to measure the same again.
"""

from __future__ import annotations

import base64
import hashlib
import textwrap
from collections.abc import Iterator
from html import escape
from typing import Final

from localai.chat.clean import clean_line
from localai.comparison import drawing, style, table, words
from localai.comparison.pictures import pictures
from localai.comparison.result import Comparison
from localai.comparison.words import HARDLY

_STYLE: Final = style.PICTURE + style.PAGE
_POLICY: Final = "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"
_UNSURE: Final = "Too little is measured to say which type to take."
_GAP: Final = 24
_LETTERS: Final = 118
"""Letters of the advice in a line of the SVG."""


def html(comparison: Comparison) -> str:
    """The page."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(digest)}">',
        '<meta name="referrer" content="no-referrer">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_heading(comparison)}</title>",
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
        *_advice(comparison),
        *_plainly(comparison),
        *_pictures(comparison),
        *_figures(comparison),
        *_measured(comparison),
        *_command(comparison),
    ]
    return "\n".join([*parts, "</main>\n</body>\n</html>\n"])


def svg(comparison: Comparison) -> str:
    """The advice and the pictures, side by side; an empty frame with its title where there is none."""
    shown = pictures(comparison)
    said = textwrap.wrap(_sentence(comparison), _LETTERS if len(shown) > 1 else _LETTERS // 2)
    top = 92 + 22 * len(said)
    width = 2 * _GAP + max(1, len(shown)) * (drawing.WIDTH + _GAP) - _GAP
    height = top + (drawing.HEIGHT if shown else 0) + 10
    lines = [
        f'<text class="said" x="{_GAP}" y="{62 + 22 * number}">{escape(line)}</text>'
        for number, line in enumerate(said)
    ]
    for number, picture in enumerate(shown):
        left = _GAP + number * (drawing.WIDTH + _GAP)
        lines.append(f'<text class="caption" x="{left}" y="{top - 8}">{escape(picture.title)}</text>')
        lines.append(drawing.figure(picture, number, left=left, top=top))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}">',
            f"<title>{_heading(comparison)}</title>\n<style>{style.PICTURE}</style>",
            f'<rect class="back" width="{width}" height="{height}"/>',
            f'<text class="head" x="{_GAP}" y="34">{_heading(comparison)}</text>',
            *lines,
            "</svg>\n",
        ]
    )


def _text(text: str) -> str:
    return escape(clean_line(text))


def _heading(comparison: Comparison) -> str:
    return f"Which type of {_text(comparison.name or comparison.source)} to take"


def _sentence(comparison: Comparison) -> str:
    return clean_line(comparison.advice.sentence) if comparison.advice else _UNSURE


def _advice(comparison: Comparison) -> Iterator[str]:
    yield f"<h1>{_heading(comparison)}</h1>"
    yield f'<p class="advice">{escape(_sentence(comparison))}</p>'
    facts = [f"Measured on {comparison.machine}", comparison.made.replace("T", " ")[:16] + " UTC"]
    yield f'<p class="facts">{" · ".join(_text(fact) for fact in facts)}</p>'


_ABOUT: Final = """\
<h2>What this is about</h2>
<p>A language model is a long list of numbers, its <em>weights</em>: this one has {number}. At their most
exact here, which is called {reference}, they take {size}. To <em>quantize</em> a model is to write its
weights down less exactly, somewhat as 3.14 stands for 3.14159. The file becomes smaller and needs less
memory, and mostly the model writes faster, because all of the file is read for each word. The price is
that it is no longer quite the same model: now and then it will choose another word than the original
would.</p>
<p>There are many ways to do so, the <em>types</em>. The number in a type’s name is about how many bits
each weight gets: Q8 is nearly exact, Q2 is coarse. What the names do not tell is how much is lost with
this model, and how fast it is on this machine. So both were measured, for each type. Speed is told in
tokens per second; a token is a word or a piece of one, and people read about five a second. If you just
want to chat, the line above is all you need.</p>"""
_READING: Final = """\
<h2>The types in pictures</h2>
<p>Each point is a type. <strong>The lower, the closer to the original.</strong> In the first picture,
what is on the left is a smaller file; in the second one, what is on the right writes faster. From one
number at the left edge to the next one the loss doubles, or more. The thin bars are what the measurement
leaves open: the true value is within them, nearly always. The dotted line connects the types with the
least loss for their size, or speed.</p>"""
_METHOD: Final = f"""\
<h2>How it was measured</h2>
<p>Each type read the same text beside the original, token by token, and the probabilities of both for
what comes next were compared; the loss is what llama-perplexity calls the mean KL divergence. For the
speed, the types took turns, so that a machine that is busy for a while is busy for all of them; the
figures are medians. Another text, another machine or other settings give other figures: compare only what
stands in one table.</p>
<p>A loss up to {HARDLY:g} counts as hardly noticeable, if the most likely word is the same in at least 90
of 100 places. A type counts as dominated if another one is, within the errors, not worse in size, speed
and loss, and clearly better in one of them.</p>"""


def _plainly(comparison: Comparison) -> Iterator[str]:
    """What it is about."""
    yield _ABOUT.format(
        number=words.weights(comparison.weights),
        reference=_text(comparison.reference),
        size=words.size(comparison.reference_size),
    )


_KEY: Final = (
    ("advised", '<path d="M8 1l7 7-7 7-7-7z"/>', "the one to take"),
    ("front", '<circle cx="8" cy="8" r="6"/>', "worth a thought: no other is as good in everything"),
    ("dominated", '<circle cx="8" cy="8" r="5"/>', "dominated: another is as good or better in everything"),
)


def _pictures(comparison: Comparison) -> Iterator[str]:
    shown = pictures(comparison)
    if shown:
        yield _READING
        yield '<ul class="key">'
        for kind, form, said in _KEY:
            yield (
                f'<li><svg viewBox="0 0 16 16" aria-hidden="true"><g class="point {kind}">{form}</g></svg> '
                f"{said}</li>"
            )
        yield "</ul>"
        if not all(row.fits for row in comparison.rows):
            yield "<p>* needs more memory than a model may take on this machine.</p>"
        yield '<div class="pictures">'
        for number, picture in enumerate(shown):
            yield f"<figure><figcaption>{escape(picture.title)}</figcaption>"
            yield drawing.figure(picture, number) + "</figure>"
        yield "</div>"
    if comparison.advice and comparison.advice.remarks:
        yield "<h2>What the others would bring</h2>\n<ul>"
        yield from (f"<li>{_text(remark)}</li>" for remark in comparison.advice.remarks)
        yield "</ul>"


def _figures(comparison: Comparison) -> Iterator[str]:
    yield '<h2 id="figures">All figures</h2>'
    yield table.html(comparison)
    yield "<h2>What the columns mean</h2>"
    yield table.meanings(comparison)


def _measured(comparison: Comparison) -> Iterator[str]:
    reference = f"{_text(comparison.reference)}, {words.size(comparison.reference_size)}"
    tokens = next((f", {row.loss.tokens:,} tokens of which count" for row in comparison.rows if row.loss), "")
    matrix = {"": "none", "auto": "made for this from the text that comes along"}
    facts = [
        ("Model", f"{comparison.name}, {comparison.architecture}, {comparison.weights:,} weights"),
        ("Text", f"{comparison.text}: {comparison.chunks:,} pieces of {comparison.context:,} tokens{tokens}"),
        ("Importance matrix", matrix.get(comparison.imatrix, comparison.imatrix)),
        ("Machine", comparison.machine),
        ("Memory that a model may take", words.size(comparison.memory_usable)),
        ("Program", f"localai {comparison.program}, llama.cpp {comparison.llama_cpp[:12]}"),
        ("Time", f"{comparison.made} (UTC)"),
    ]
    yield _METHOD
    yield "<dl>"
    yield f"<dt>Compared with</dt><dd>{reference}</dd>"
    yield from (f"<dt>{escape(what)}</dt><dd>{_text(said)}</dd>" for what, said in facts if said)
    yield "</dl>"
    if comparison.notes:
        yield "<ul>"
        yield from (f"<li>{_text(note)}</li>" for note in comparison.notes)
        yield "</ul>"


def _command(comparison: Comparison) -> Iterator[str]:
    if not comparison.advice or not comparison.advice.file_type:
        return
    line = words.command(comparison, comparison.advice.file_type)
    yield f"<h2>To make the {_text(words.name(comparison.advice.file_type))}</h2>"
    yield f"<pre><code>{escape(line)}</code></pre>"
    yield "<p>It says at its end how to chat with it. For another type, put its name behind --type.</p>"
