"""How well images are told apart, drawn as plain arrays.

>>> import numpy as np
>>> from trainer.figures import classification
>>> images, labels = np.zeros([3, 8, 8]), np.array([0, 1, 1])
>>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
>>> drawn = classification.of_classification(images, labels, probabilities)
>>> sorted(drawn), drawn["confusion"].dtype, drawn["confusion"].shape[2]
(['confusion', 'worst_mistakes'], dtype('uint8'), 3)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

Array = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]
Names = Sequence[str] | None
_TEXT_PIXELS = 12
_GAP_PIXELS = 4
_SMALLEST_TILE_PIXELS = 48
_SMALLEST_CELL = 24
_DARK = 0.7  # from here on the ink is white
_WHITE = 255
_WHITES, _BLACK, _GREY = (255, 255, 255), (0, 0, 0), (204, 204, 204)
_GREEN, _RED = (20, 140, 60), (200, 30, 30)
_LONGEST_NAME = 24


def of_classification(
    images: Any, labels: Any, probabilities: Any, classes: Names = None
) -> dict[str, Image]:
    """How well images are told apart: the confusion matrix and the worst mistakes.

    Args:
      images: `[N, H, W]` or `[N, H, W, 3]`; dark is low, of any range.
      labels: whole numbers `[N]`, the true classes from 0 on.
      probabilities: `[N, classes]`.
      classes: their names; numbers without.
    """
    predicted = np.argmax(probabilities, axis=1)
    labels = np.asarray(labels).astype(int)
    count = np.shape(probabilities)[1]
    names = _checked(classes, count)
    of_label = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    mistakes = np.flatnonzero(predicted != labels)
    worst_first = mistakes[np.argsort(of_label[mistakes], kind="stable")]
    captions = {
        int(place): (
            f"true {names[labels[place]]}",
            f"predicted {names[predicted[place]]}",
        )
        for place in worst_first
    }
    return {
        "confusion": confusion_matrix(labels, predicted, count, names),
        "worst_mistakes": gallery(images, worst_first, captions=captions),
    }


def confusion_matrix(
    labels: Array, predicted: Array, classes: int, names: Names = None
) -> Image:
    """Rows are the true classes, columns the predicted ones, from the top left.

    Each cell holds its count. Correct ones are green and mistakes red, each the
    stronger the larger its share of the row.

    Args:
      labels: whole numbers `[N]` from 0 to `classes - 1`.
      predicted: as `labels`.
      classes: how many there are.
      names: of the classes; numbers without.

    Returns:
      uint8 `[H, W, 3]`.
    """
    names = _checked(names, classes)
    counts = np.zeros([classes, classes], np.int64)
    np.add.at(counts, (labels, predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares *= 2 * np.eye(classes) - 1  # mistakes are negative
    cell = max(_width(str(counts.max(initial=0))) + 2 * _GAP_PIXELS, _SMALLEST_CELL)
    longest = max(map(_width, names))
    upright = longest > cell - 2  # long names stand upright above the columns
    head = longest if upright else _TEXT_PIXELS
    left = _TEXT_PIXELS + longest + 3 * _GAP_PIXELS
    top = _TEXT_PIXELS + head + 3 * _GAP_PIXELS
    side = classes * (cell + 1) + 1
    canvas = _Canvas(left + side, top + side)
    _draw_axes(canvas, left, top, side)
    for place, name in enumerate(names):
        border = 1 + place * (cell + 1)
        canvas.text(name, left - _GAP_PIXELS, top + border + cell // 2, anchor="rm")
        bottom = top - _GAP_PIXELS - (0 if upright else head)
        canvas.text(name, left + border + cell // 2, bottom, upright=upright)
        for column, one in enumerate(counts[place]):
            corner = left + 1 + column * (cell + 1), top + border
            _draw_count(canvas, corner, cell, one, shares[place, column])
    return canvas.image()


def _draw_axes(canvas: _Canvas, left: int, top: int, side: int) -> None:
    canvas.text("predicted", left + side // 2, _GAP_PIXELS)
    middle = top + (side + _width("true")) // 2
    canvas.text("true", _GAP_PIXELS + _TEXT_PIXELS // 2, middle, upright=True)
    canvas.box(left, top, side, side, _GREY)


def _draw_count(
    canvas: _Canvas, corner: tuple[int, int], side: int, count: int, share: float
) -> None:
    """One cell of a confusion matrix; the share is negative for a mistake."""
    # A single mistake among hundreds is to be seen, too.
    strength = math.sqrt(abs(share))
    colour = _RED if share < 0 else _GREEN
    tint = tuple(round(_WHITE + strength * (one - _WHITE)) for one in colour)
    x, y = corner
    canvas.box(x, y, side, side, tint)
    ink = _WHITES if strength > _DARK else _BLACK
    text = str(count) if count else ""
    canvas.text(text, x + side // 2, y + side // 2, ink, anchor="mm")


def gallery(
    images: Any,
    chosen: Array,
    *,
    count: int = 16,
    captions: Mapping[int, Sequence[str]] | None = None,
) -> Image:
    """The first of the chosen images in a grid; white where there are fewer.

    Args:
      images: `[N, H, W]` or `[N, H, W, 3]`; dark is low, of any range.
      chosen: places in `images`, int `[M]`.
      count: how many to show at most.
      captions: lines below the images, by their place in `images`.
    """
    every = np.asarray(images, np.float64)
    low, high = every.min(initial=0), every.max(initial=1)
    shown = np.round((every[chosen[:count]] - low) / (high - low) * _WHITE)
    if shown.ndim == 3:
        shown = np.repeat(shown[..., None], 3, axis=-1)
    zoom = max(1, _SMALLEST_TILE_PIXELS // shown.shape[1])
    tiles = shown.astype(np.uint8).repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width = tiles.shape[1:3]
    captions = captions or {}
    texts = [captions.get(int(place), ()) for place in chosen[:count]]
    line = _TEXT_PIXELS + 2
    below = max(map(len, captions.values()), default=0) * line
    widths = [_width(text) + 2 * _GAP_PIXELS for lines in texts for text in lines]
    column_width = max([width, *widths])
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = _Canvas(columns * (column_width + 1), rows * (height + below + 1))
    for place, (tile, lines) in enumerate(zip(tiles, texts, strict=True)):
        x = place % columns * (column_width + 1)
        y = place // columns * (height + below + 1)
        canvas.paste(tile, x + (column_width - width) // 2, y)
        for number, text in enumerate(lines):
            canvas.text(text, x + column_width // 2, y + height + 1 + number * line)
    return canvas.image()


class _Canvas:
    """A white image to draw on."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Pillow.new("RGB", (width, height), _WHITES)
        self._draw = ImageDraw.Draw(self._image)

    def box(
        self, x: int, y: int, width: int, height: int, colour: tuple[int, ...]
    ) -> None:
        self._draw.rectangle([x, y, x + width - 1, y + height - 1], fill=colour)

    def paste(self, pixels: Image, x: int, y: int) -> None:
        self._image.paste(Pillow.fromarray(pixels), (x, y))

    def text(
        self,
        text: str,
        x: int,
        y: int,
        ink: tuple[int, ...] = _BLACK,
        *,
        anchor: str = "mt",
        upright: bool = False,
    ) -> None:
        """Draws a line; `x`, `y` is its upper middle, or what the anchor says.

        One that stands upright begins there and goes up.
        """
        if not upright:
            self._draw.text((x, y), text, fill=ink, font=_font(), anchor=anchor)
            return
        width, height = _width(text), _TEXT_PIXELS + 2
        line = Pillow.new("RGB", (max(width, 1), height), _WHITES)
        ImageDraw.Draw(line).text((0, height // 2), text, ink, _font(), anchor="lm")
        turned = line.rotate(90, expand=True)
        self._image.paste(turned, (x - height // 2, y - turned.height))

    def image(self) -> Image:
        return np.array(self._image, np.uint8)


@functools.cache
def _font() -> Any:
    return ImageFont.load_default(_TEXT_PIXELS)


def _width(text: str) -> int:
    width: int = math.ceil(_font().getlength(text))
    return width


def _checked(names: Names, classes: int) -> list[str]:
    if names is None:
        return [str(number) for number in range(classes)]
    if len(names) != classes:
        raise ValueError(
            f"there are {len(names)} names for {classes} classes; expected one for "
            "each, in the order of the columns of the probabilities."
        )
    return [
        name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
        for name in map(str, names)
    ]
