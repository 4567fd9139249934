"""The report: it opens offline, loads nothing, obeys no name, and says all that one needs to choose."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import msgspec
import pytest

from localai.comparison import drawing, page, style, table
from localai.comparison.pictures import pictures
from localai.comparison.result import Comparison
from tests.localai.comparisons import GB, SMALL, USUAL, comparison, row

_VOID = {"meta", "br", "link", "img", "input", "hr"}
_SVG = "{http://www.w3.org/2000/svg}"
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\u202e&amp;'


class Page(HTMLParser):
    """All elements of a page, in order, and that they are closed as they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1] if self._open else "", data.strip()))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(data for tag, data in self.texts if tag != "style")


def evil() -> Comparison:
    rows = (row(EVIL, 2e8, 0.01, pace=10), row("</svg></style>Q4_0", 1e8, 0.05, pace=20), row("x" * 900, 9e7))
    found = comparison(rows, source=EVIL, name=EVIL, imatrix=EVIL, notes=(EVIL,), options=(EVIL,))
    return msgspec.structs.replace(
        found, architecture=EVIL, reference=EVIL, text=EVIL, machine=EVIL, made=EVIL, llama_cpp=EVIL
    )


SAMPLES = {
    "small": comparison(SMALL),
    "usual": comparison(USUAL, name="R1 7B", imatrix="auto", notes=("Q4_1 was left out.",)),
    "without speeds": comparison(tuple(msgspec.structs.replace(one, speed=None) for one in SMALL)),
    "without losses": comparison((row("Q8_0", 1e8, pace=10), row("Q4_0", 5e7))),
    "one": comparison(SMALL[:1]),
    "none": comparison(()),
    "nothing fits": comparison(USUAL, memory=GB),
    "evil": evil(),
}


# --------------------------------------------------------------------------------------------------- safety


