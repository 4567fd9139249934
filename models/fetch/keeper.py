"""Flushes what has come to the disk now and then, and notes that: what survives the loss of power."""

from __future__ import annotations

import os
import threading

from models.fetch.intervals import Intervals
from models.fetch.journal import Journal, flush
from models.fetch.ledger import Ledger
from models.fetch.options import Options


class Keeper(threading.Thread):
    """Runs until all has come, or the transfer ends; what ends it is told to the ledger."""

    def __init__(self, ledger: Ledger, journal: Journal, descriptor: int, options: Options) -> None:
        """`descriptor`: of the file; it belongs to this thread from now on."""
        super().__init__(name="fetch flush", daemon=True)
        self._ledger, self._journal, self._options = ledger, journal, options
        self._descriptor = descriptor

    def run(self) -> None:
        """Wait for enough that is new, flush it, note it, and so on."""
        noted = 0
        try:
            while (found := self._next(noted)) is not None:
                written, noted = found
                flush(self._descriptor)
                self._journal.durable(written)
        except BaseException as error:  # noqa: BLE001 - a thread's end: the one that waits raises it
            self._ledger.fail(error)
        finally:
            os.close(self._descriptor)

    def _next(self, noted: int) -> tuple[Intervals, int] | None:
        """What is written, and how much had come then; None at the end."""
        ledger, options = self._ledger, self._options
        with ledger.changed:
            while True:
                ledger.changed.wait_for(
                    lambda: ledger.stopped or ledger.complete or ledger.received >= noted + options.durable,
                    options.durable_seconds,
                )
                if ledger.stopped or ledger.complete:
                    return None
                if ledger.received > noted:
                    return Intervals(ledger.written), ledger.received
