"""Conversations as one HTML page that any browser opens without a network.

Contract: the page has no scripts and loads nothing; its policy forbids both. All text is cleaned and escaped,
Markdown is rendered without HTML of its own, and links lead to web or mail addresses only. The shown branch
comes first; the others are behind it, and links lead there and back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any, Final

from markdown_it import MarkdownIt

from localai.chat.clean import clean
from localai.chat.conversation import Conversation, Message
from localai.history.exchange import (
    MOST_VERSIONS,
    Versions,
    branches,
    facts_of,
    numbered,
    one_line,
    origin,
    settings_of,
    thought,
    versions,
    when,
)

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_LINKS: Final = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
_STYLE: Final = """
:root { color-scheme: light dark; --text: #1c1e21; --back: #fff; --soft: #666; --box: #f3f4f6;
 --line: #d8dbe0; --link: #2354c7; --you: #eaf0fb; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e7e9; --back: #16181c; --soft: #9aa0a8;
 --box: #22252b; --line: #3a3f47; --link: #8ab0ff; --you: #1e2a3f; } }
body { margin: 0 auto; padding: 1rem; max-width: 50rem; background: var(--back); color: var(--text);
 font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
a { color: var(--link); }
header p, .facts { color: var(--soft); font-size: .85rem; margin: .2rem 0; }
article { margin: 1rem 0; padding: .4rem 1rem; border: 1px solid var(--line); border-radius: .5rem; }
article.user { background: var(--you); }
article h4 { margin: .3rem 0 0; }
details { margin: .5rem 0; padding: .3rem .8rem; background: var(--box); border-radius: .4rem; }
summary { cursor: pointer; color: var(--soft); }
pre { padding: .7rem; overflow-x: auto; background: var(--box); border-radius: .4rem; }
details pre { padding: 0; white-space: pre-wrap; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
table { border-collapse: collapse; } th, td { border: 1px solid var(--line); padding: .25rem .6rem; }
blockquote { margin-left: 0; padding-left: 1rem; border-left: 3px solid var(--line); color: var(--soft); }
section.other { margin-left: 1rem; padding-left: 1rem; border-left: 3px solid var(--line); }
"""


def as_page(conversations: Sequence[Conversation]) -> str:
    """One page for all of them."""
    one = conversations[0].title if len(conversations) == 1 else ""
    title = escape(one_line(one) or "Conversations")
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="referrer" content="no-referrer">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
    ]
    if len(conversations) != 1:
        parts.append(_contents(conversations))
    parts += [_conversation(conversation, number) for number, conversation in enumerate(conversations, 1)]
    return "\n".join([*parts, "</body>\n</html>\n"])


def _contents(conversations: Sequence[Conversation]) -> str:
    rows = [
        f'<li><a href="#c{number}">{_title(conversation)}</a></li>'
        for number, conversation in enumerate(conversations, 1)
    ]
    return "\n".join(["<h1>Conversations</h1>\n<ol>", *rows, "</ol>"])


def _title(conversation: Conversation) -> str:
    return escape(one_line(conversation.title)) or "Conversation"


def _conversation(conversation: Conversation, place: int) -> str:
    facts = [f"Begun {when(conversation.created)}", f"last changed {when(conversation.updated)}"]
    facts += [f"model {conversation.model}"] if conversation.model else []
    facts += [f"{name} {value}" for name, value in settings_of(conversation)]
    parts = [
        f'<main id="c{place}">\n<header><h2>{_title(conversation)}</h2>',
        f"<p>{_facts(facts)}</p></header>",
    ]
    if conversation.system.strip():
        parts.append(_folded("System prompt", _plain(conversation.system)))
    numbers, others = numbered(conversation), versions(conversation)
    found = branches(conversation)
    homes = {message.id: number for number, branch in enumerate(found, 1) for message in branch.messages}
    for number, branch in enumerate(found, 1):
        kind = "other" if number > 1 else "shown"
        parts.append(f'<section class="{kind}" id="c{place}b{number}">')
        if number > 1:
            words = re.sub(
                r"message (\d+)",
                rf'<a href="#c{place}m\1">message \1</a>',
                origin(branch, numbers, others),
            )
            parts.append(f"<h3>Branch {number}: {words}</h3>")
        for message in branch.messages:
            parts.append(_message(message, place, numbers, homes, others))
        parts.append("</section>")
    return "\n".join([*parts, "</main>"])


def _message(
    message: Message,
    place: int,
    numbers: dict[str, int],
    homes: dict[str, int],
    versions_of: Versions,
) -> str:
    who = "You" if message.role == "user" else one_line(message.model) or "Reply"
    number = numbers[message.id]
    parts = [
        f'<article class="{message.role}" id="c{place}m{number}"><h4>{number}. {escape(who)}</h4>',
        f'<p class="facts">{_facts(facts_of(message))}</p>',
    ]
    if message.thinking.strip():
        parts.append(_folded(thought(message), _rendered(message.thinking)))
    for file in message.attachments:
        name = f"File: {one_line(file.name)} ({len(file.text):,} characters)"
        parts.append(_folded(name, _plain(file.text)))
    parts.append(_rendered(message.content))
    others = [m for m in versions_of[message.parent, message.role][:MOST_VERSIONS] if m != message.id]
    if others:
        links = [f'<a href="#c{place}m{numbers[m]}">{_place_of(homes[m])}</a>' for m in others]
        parts.append(f'<p class="facts">Other versions: {", ".join(links)}</p>')
    return "\n".join([*parts, "</article>"])


def _place_of(number: int) -> str:
    return f"branch {number}" if number > 1 else "the shown branch"


def _facts(facts: Sequence[str]) -> str:
    return " · ".join(escape(one_line(fact)) for fact in facts)


def _folded(summary: str, inside: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>\n{inside}\n</details>"


def _plain(text: str) -> str:
    return f"<pre>{escape(clean(text))}</pre>"


def _rendered(text: str) -> str:
    """Markdown as HTML."""
    # Again at the end: entities may have spelled what was removed at the beginning.
    return clean(str(_parser().render(clean(text))))


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    # Whatever it does not allow, such as javascript: and paths, stays the text that it is.
    parser.validateLink = lambda url: bool(_LINKS.match(url))  # type: ignore[method-assign]
    parser.add_render_rule("link_open", _link)
    parser.add_render_rule("image", _image)
    return parser


def _link(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return str(renderer.renderToken(tokens, index, options, env))


def _image(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """A page that loads nothing has no images: a link to where it is stands for it."""
    address = escape(str(tokens[index].attrGet("src") or ""))
    words = escape(one_line(tokens[index].content)) or "image"
    return f'<a href="{address}" rel="noopener noreferrer nofollow">[image: {words}]</a>'