@pytest.mark.parametrize("name", SAMPLES)
def test_the_page_loads_nothing_and_runs_nothing(name: str) -> None:
    text = page.html(SAMPLES[name])
    found = Page(text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:|data:", text, re.IGNORECASE)
    tags = {tag for tag, _ in found.tags}
    assert not tags & {
        "script",
        "img",
        "link",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "use",
        "image",
        "a",
    }
    for _, attributes in found.tags:
        assert not {"src", "href", "xlink:href", "style", "srcset", "action"} & set(attributes)
        assert not any(attribute.startswith("on") for attribute in attributes)


def test_its_policy_allows_the_one_style_sheet_that_it_has() -> None:
    text = page.html(SAMPLES["small"])
    policy = next(meta["content"] for meta in Page(text).named("meta") if "http-equiv" in meta) or ""
    sheet = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert text.index("Content-Security-Policy") < text.index("<style>")
    assert "<" not in style.PAGE + style.PICTURE


def test_names_of_others_stay_text() -> None:
    text = page.html(SAMPLES["evil"])
    assert "<script" not in text
    assert "<img" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "x" * 100 not in text
    # They are shown as they are, and are not unescaped twice.
    assert "alert(1)</script>" in Page(text).text
    assert "&amp;amp;" in text


@pytest.mark.parametrize("name", SAMPLES)
def test_the_picture_is_well_formed_and_stands_alone(name: str) -> None:
    root = ElementTree.fromstring(page.svg(SAMPLES[name]))
    assert root.tag == f"{_SVG}svg"
    for element in root.iter():
        assert element.tag.removeprefix(_SVG) in {
            *("svg", "title", "desc", "style", "rect", "text", "path", "g", "circle"),
        }
        assert not {"href", "style", "{http://www.w3.org/1999/xlink}href"} & set(element.attrib)
        assert not any(attribute.startswith("on") for attribute in element.attrib)
    assert not re.search(r"url\(|@import", page.svg(SAMPLES[name]))
    assert len(root.findall(f"{_SVG}svg")) == len(pictures(SAMPLES[name]))


def test_the_picture_can_be_drawn(tmp_path: object) -> None:
    import cairosvg

    drawn = cairosvg.svg2png(bytestring=page.svg(SAMPLES["small"]).encode(), output_width=300)
    assert drawn.startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------------ what it tells


def test_the_page_tells_things_in_the_order_in_which_one_asks() -> None:
    found = SAMPLES["usual"]
    text = Page(page.html(found)).text
    assert found.advice is not None
    order = [
        "Which type of R1 7B to take",
        found.advice.sentence,
        "What this is about",
        "The types in pictures",
        "What the others would bring",
        found.advice.remarks[0],
        "All figures",
        "What the columns mean",
        "How it was measured",
        "made for this from the text that comes along",
        "Q4_1 was left out.",
        f"To make the {found.advice.file_type}",
        f"localai quantize smollm2:135m --type {found.advice.file_type} --imatrix auto",
    ]
    places = [text.find(part) for part in order]
    assert -1 not in places
    assert places == sorted(places)


def test_the_table_has_all_figures_and_explains_each_column() -> None:
    text = page.html(SAMPLES["usual"])
    found = Page(text)
    heads = [column.head for column in table.columns(SAMPLES["usual"])]
    assert heads == [
        *("Size", "Bits", "Memory", "Memory", "Writes", "Reads", "Same word", "Right", "Loss", "Worst 1 %"),
        "Perplexity",
    ]
    assert len([one for one in found.named("th") if one.get("scope") == "col"]) == len(heads) + 2
    assert len([one for one in found.named("th") if one.get("scope") == "row"]) == len(USUAL)
    meanings = text.partition("What the columns mean")[2].partition("How it was measured")[0]
    assert all(f"<dt>{head}" in meanings for head in heads)
    flat = found.text
    for part in (
        "4.7 GB",
        "4.92",
        "5.1 GB",
        "6.1 GB",
        "92.60",
        "0.0368",
        "± 0.0018",
        "0.258",
        "1.0368",
        "35 of 40",
    ):
        assert part in flat
    assert "○ dominated by IQ4_XS" in flat
    assert flat.count("◆ take this") == 1


def test_columns_of_which_nothing_is_known_are_left_out() -> None:
    heads = [column.head for column in table.columns(SAMPLES["without speeds"])]
    assert "Writes" not in heads
    assert "Right" not in heads
    flat = Page(page.html(SAMPLES["without losses"])).text
    assert "Too little is measured to say which type to take." in flat
    assert flat.count("not measured") == 2
    assert "To make the" not in flat


def test_when_nothing_fits_no_command_is_offered() -> None:
    flat = Page(page.html(SAMPLES["nothing fits"])).text
    assert "None of these types fits here" in flat
    assert "To make the" not in flat
    assert "◆ take this" not in flat


def test_what_does_not_fit_is_marked_in_words() -> None:
    rows = (msgspec.structs.replace(SMALL[0], fits=False), *SMALL[1:])
    flat = Page(page.html(comparison(rows))).text
    assert "too large for here" in flat
    assert "* needs more memory than a model may take on this machine." in flat
    assert "Q8_0*" in flat


# --------------------------------------------------------------------------------------------- the pictures


@pytest.mark.parametrize("rows", [SMALL, USUAL], ids=["small", "usual"])
def test_pictures_say_in_words_what_they_show(rows: tuple) -> None:
    for number, picture in enumerate(pictures(comparison(rows))):
        root = ElementTree.fromstring(drawing.figure(picture, number))
        assert root.get("role") == "img"
        names = {element.get("id"): element.text or "" for element in root if element.get("id")}
        assert (root.get("aria-labelledby") or "").split() == list(names)
        described = " ".join(names.values())
        assert all(one.file_type in described for one in rows)


@pytest.mark.parametrize("rows", [SMALL, USUAL], ids=["small", "usual"])
def test_each_type_has_a_point_of_its_own_form_and_its_name(rows: tuple) -> None:
    for picture in pictures(comparison(rows)):
        root = ElementTree.fromstring(drawing.figure(picture, 0))
        points = [one for one in root.iter("g") if "point" in (one.get("class") or "")]
        assert len(points) == len(rows)
        # The colour is never the only sign: the advised one is no circle, a dominated one is a smaller ring.
        forms = {(one.get("class") or "").split()[1]: (one[1].tag, one[1].get("r")) for one in points}
        assert len(set(forms.values())) == len(forms) == 3
        shown = [one for one in root.iter("text") if (one.get("class") or "").startswith("name")]
        assert sorted(one.text or "" for one in shown) == sorted(one.file_type for one in rows)
        for one in root.iter("text"):
            assert 0 <= float(one.get("x") or -1) <= drawing.WIDTH
            assert 0 <= float(one.get("y") or -1) <= drawing.HEIGHT


def test_errors_are_drawn_where_a_marker_does_not_cover_them() -> None:
    def bars(error: float) -> int:
        rows = (row("Q8_0", 2e8, 0.01, error=error), row("Q4_0", 1e8, 0.1, error=error))
        return drawing.figure(pictures(comparison(rows))[0], 0).count('class="bar')

    assert bars(0.3) == 2
    assert bars(0.001) == 0


def test_the_bands_tell_how_much_a_loss_matters() -> None:
    text = drawing.figure(pictures(comparison(SMALL))[0], 0)
    places = [text.index(f">{said}<") for said in ("hardly noticeable", "noticeable at times", "severe")]
    assert places == sorted(places)
    exact = drawing.figure(pictures(comparison((row("Q8_0", 2e8, 0.001), row("Q6_K", 1e8, 0.004))))[0], 0)
    assert "severe" not in exact


def _light(color: str) -> float:
    """The relative luminance of #rgb or #rrggbb (WCAG 2.1)."""
    digits = color.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    shares = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_light(one), _light(other)))
    return (high + 0.05) / (low + 0.05)


def test_texts_stand_out_from_their_ground() -> None:
    for sheet in style.PAGE.split("@media screen")[:2]:
        colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", sheet))
        for text in ("text", "soft", "good", "link"):
            assert _contrast(colors[text], colors["back"]) >= 4.5
        assert _contrast(colors["text"], colors["goodbox"]) >= 7
        assert _contrast(colors["soft"], colors["box"]) >= 4.5
    for sheet, back in zip(style.PICTURE.split("@media screen"), ("#fff", "#16181c"), strict=True):
        fills = re.findall(r"^(?:text|\.tick[^{]*|\.name[^{]*) \{[^}]*?fill: (#[0-9a-f]{3,6})", sheet, re.M)
        assert len(fills) == 4
        assert all(_contrast(fill, back) >= 4.5 for fill in fills)
