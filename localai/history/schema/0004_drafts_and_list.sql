-- What is attached to a draft. In a table of its own: the text is stored at every pause, and files are large.
CREATE TABLE draft_files (
    conversation TEXT PRIMARY KEY REFERENCES drafts(conversation) ON DELETE CASCADE,
    files TEXT NOT NULL CHECK (json_valid(files)),
    -- Of `files`, so that a window knows, without reading them, whether they are the ones that it has.
    digest TEXT NOT NULL
);

-- What was imported or unpinned may be old, but the user has just said that it is wanted: seconds since the
-- epoch from which on its time to stay is counted, if it was not changed later.
ALTER TABLE conversations ADD COLUMN kept_from REAL NOT NULL DEFAULT 0;

-- The first conversations of the list, without reading and sorting all.
CREATE INDEX conversations_listed ON conversations (pinned DESC, updated DESC);
