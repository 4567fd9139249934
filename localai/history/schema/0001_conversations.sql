-- Conversations and the trees of their messages.
-- `head` and `parent` are checked at commit (deferred), so rows may come in any order. `parent` does not
-- cascade: a conversation's messages all go at once, and a chain of cascades would hit SQLite's depth limit.
CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    system TEXT NOT NULL,
    model TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    head TEXT REFERENCES messages(id) DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    conversation TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
    parent TEXT REFERENCES messages(id) DEFERRABLE INITIALLY DEFERRED,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    thinking TEXT NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    model TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    thinking_s REAL NOT NULL,
    thinking_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    tokens_per_s REAL NOT NULL
);
CREATE INDEX messages_of ON messages (conversation, seq);
CREATE INDEX messages_below ON messages (parent);
CREATE INDEX conversations_by_time ON conversations (updated);
