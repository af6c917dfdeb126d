"""How a run saves: what is told of each checkpoint, and what comes before each."""

from __future__ import annotations

from trainer.checkpoint.catalog import Entry
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.saver import Saver
from trainer.checkpoint.store import Store
from trainer.config import run_record
from trainer.config.options import RunOptions
from trainer.model.state import State
from trainer.reporting.reporter import Reporter
from trainer.training.listeners import Listeners


def begun(
    choices: RunOptions,
    directory: RunDirectory,
    state: State,
    reporter: Reporter,
    listeners: Listeners,
) -> tuple[Store, Saver]:
    """Where a run saves, and what saves behind its training."""
    note = run_record.note_commits(directory)

    def committed(entry: Entry) -> None:
        listeners.committed(entry)
        note(entry)

    def before() -> None:
        listeners.commits()  # of the save before: a kill leaves but one untold
        reporter.flush()

    store = Store(directory, choices.retention(), on_commit=committed)
    stops = choices.on_save_error == "stop"
    return store, Saver(store, state, stops=stops, before=before)
