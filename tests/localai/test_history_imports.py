"""Imports: what comes in is the talk with all its branches, or nothing at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from localai.chat.conversation import Attachment, Conversation, Message
from localai.errors import HistoryError
from localai.history import History, imports
from localai.history.exchange import as_json
from localai.history.imports import import_file, read


@pytest.fixture
def history():
    with History(memory=True) as opened:
        yield opened


def put(folder: Path, document: Any, name: str = "conversations.json") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document), "utf-8")
    return path


def said(made: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in made.branch()]


def talk(*texts: str) -> Conversation:
    made = Conversation()
    for number, text in enumerate(texts):
        role = "assistant" if number % 2 else "user"
        made.append(Message(parent=made.head, role=role, content=text))
    return made


# ------------------------------------------------------------------------------------------------- ours


def test_ours_comes_back_and_is_not_stored_twice(history: History, tmp_path: Path) -> None:
    made = talk("one", "two")
    made.append(Message(parent=made.head, role="user", attachments=(Attachment(name="n", text="t"),)))
    path = put(tmp_path, as_json([made]))
    done = import_file(history, path)
    assert (done.imported, done.present, done.empty) == ([made.id], 0, 0)
    assert history.load(made.id) == made
    again = import_file(history, path)
    assert (again.imported, again.present) == ([], 1)
    assert history.count() == (1, 3)


def test_what_is_old_already_is_kept_as_long_as_others(history: History, tmp_path: Path) -> None:
    day, made = 86_400.0, talk("one")
    made.updated = 1 * day
    import_file(history, put(tmp_path, as_json([made])), 400 * day)
    assert history.load(made.id).updated == 1 * day
    assert history.expired(30, 430 * day) == []
    assert history.expired(30, 431 * day) == [made.id]


def test_what_was_written_since_the_export_is_kept(history: History, tmp_path: Path) -> None:
    made = talk("one", "two")
    path = put(tmp_path, as_json([made]))
    made.append(Message(parent=made.head, role="user", content="three"))
    made.title = "renamed"
    history.save(made)
    assert import_file(history, path).present == 1
    assert history.load(made.id) == made


def test_other_content_of_the_same_id_becomes_a_conversation_of_its_own(
    history: History, tmp_path: Path
) -> None:
    mine, other = talk("mine"), talk("theirs", "reply")
    other.id = mine.id
    history.save(mine)
    path = put(tmp_path, as_json([other]))
    (new_id,) = import_file(history, path).imported
    assert new_id != mine.id
    assert history.load(mine.id) == mine
    assert said(history.load(new_id)) == said(other)
    assert import_file(history, path).present == 1
    assert history.count() == (2, 3)


def test_a_message_is_not_taken_from_another_conversation(history: History, tmp_path: Path) -> None:
    mine, other = talk("mine", "reply"), talk("theirs")
    theft = next(iter(other.messages.values()))
    del other.messages[theft.id]
    theft.id = other.head = next(iter(mine.messages))
    other.messages[theft.id] = theft
    history.save(mine)
    import_file(history, put(tmp_path, as_json([other])))
    assert history.load(mine.id) == mine
    assert said(history.load(other.id)) == said(other)


def test_conversations_without_messages_are_counted(history: History, tmp_path: Path) -> None:
    done = import_file(history, put(tmp_path, as_json([Conversation(), talk("one")])))
    assert (len(done.imported), done.empty) == (1, 1)


def test_a_reply_that_still_came_is_stopped(tmp_path: Path) -> None:
    made = talk("one", "two")
    made.messages[made.head or ""].state = "streaming"
    (found,) = read(put(tmp_path, as_json([made])))[1]
    assert found.messages[made.head or ""].state == "stopped"


def test_half_characters_are_left_out(history: History, tmp_path: Path) -> None:
    document = json.loads(as_json([talk("abc")]))
    document["conversations"][0]["messages"][0]["content"] = "a\ud800b\udfffc"
    (name,) = import_file(history, put(tmp_path, document)).imported
    assert said(history.load(name)) == [("user", "abc")]


def broken(change: Any) -> str:
    document = json.loads(as_json([talk("good"), talk("one", "two", "three")]))
    change(document, document["conversations"][1])
    return json.dumps(document)


def change(path: str, value: Any) -> Any:
    """Sets what `path` names in the second conversation: "messages.0.role"."""

    def apply(document: Any, at: Any) -> None:
        *way, last = path.split(".")
        for step in way:
            at = at[int(step) if step.isdigit() else step]
        at[int(last) if last.isdigit() else last] = value

    return broken(apply)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("7", "no export"),
        ("[]", "it has no conversation"),
        (
            '{"format": "other", "version": 1, "conversations": []}',
            'its format is not "localai conversations"',
        ),
        ('{"format": "localai conversations", "version": 2, "conversations": []}', "a newer version"),
        ('{"format": "localai conversations", "version": 1}', "conversations"),
        (change("id", "../x"), 'conversation 2 of 2 ("one"): "../x" is no identifier'),
        (change("id", 7), "conversation 2 of 2"),
        (change("messages.1.id", ""), "no identifier"),
        (change("messages.1.parent", "nobody"), "follows one that is missing"),
        (change("messages.0.role", "system"), "conversation 2 of 2"),
        (change("messages.0.created", -1.0), "created is -1.0"),
        (change("messages.0.created", 1e17), "created is 1e+17"),
        (change("updated", 1e12), "updated is"),
        (change("messages.0.thinking_tokens", 2**63 - 1), "thinking_tokens is"),
        (change("head", "nobody"), "shows last is missing"),
        (change("settings", {"x": "y" * 70_000}), "its settings are too large"),
        (change("unknown", 1), "unknown"),
        (broken(lambda d, c: c["messages"].append(c["messages"][0])), "the same identifier"),
        (broken(lambda d, c: d["conversations"].append(c)), "conversation 3 of 3"),
        (broken(lambda d, c: c["messages"][0].update(parent=c["messages"][2]["id"])), "follows itself"),
        (broken(lambda d, c: d["conversations"].append(3)), "conversation 3 of 3"),
    ],
)
def test_what_is_broken_is_one_line_and_changes_nothing(
    history: History, tmp_path: Path, text: str, words: str
) -> None:
    path = put(tmp_path, text)
    with pytest.raises(HistoryError) as caught:
        import_file(history, path)
    assert caught.value.message.startswith(f"{path} cannot be imported: ")
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert history.count() == (0, 0)


def test_files_that_cannot_be_read_are_one_clear_error(history: History, tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="none cannot be read: No such file"):
        import_file(history, tmp_path / "none")
    (tmp_path / "export.zip").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(HistoryError, match="is a ZIP archive"):
        import_file(history, tmp_path / "export.zip")


def test_a_file_that_is_too_large_is_refused(history: History, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(imports, "MAX_BYTES", 2**20)
    with pytest.raises(HistoryError, match="larger than 1 MiB"):
        import_file(history, put(tmp_path, " " * 2**20 + "[]"))


def test_when_storing_fails_nothing_stays(tmp_path: Path) -> None:
    class Full(History):
        def save(self, conversation: Conversation, *, kept_from: float = 0.0) -> None:
            if self.count()[0] == 2:
                raise HistoryError("full")
            super().save(conversation, kept_from=kept_from)

    path = put(tmp_path, as_json([talk("one"), talk("two"), talk("three")]))
    with Full(memory=True) as history:
        with pytest.raises(HistoryError, match="full"):
            import_file(history, path)
        assert history.count() == (0, 0)


# ---------------------------------------------------------------------------------------------- ChatGPT


def node(parent: str | None, role: str = "", *parts: Any, **more: Any) -> dict[str, Any]:
    """A node of ChatGPT's export; `children` are filled in by `chatgpt`."""
    message = None
    if role:
        kind = more.pop("kind", "text")
        content = more.pop("content", {"content_type": kind, "parts": [*parts]})
        message = {"author": {"role": role}, "content": content, "recipient": "all", "metadata": {}} | more
    return {"message": message, "parent": parent, "children": []}


