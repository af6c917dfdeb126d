r"""Text for a terminal that can only be read, never obeyed.

    >>> from trainer.reporting.plain_text import plain
    >>> plain("\x1b[2Jckpt")
    '\\x1b[2Jckpt'

Names come from files, and files may come from a stranger. Whatever a terminal would
take for a command, or would hide, is written out instead.
"""

from __future__ import annotations

import unicodedata

# Controls, what changes the direction or is invisible, half characters, separators.
_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def plain(text: str, keep: str = "\n") -> str:
    """`text` with everything that isn't visible written out, as in Python's literals.

    Args:
      text: any.
      keep: characters that stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _written_out(one)
        if one not in keep and unicodedata.category(one) in _UNSAFE
        else one
        for one in text
    )


def _written_out(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
