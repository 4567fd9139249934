-- What the user sets: of a conversation, presets, anything by name; attachments and drafts.
ALTER TABLE conversations ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1));
ALTER TABLE conversations ADD COLUMN settings TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(settings));
ALTER TABLE messages ADD COLUMN attachments TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(attachments));

-- Counted as messages come and go: the list of conversations then needs to read no message.
ALTER TABLE conversations ADD COLUMN message_count INTEGER NOT NULL DEFAULT 0;
UPDATE conversations SET message_count = (SELECT count(*) FROM messages m WHERE m.conversation = conversations.id);
CREATE TRIGGER message_counted AFTER INSERT ON messages BEGIN
    UPDATE conversations SET message_count = message_count + 1 WHERE id = new.conversation;
END;
CREATE TRIGGER message_gone AFTER DELETE ON messages BEGIN
    UPDATE conversations SET message_count = message_count - 1 WHERE id = old.conversation;
END;

-- A draft may belong to no conversation (''), or to one that has no message yet and is not stored.
CREATE TABLE drafts (conversation TEXT PRIMARY KEY, text TEXT NOT NULL);
CREATE TRIGGER draft_gone AFTER DELETE ON conversations BEGIN
    DELETE FROM drafts WHERE conversation = old.id;
END;
CREATE TABLE presets (
    name TEXT PRIMARY KEY,
    system TEXT NOT NULL,
    settings TEXT NOT NULL CHECK (json_valid(settings))
);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