def chatgpt(**nodes: dict[str, Any]) -> dict[str, Any]:
    for name, one in nodes.items():
        one["id"] = name
        if one["parent"] in nodes:
            nodes[one["parent"]]["children"].append(name)
    return {"title": "A talk", "create_time": 1.7e9, "conversation_id": "c-1", "mapping": nodes}


def test_chatgpt(history: History, tmp_path: Path) -> None:
    made = chatgpt(
        root=node(None),
        hidden=node("root", "system", "", metadata={"is_visually_hidden_from_conversation": True}),
        about=node(
            "hidden",
            "user",
            kind="user_editable_context",
            metadata={
                "is_user_system_message": True,
                "user_context_message_data": {"about_user_message": "I fish"},
            },
        ),
        ask=node("about", "user", "Weather?", create_time=1.7e9 + 1),
        think=node(
            "ask",
            "assistant",
            content={
                "content_type": "thoughts",
                "thoughts": [{"summary": "Look", "content": "I must look."}],
            },
        ),
        recap=node(
            "think",
            "assistant",
            content={"content_type": "reasoning_recap", "content": "Thought for 8s"},
            metadata={"finished_duration_sec": 8},
        ),
        call=node("recap", "assistant", "search()", recipient="web"),
        result=node("call", "tool", "rain"),
        say=node(
            "result", "assistant", "It rains.\ue200cite\ue202turn0\ue201", metadata={"model_slug": "gpt-5"}
        ),
        other=node("ask", "assistant", "No idea.", create_time=1.7e9 + 2),
        picture=node(
            "say",
            "user",
            {"content_type": "image_asset_pointer"},
            "And this?",
            kind="multimodal_text",
            metadata={"attachments": [{"name": "map.pdf"}]},
        ),
    )
    made["current_node"] = "picture"
    done = import_file(history, put(tmp_path, [made]))
    assert done.source == "ChatGPT"
    found = history.load(done.imported[0])
    assert (found.title, found.system, found.created) == ("A talk", "I fish", 1.7e9)
    assert said(found) == [
        ("user", "Weather?"),
        ("assistant", "It rains."),
        (
            "user",
            "[attached, but not in the export: map.pdf]\n\n"
            "[an image or sound, not in the export]\n\nAnd this?",
        ),
    ]
    reply = found.branch()[1]
    assert (reply.thinking, reply.thinking_s, reply.model) == ("Look\n\nI must look.", 8.0, "gpt-5")
    assert [m.content for m in found.siblings(reply.id)] == ["It rains.", "No idea."]
    assert import_file(history, put(tmp_path, [made])).present == 1
    assert history.count() == (1, 4)


