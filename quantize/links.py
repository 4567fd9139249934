"""Links in the folder of a checkpoint: which of them lead to a file of the user's that is no part of it."""

from __future__ import annotations

from pathlib import Path


def outside(folder: Path, path: Path) -> Path | None:
    """The file elsewhere that `path`, an entry of the checkpoint in `folder`, leads to; None: it is inside.

    Only the hub's cache is laid out in this way: models--X--Y/snapshots/REVISION/name ->
    models--X--Y/blobs/HASH. That may itself be a link, to blobs/HH/HASH beside all repositories.
    RuntimeError, of Python before 3.13, if links lead in a circle.
    """
    home, target = folder.resolve(), path.resolve()
    if target.is_relative_to(home) or not target.is_file():  # what is no file is refused where it is read
        return None
    snapshots, repository = home.parent, home.parent.parent
    in_cache = snapshots.name == "snapshots" and repository.name.startswith("models--")
    homes = (target.parent == repository / "blobs", target.parent.parent == repository.parent / "blobs")
    return None if in_cache and any(homes) else target
