"""`clean` removes what commands a terminal or is not seen, `clean_line` what forges names; and no more."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.characters import LINE, MOST_MARKS, PROSE, escaped, thinned
from localai.chat.clean import clean, clean_line, unseen
from models.header import printable

ANY_TEXT = st.text(st.one_of(st.characters(codec=None), st.sampled_from([chr(code) for code in LINE])))
PERSIAN = "می\u200cخواهم"
FAMILY = "👩\u200d💻 ❤\ufe0f"


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("plain text\n\twith layout", "plain text\n\twith layout"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("\x1b]0;title\x07rest", "]0;title" + "rest"),
        ("\x1b]52;c;ZXZpbA==\x1b\\", "]52;c;ZXZpbA==\\"),
        ("\x9b31m\x90q", "31mq"),
        ("one\r\ntwo\rthree", "one\ntwothree"),
        ("back\x08space\x7f", "backspace"),
        ("user\u202eexe.txt\u202c", "userexe.txt"),
        ("\u2066isolate\u2069", "isolate"),
        ("half \ud83d a pair", "half  a pair"),
        ("naïve 日本語 👩‍💻 עברית", "naïve 日本語 👩‍💻 עברית"),
        (f"{PERSIAN} {FAMILY}", f"{PERSIAN} {FAMILY}"),
        ("r1\u200b \u2060r1\ufeff so\u00adft \u200er\u200f\u061c", "r1 r1 soft r"),
        ("one\u2028two\u2029three", "one\ntwo\nthree"),
        ("a\u115fb\u1160c\u3164d\uffa0e", "abcde"),
        ("hid\U000e0068\U000e0069\U000e007f\U000e0100den", "hidden"),
        ("so\ufe00is\ufe0dthis\u034f", "soisthis"),
        ("\u2800\u2801 braille", "\u2800\u2801 braille"),
        ("", ""),
    ],
)
def test_table(dirty: str, expected: str) -> None:
    assert clean(dirty) == expected


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        (f"{PERSIAN} {FAMILY}", "می" + "خواهم 👩💻 ❤"),
        ("\u00a0one\t\n two\u2003\u2028three\u3000", "one two three"),
        ("\u2800r1\u2800:7b", "r1 :7b"),
        ("\x1b]0;a\x07\u202e", "]0;a"),
        ("Z" + "\u0335" * 10_000 + "a\u0301lgo", "Z" + "\u0335" * MOST_MARKS + "a\u0301lgo"),
        ("\u200b", ""),
    ],
)
def test_table_of_lines(dirty: str, expected: str) -> None:
    assert clean_line(dirty) == expected


@given(ANY_TEXT)
def test_nothing_that_commands_a_terminal_is_left(text: str) -> None:
    left = clean(text)
    assert not [c for c in left if unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\t"]
    assert clean(left) == left
    left.encode("utf-8")


@given(ANY_TEXT)
def test_a_line_is_one_and_has_nothing_that_is_not_seen(text: str) -> None:
    line = clean_line(text)
    assert clean_line(line) == line == " ".join(line.split())
    assert not [c for c in line if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} or ord(c) in LINE]
    assert not [c for c in printable(text) if not c.isprintable() or ord(c) in LINE]


@given(ANY_TEXT, ANY_TEXT)
def test_pieces_may_be_cleaned_one_by_one(a: str, b: str) -> None:
    assert clean(a + b) == clean(a) + clean(b)
    assert unseen(a + b) == unseen(a) + unseen(b)


def test_all_formats_of_unicode_go_but_joiners_and_signs_that_are_seen() -> None:
    """Signs above numbers, and marks of Syriac and Kaithi, are of category Cf but are drawn."""
    formats = {chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) == "Cf"}
    kept = {c for c in formats if clean(c)}
    drawn = {*map(chr, range(0x600, 0x606)), *"\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"}
    assert kept - drawn == {"\u200c", "\u200d"}


def test_what_is_unseen_is_counted_and_what_is_a_control_is_not() -> None:
    assert unseen("a\x1b\x07\r\x9b\u2028é") == 0
    assert unseen("a\u200b\u202e\U000e0041\ufeff\u00ad") == 5


@given(ANY_TEXT)
def test_escaped_json_is_the_same_and_has_nothing_to_obey(text: str) -> None:
    whole = "".join(c for c in text if not "\ud800" <= c <= "\udfff")
    document = json.dumps({whole: [whole]}, ensure_ascii=False, indent=1)
    assert json.loads(escaped(document)) == {whole: [whole]}
    assert not set(map(ord, escaped(document))) & PROSE.keys()


def test_the_languages_that_pile_marks_keep_them() -> None:
    for word in ("Việt Nam", "ที่นี่", "שָׁלוֹם", "हिन्दी", "ཨོཾ་མ་ཎི་པདྨེ་ཧཱུྃ"):
        assert thinned(unicodedata.normalize("NFD", word)) == unicodedata.normalize("NFD", word)
