"""Export a checkpoint and verify the export in a fresh process.

The export is loaded back and its predictions are compared before it gets its name.

--format takes the format of the export, that of the answer, or both:
--format=keras --format=json. With --format=json alone the export is a SavedModel.

    python run.py export --run_dir=runs/digits --format=keras
"""

from __future__ import annotations

import dataclasses

from trainer.commands import console
from trainer.commands.asked import BUILDING, FORMATS, Asked, SelectOptions
from trainer.config import fields, flags, options
from trainer.config.fields import COMMAND, Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions(Checked):
    """What is written, where, and how the command answers.

    Raises:
      options.ConfigError: a format is unknown.
    """

    format: tuple[str, ...] = option(
        (),
        COMMAND,
        "FORMAT",
        f"Format of the export ({', '.join(options.EXPORTS)}) or of the answer "
        "(table, json). Repeatable.",
        absent="saved_model, table",
    )
    output: str = option(
        "",
        COMMAND,
        "PATH",
        "File or directory to write; {step}, {epoch:02d} and {val_loss:.4f} (any "
        "metric) are filled in.",
        absent="exports/<format>/<step> in the run directory, for saved_model "
        "exports/saved_model/<version>",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        known = (*options.EXPORTS, *FORMATS)
        for word in self.words():
            if word not in known:
                raise options.ConfigError(
                    f"--format={word}: expected a format of the export "
                    f"({', '.join(options.EXPORTS)}) or of the answer "
                    f"({', '.join(FORMATS)}).{fields.closest(word, known)}"
                )

    def words(self) -> list[str]:
        """Every format that was given, also those that stand behind one comma."""
        return [word for text in self.format for word in text.split(",")]

    def kind(self) -> str:
        """The format of the export; the last one given counts."""
        given = [word for word in self.words() if word in options.EXPORTS]
        return given[-1] if given else options.EXPORTS[0]


OPTIONS = (
    flags.some(options.RunOptions, *BUILDING),
    flags.every(SelectOptions),
    flags.every(ExportOptions),
)


def run(asked: Asked, package: str) -> int:
    """Exports, and prints how to load it."""
    entry = asked.selected(asked.make(SelectOptions).checkpoint, default="best")
    chosen = asked.make(ExportOptions)
    with asked.tensorflow():
        from trainer.config import tasks
        from trainer.exporting import exporter
    task = tasks.of(asked.run, package=package)
    done = exporter.export(
        asked.run,
        task,
        entry,
        kind=chosen.kind(),
        output=chosen.output,
        package=package,
    )
    if asked.json:
        console.answer(
            {
                "step": entry.step,
                "checkpoint": str(entry.prefix),
                "format": chosen.kind(),
                "path": str(done.path),
                "files": {name: str(path) for name, path in done.files.items()},
                "max_difference": done.max_difference,
                "examples": done.examples,
                "usage": list(done.usage),
            }
        )
        return console.DONE
    console.say(
        f"exported {entry.prefix} to {done.path}: loaded back in a fresh process, "
        f"{done.examples} predictions differ by {done.max_difference:.2g} at most."
    )
    for line in done.usage:
        console.say(line)
    return console.DONE