def test_chatgpt_shows_the_branch_that_was_shown(tmp_path: Path) -> None:
    made = chatgpt(
        a=node(None, "user", "q"), b=node("a", "assistant", "one"), c=node("a", "assistant", "two")
    )
    for current, shown in (("b", "one"), ("c", "two")):
        (found,) = read(put(tmp_path, [made | {"current_node": current}]))[1]
        assert said(found)[-1] == ("assistant", shown)


def test_branches_within_a_reply_share_its_beginning(tmp_path: Path) -> None:
    made = chatgpt(
        a=node(None, "user", "q"),
        b=node("a", "assistant", "begin"),
        c=node("b", "assistant", "one"),
        d=node("b", "assistant", "two"),
    )
    (found,) = read(put(tmp_path, [made]))[1]
    replies = [m.content for m in found.messages.values() if m.role == "assistant"]
    assert replies == ["begin\n\none", "begin\n\ntwo"]


def test_a_parent_that_is_missing_begins_a_branch(tmp_path: Path) -> None:
    made = chatgpt(a=node("gone", "user", "q"), b=node("a", "assistant", "r"))
    (found,) = read(put(tmp_path, [made]))[1]
    assert said(found) == [("user", "q"), ("assistant", "r")]


def test_a_circle_is_refused(tmp_path: Path) -> None:
    made = chatgpt(a=node(None, "user", "q"), b=node("c", "user", "x"), c=node("b", "assistant", "y"))
    with pytest.raises(HistoryError, match=r'conversation 1 of 1 \("A talk"\): .* in a circle'):
        read(put(tmp_path, [made]))


def test_values_of_the_wrong_kind_are_no_traceback(tmp_path: Path) -> None:
    strange = [None, 7, -1e400, "x", [], [7], {}, {"role": 7}, {"a": None}, True]
    for value in strange:
        for field in ("author", "content", "metadata", "create_time", "recipient"):
            made = chatgpt(a=node(None, "user", "q"), b=node("a", "assistant", "r", **{field: value}))
            made |= {"title": value, "current_node": value, "create_time": value, "update_time": value}
            path = put(tmp_path, json.dumps([made]).replace("-Infinity", "-1e300"))
            assert said(read(path)[1][0])[0] == ("user", "q")
        made = chatgpt(a=node(None, "user", "q"))
        made["mapping"]["b"] = value
        path = put(tmp_path, json.dumps([made]).replace("-Infinity", "0"))
        if isinstance(value, dict):
            assert len(read(path)[1]) == 1
        else:
            with pytest.raises(HistoryError, match="node b is not an object"):
                read(path)


