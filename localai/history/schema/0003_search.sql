-- Full-text search over what was said and attached; thinking is not searched.
-- A reply is searchable when it is whole: while it streams it is stored every second, and indexing it again
-- each time would cost more than all else.

-- Names and beginnings of the attachments, as far as they are searched: FTS5 reads no JSON.
ALTER TABLE messages ADD COLUMN attached TEXT NOT NULL DEFAULT '';
CREATE VIEW searchable AS
SELECT seq, content AS said, attached AS files FROM messages WHERE state <> 'streaming';

-- Chinese, Japanese and Korean put no spaces between words: what has such characters is also indexed by every
-- three characters that follow each other. The spaces at the end make every character begin one.
CREATE VIEW searchable_without_spaces AS
SELECT seq, said || '  ' AS said, files || '  ' AS files
FROM searchable WHERE said || files GLOB '*[⺀-鿿가-힣豈-﫿ｦ-ﾟ𠀀-𳍿]*';

CREATE VIRTUAL TABLE words USING fts5(
    said, files, content = 'searchable', content_rowid = 'seq',
    tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'
);
CREATE VIRTUAL TABLE grams USING fts5(
    said, files, content = 'searchable_without_spaces', content_rowid = 'seq', tokenize = 'trigram'
);
-- Where in `grams` each three characters stand.
CREATE VIRTUAL TABLE gram_places USING fts5vocab(grams, instance);
-- Deleted words are taken out of the index at once, not at a later merge.
INSERT INTO words (words, rank) VALUES ('secure-delete', 1);
INSERT INTO grams (grams, rank) VALUES ('secure-delete', 1);
INSERT INTO words (words) VALUES ('rebuild');
INSERT INTO grams (grams) VALUES ('rebuild');

CREATE TRIGGER searchable_new AFTER INSERT ON messages BEGIN
    INSERT INTO words (rowid, said, files) SELECT seq, said, files FROM searchable WHERE seq = new.seq;
    INSERT INTO grams (rowid, said, files)
    SELECT seq, said, files FROM searchable_without_spaces WHERE seq = new.seq;
END;
CREATE TRIGGER searchable_gone BEFORE DELETE ON messages BEGIN
    INSERT INTO words (words, rowid, said, files)
    SELECT 'delete', seq, said, files FROM searchable WHERE seq = old.seq;
    INSERT INTO grams (grams, rowid, said, files)
    SELECT 'delete', seq, said, files FROM searchable_without_spaces WHERE seq = old.seq;
END;
CREATE TRIGGER searchable_before BEFORE UPDATE OF content, attached, state ON messages
WHEN new.content <> old.content OR new.attached <> old.attached
    OR (new.state = 'streaming') <> (old.state = 'streaming')
BEGIN
    INSERT INTO words (words, rowid, said, files)
    SELECT 'delete', seq, said, files FROM searchable WHERE seq = old.seq;
    INSERT INTO grams (grams, rowid, said, files)
    SELECT 'delete', seq, said, files FROM searchable_without_spaces WHERE seq = old.seq;
END;
CREATE TRIGGER searchable_after AFTER UPDATE OF content, attached, state ON messages
WHEN new.content <> old.content OR new.attached <> old.attached
    OR (new.state = 'streaming') <> (old.state = 'streaming')
BEGIN
    INSERT INTO words (rowid, said, files) SELECT seq, said, files FROM searchable WHERE seq = new.seq;
    INSERT INTO grams (rowid, said, files)
    SELECT seq, said, files FROM searchable_without_spaces WHERE seq = new.seq;
END;
