r"""Flagfiles: files with one flag per line, which may name further ones.

    >>> import pathlib
    >>> from trainer.config import flagfiles
    >>> _ = pathlib.Path("a.flags").write_text("# The main job\n--task=digits\n")
    >>> flagfiles.opened(["--flagfile=a.flags", "--steps=5"]).every
    ('--task=digits', '--steps=5')

They are read as absl reads them: # and // begin a comment, blank lines mean nothing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from absl import flags

from trainer.config import fields

_FLAGFILE = re.compile(r"--?flagfile(=.*)?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Words:
    """The words of a command line.

    Attributes:
      every: with those of flagfiles where their names stood.
      own: without.
    """

    every: tuple[str, ...]
    own: tuple[str, ...]


def opened(words: Sequence[str]) -> Words:
    """Reads the flagfiles that a command line names, and those that they name.

    Raises:
      fields.ConfigError: one can't be read.
    """
    reader = flags.FlagValues()  # type: ignore[no-untyped-call]
    found: list[str] = []
    own: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            found += [word, *left]
            own += [word, *left]
            break
        match = _FLAGFILE.fullmatch(word)
        if match is None:
            found.append(word)
            own.append(word)
            continue
        directive = [word, *left[:1]] if match[1] is None else [word]
        del left[: len(directive) - 1]
        try:
            found += reader.read_flags_from_files(directive)
        except flags.CantOpenFlagFileError as error:
            raise fields.ConfigError(
                f"{' '.join(directive)} cannot be read: {error.__context__}. Check the "
                "path."
            ) from error
        except (flags.Error, ValueError) as error:
            raise fields.ConfigError(
                f"{' '.join(directive)} is no text file of flags ({error}): expected "
                "--flagfile=FILE."
            ) from error
    return Words(tuple(found), tuple(own))