def test_a_small_file_cannot_fill_the_memory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("localai.history.foreign.MAX_CHARACTERS", 100_000)
    nodes = {"a": node(None, "user", "q"), "b": node("a", "assistant", "x" * 1000)}
    nodes |= {f"n{number}": node("b", "assistant", "y") for number in range(200)}
    with pytest.raises(HistoryError, match="its replies are too large"):
        read(put(tmp_path, [chatgpt(**nodes)]))


def test_a_long_talk_is_no_recursion(tmp_path: Path) -> None:
    nodes = {"n0": node(None, "user", "q")}
    for number in range(1, 5000):
        role = "user" if number % 2 == 0 else "assistant"
        nodes[f"n{number}"] = node(f"n{number - 1}", role, str(number))
    (found,) = read(put(tmp_path, [chatgpt(**nodes)]))[1]
    assert len(found.branch()) == 5000


# --------------------------------------------------------------------------------------------- DeepSeek


def deepseek(*messages: tuple[str, str | None, dict[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {"root": {"id": "root", "parent": None, "children": [], "message": None}}
    for name, parent, message in messages:
        mapping[name] = {"id": name, "parent": parent, "children": [], "message": message}
        mapping[parent]["children"].append(name)
    times = {
        "inserted_at": "2025-03-30T04:49:36.505000+08:00",
        "updated_at": "2025-03-30T04:50:29.156000+08:00",
    }
    return {"id": "d-1", "title": "Ein Gespräch", "mapping": mapping} | times


def fragments(*pairs: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {
        "files": [],
        "model": "deepseek-reasoner",
        "fragments": [{"type": t, "content": c} for t, c in pairs],
    } | more


def test_deepseek(history: History, tmp_path: Path) -> None:
    files = [{"file_name": "a.txt", "content": "inside"}, {"file_name": "b.png"}]
    at = "2025-03-30T04:49:37.018000+08:00"
    made = deepseek(
        ("1", "root", fragments(("REQUEST", "Why?"), files=files, inserted_at=at)),
        ("2", "1", fragments(("SEARCH", "web"), ("THINK", "Hm."), ("RESPONSE", "So."), inserted_at=at)),
        ("3", "1", fragments(("RESPONSE", "Because."), inserted_at="2025-03-30T05:00:00+08:00")),
    )
    done = import_file(history, put(tmp_path, [made]))
    assert done.source == "DeepSeek"
    found = history.load(done.imported[0])
    assert (found.title, found.created) == ("Ein Gespräch", 1743281376.505)
    assert said(found) == [
        ("user", "[attached, but not in the export: b.png]\n\nWhy?"),
        ("assistant", "Because."),
    ]
    ask, reply = found.branch()
    assert ask.attachments == (Attachment(name="a.txt", text="inside"),)
    assert ask.created == 1743281377.018
    other = found.siblings(reply.id)[0]
    assert (other.thinking, other.content, other.model) == ("Hm.", "So.", "deepseek-reasoner")
    assert import_file(history, put(tmp_path, [made])).present == 1


def test_deepseek_of_before_fragments(tmp_path: Path) -> None:
    made = deepseek(
        ("1", "root", {"content": "One?"}),
        ("2", "1", {"content": "One.", "thinking_content": "Hm.", "thinking_elapsed_secs": 3}),
        ("3", "2", {"content": "Two?"}),
        ("4", "3", {"content": "Two.", "role": "ASSISTANT"}),
    )
    source, (found,) = read(put(tmp_path, [made]))
    assert source == "DeepSeek"
    assert said(found) == [("user", "One?"), ("assistant", "One."), ("user", "Two?"), ("assistant", "Two.")]
    assert (found.branch()[1].thinking, found.branch()[1].thinking_s) == ("Hm.", 3.0)


def test_node_ids_that_conversations_share_do_not_clash(history: History, tmp_path: Path) -> None:
    one = deepseek(("1", "root", fragments(("REQUEST", "one"))))
    two = deepseek(("1", "root", fragments(("REQUEST", "two")))) | {"id": "d-2"}
    assert len(import_file(history, put(tmp_path, [one, two])).imported) == 2
    assert history.count() == (2, 2)
