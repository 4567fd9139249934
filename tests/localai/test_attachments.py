"""What can be attached, and what is said of the rest."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import pytest
from pypdf import PdfWriter

from localai.chat import attachments
from localai.chat.attachments import (
    BIG_PASTE,
    BIG_PASTE_LINES,
    MOST_BYTES,
    MOST_PATHS,
    paste_is_big,
    pasted,
    paths_in,
    read,
)
from localai.chat.clean import clean
from localai.chat.pdf import pdf_text
from localai.errors import UsageError


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page; "" draws a line instead, as a scan has only a picture."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for i, page in enumerate(pages):
        content = f"BT /F1 12 Tf 72 720 Td ({page}) Tj ET".encode() if page else b"0 0 m 100 100 l S"
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents {5 + 2 * i} 0 R"
            "/Resources<</Font<</F1 3 0 R>>>>>>".encode()
        )
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(content), content))
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj%s endobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % offset for offset in offsets))
    out.write(b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start))
    return out.getvalue()


def locked_pdf(owner_only: bool = False) -> bytes:
    writer = PdfWriter(io.BytesIO(pdf("secret")))
    writer.encrypt("" if owner_only else "word", "owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read(path)
    line = str(caught.value)
    assert "\n" not in line
    assert attachments.name_of(path) in line
    return line


# -------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("naïve 日本\n".encode(), "naïve 日本\n"),
        (b"\xef\xbb\xbfmarked", "marked"),
        (b"\xff\xfe" + "wörd".encode("utf-16-le"), "wörd"),
        (b"\xfe\xff" + "wörd".encode("utf-16-be"), "wörd"),
        ("wörd".encode("utf-32"), "wörd"),
        ("wörd “quoted”".encode("cp1252"), "wörd “quoted”"),
        (b"w\xf6rd \x81", "wörd "),  # 0x81 means nothing in Windows-1252; in Latin-1 it is a control
        (b"one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),
        (b"a\x1b[31mb", "a[31mb"),
        (b"MZ and GGUF are letters, BZh too", "MZ and GGUF are letters, BZh too"),
        (b"\xff\xfe" + "x".encode("utf-16-le") + b"\x00", "x�"),
    ],
)
def test_text_is_read_as_what_it_is(tmp_path: Path, data: bytes, text: str):
    path = tmp_path / "a file.txt"
    path.write_bytes(data)
    attachment = read(path)
    assert (attachment.name, attachment.text) == ("a file.txt", text)


def test_a_name_is_one_clean_line(tmp_path: Path):
    path = tmp_path / "a\n[file name]: \x1bb.txt"
    path.write_text("x")
    assert read(path).name == "a [file name]: b.txt"


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "is a picture (PNG)"),
        ("a.jpg", b"\xff\xd8\xff\xe0" + bytes(50), "is a picture (JPEG)"),
        ("a.docx", b"PK\x03\x04" + bytes(50), "is a Word document"),
        ("a.zip", b"PK\x03\x04" + bytes(50), "is an archive (ZIP)"),
        ("a.gguf", b"GGUF\x03\x00\x00\x00", "is a model (GGUF)"),
        ("a.exe", b"MZ\x90\x00" + bytes(50), "is a program"),
        ("a.mp4", b"\x00\x00\x00\x18ftypmp42", "is a video or sound (MP4)"),
        ("a.webp", b"RIFF\x00\x00\x00\x00WEBP", "is a picture, video or sound"),
        ("a.bin", bytes(range(256)), "is not text"),
        ("a.bin", b"\x01\x02\x03\x04" * 50, "is not text"),
        ("a.txt", "no mark".encode("utf-16-le"), "is not text"),
        ("a.txt", b"", "is empty"),
        ("a.txt", b" \r\n\t", "is empty"),
    ],
)
def test_what_is_no_text_is_refused_by_what_it_is(tmp_path: Path, name: str, data: bytes, what: str):
    path = tmp_path / name
    path.write_bytes(data)
    assert refused(path).startswith(f"{name} {what}")


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    assert refused(tmp_path / "pipe").startswith("pipe is a named pipe")
    assert refused(tmp_path).startswith(f"{tmp_path.name} is a folder")
    assert refused(Path("/dev/zero")).startswith("zero is a device")
    assert refused(tmp_path / "gone.txt") == "gone.txt is not there"
    assert refused(tmp_path / "round").startswith("round cannot be read: ")
    assert refused(tmp_path / ("n" * 300)).endswith("cannot be read: File name too long")
    assert "cannot be read" in refused(tmp_path / "a\x00b")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path):
    path = tmp_path / "mine.txt"
    path.write_text("x")
    path.chmod(0)
    assert refused(path).startswith("mine.txt may not be read")


def test_a_file_over_the_limits_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "big.log"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert refused(path) == "big.log is bigger than 32 MB. Attach a part of it"
    monkeypatch.setattr(attachments, "MOST_CHARACTERS", 10)
    path.write_text("x" * 10)
    assert read(path).text == "x" * 10
    path.write_text("x" * 11)
    assert "11 characters; at most 10" in refused(path)
    path.write_bytes(pdf("Hello", "World!"))
    assert refused(path).startswith("big.log has more than 10 characters of text")


# --------------------------------------------------------------------------------------------------- PDF


def test_the_text_of_all_pages(tmp_path: Path):
    path = tmp_path / "two.pdf"
    path.write_bytes(pdf("First page", "", "Third page"))
    assert read(path).text == "First page\n\nThird page"
    path.write_bytes(locked_pdf(owner_only=True))
    assert read(path).text == "secret"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (pdf("", ""), "a.pdf holds pictures and no text"),
        (pdf(), "a.pdf holds pictures and no text"),
        (locked_pdf(), "a.pdf is protected by a password"),
        (b"%PDF-1.4\n", "a.pdf is damaged"),
        (pdf("x").replace(b"<</Length", b"<</Filter/Fl/Length"), "a.pdf is damaged"),
        (b"%PDF-1.7\n" + b"<<" * 5000, "a.pdf is damaged"),
        (pdf("x").replace(b"/Type/Pages", b"/Type/Pagez").replace(b"/Kids", b"/Nope"), "a.pdf "),
        (pdf("x").replace(b"[4 0 R]", b"[2 0 R]"), "a.pdf "),
    ],
)
def test_a_pdf_without_text_to_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], data: bytes, line: str
):
    path = tmp_path / "a.pdf"
    path.write_bytes(data)
    assert refused(path).startswith(line)
    assert capfd.readouterr() == ("", "")


def said_of_pdf(data: bytes) -> str:
    """What is said of it; nothing if it has words."""
    try:
        assert "words" in pdf_text(data, "a.pdf", most=1000)
    except UsageError as error:
        return str(error)
    return ""


def test_a_pdf_cut_anywhere_is_an_error_or_a_text_and_prints_nothing(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    whole = pdf("Some words", "More words")
    refusals = [said_of_pdf(whole[:cut]) for cut in range(0, len(whole), 7)]
    assert any(refusals)
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_pdf_that_would_take_for_ever_is_given_up():
    slow = pdf("x) Tj (" * 30_000 + "x")
    with pytest.raises(UsageError, match=r"a\.pdf takes too long to read"):
        pdf_text(slow, "a.pdf", most=10**9, seconds=0.01)
    with pytest.raises(UsageError, match=r"a\.pdf takes too long to read"):
        pdf_text(pdf("x"), "a.pdf", most=10**9, seconds=0.0)


def test_a_pdf_that_nobody_waits_for_is_given_up(tmp_path: Path):
    asked = iter([False] * 20 + [True])
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf(*["some words"] * 50))
    with pytest.raises(UsageError):
        read(path, lambda: next(asked))


# ------------------------------------------------------------------------------------------------ pastes


def test_a_paste_beyond_the_limits_is_big():
    assert not paste_is_big("x" * BIG_PASTE)
    assert paste_is_big("x" * (BIG_PASTE + 1))
    assert not paste_is_big("x\r" * BIG_PASTE_LINES)
    assert paste_is_big("x\r" * (BIG_PASTE_LINES + 1))


def test_a_paste_is_named_by_its_number_and_cleaned():
    attachment = pasted("a\x1b\r\nb\rc" + "\u202e" * 3, 2)
    assert (attachment.name, attachment.text) == ("pasted text 2", "a\nb\nc")


def test_what_was_there_unseen_is_told(tmp_path: Path):
    told: list[str] = []
    path = tmp_path / "a\u202e.txt"
    path.write_text("\ufeffa" + "\U000e0041" * 1200 + "\u200bb\x1b", encoding="utf-8-sig")
    assert read(path, told=told.append).text == "ab"
    pasted("c\u200bd", 3, told.append)
    pasted("nothing\r\nis\x1b\x07hidden\u2028", 4, told.append)
    assert told == [
        "a.txt: 1,202 invisible characters were left out",
        "pasted text 3: 1 invisible character was left out",
    ]


def test_a_long_paste_is_as_if_cleaned_at_once():
    text = "ab\x1bé\u202e\n" * 40_000
    assert pasted(text, 1).text == clean(text)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    paths = [tmp_path / "plain.txt", tmp_path / "sub" / "with blank (1).txt"]
    for path in paths:
        path.write_text("x")
    return paths


@pytest.mark.parametrize(
    "paste",
    [
        "{0}",
        "  {0}\n",
        "'{0}'",
        '"{1}"',
        "{1}",
        "{1:escaped}",
        "~/plain.txt",
        "file://{0}",
        "file://localhost{0}",
        "{1:url}",
        "sub/with\\ blank\\ (1).txt",
        "./plain.txt",
        "{0}\r\n{1}",
        "'{0}' '{1}'",
        "{0} {1:escaped}",
        "file://{0}\nfile://{0}",
    ],
)
def test_a_paste_of_paths_names_files(files: list[Path], paste: str):
    shown = paste
    for index, path in enumerate(files):
        escaped = str(path).replace(" ", "\\ ").replace("(", "\\(").replace(")", "\\)")
        shown = shown.replace(f"{{{index}:escaped}}", escaped)
        shown = shown.replace(f"{{{index}:url}}", path.as_uri()).replace(f"{{{index}}}", str(path))
    wanted = [p for p in files if p.name in {q.name for q in paths_in(shown)}]
    assert wanted
    assert [p.resolve() for p in paths_in(shown)] == wanted
    assert len(wanted) == (2 if "{0}" in paste and "{1" in paste else 1)


@pytest.mark.parametrize(
    "paste",
    [
        "",
        "plain.txt",  # a word
        "see {0}",
        "{0} {0}.gone",
        "{0}\nand more",
        "~nobody-of-that-name/plain.txt",
        "file://elsewhere{0}",
        "/",
        "sub/",
        "'{0}",
        "/a\x00b",
        "/" + "n" * 300,
    ],
)
def test_a_paste_of_anything_else_is_text(files: list[Path], paste: str):
    assert paths_in(paste.replace("{0}", str(files[0]))) == []


def test_a_paste_of_very_many_paths_is_text(files: list[Path]):
    assert paths_in(f"{files[0]}\n" * MOST_PATHS) == [files[0]]
    assert paths_in(f"{files[0]}\n" * (MOST_PATHS + 1)) == []
    assert paths_in(f"{files[0]} " * (MOST_PATHS + 1)) == []
