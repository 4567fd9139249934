-- What is attached to a draft. In a table of its own: the text is stored at every pause, and files are large.
CREATE TABLE draft_files (
    conversation TEXT PRIMARY KEY REFERENCES drafts(conversation) ON DELETE CASCADE,
    files TEXT NOT NULL CHECK (json_valid(files))
);

-- The first conversations of the list, without reading and sorting all.
CREATE INDEX conversations_listed ON conversations (pinned DESC, updated DESC);
