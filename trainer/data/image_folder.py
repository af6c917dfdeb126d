"""A folder of images, one folder in it for each class.

    >>> import pathlib, keras, numpy as np
    >>> from trainer import data
    >>> for name in ("cat", "dog"):
    ...     pathlib.Path("photos", name).mkdir(parents=True)
    ...     keras.utils.save_img(f"photos/{name}/1.png", np.zeros([4, 4, 3]))
    >>> train = data.images("photos")
    >>> train.classes, train[1]["label"]
    (('cat', 'dog'), 1)

Each example is `{"image": bytes, "label": number}`; `Task.decode` makes pixels of the
bytes, with `data.decode_image`.
"""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, final

import tensorflow as tf
import xxhash

from trainer.data.sources import DataError
from trainer.data.trial import READERS

_KINDS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


@final
class Images:
    """Image files by number, in the order of their names. Use `images`.

    Attributes:
      classes: the names of the folders, sorted: label 0 is the first.
      paths: of the files.
      labels: of the files.
    """

    readers = READERS

    def __init__(
        self, classes: Sequence[str], paths: Sequence[pathlib.Path], labels: list[int]
    ) -> None:
        self.classes = tuple(classes)
        self.paths = tuple(paths)
        self.labels = tuple(labels)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"image": self.paths[index].read_bytes(), "label": self.labels[index]}

    def read_in_ops(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same example (int64 scalar `index`), without Python."""
        paths, labels = self._tensors
        return {
            "image": tf.io.read_file(tf.gather(paths, index)),
            "label": tf.gather(labels, index),
        }

    def file_of(self, index: int) -> str:
        """For messages."""
        return str(self.paths[index])

    @functools.cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.init_scope():  # captured, and not copied into each graph
            paths = tf.constant([os.fsencode(path) for path in self.paths])
            return paths, tf.constant(self.labels, tf.int64)

    @property
    def recipe(self) -> dict[str, Any]:
        """How another folder is read as this one was; JSON."""
        return {"kind": "images", "classes": list(self.classes)}

    def fingerprint(self) -> str:
        """The names and sizes of all files."""
        found = xxhash.xxh3_128()
        for path in self.paths:
            name = f"{path.parent.name}/{path.name}"
            found.update(f"{name}:{path.stat().st_size};".encode())
        return found.hexdigest()


def images(
    directory: str | os.PathLike[str], classes: Sequence[str] | None = None
) -> Images:
    """A source of the images in a folder: JPEG, PNG, GIF and BMP.

    Args:
      directory: holds one folder for each class.
      classes: the folders that count, in the order of their labels; None: all, sorted.

    Raises:
      DataError: there is no such folder, or it holds no images.
    """
    root = pathlib.Path(directory)
    if not root.is_dir():
        raise DataError(
            f"there is no folder {root}. Expected one folder per class in it, with "
            "images. Check the path; it is relative to where the command is started."
        )
    folders = {one.name for one in root.iterdir() if one.is_dir()}
    names = sorted(folders) if classes is None else list(classes)
    if missing := [name for name in names if name not in folders]:
        raise DataError(
            f"{root} has no folder {missing[0]!r}; it has "
            f"{', '.join(sorted(folders)) or 'none'}. Expected one for "
            "each class. Leave the class out, or make the folder."
        )
    found = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((root / name).rglob("*"))
        if path.suffix.lower() in _KINDS and path.is_file()
    ]
    if not found:
        raise DataError(
            f"{root} holds no images in folders by class; it has the folders "
            f"{', '.join(sorted(folders)) or 'none'}. Expected files such as "
            f"{root}/cat/1.jpg ({', '.join(_KINDS)}). Sort the images into folders."
        )
    return Images(names, [path for path, _ in found], [label for _, label in found])


def like(directory: str | os.PathLike[str], recipe: Mapping[str, Any]) -> Images:
    """The images of another folder, in one folder per class or in none.

    Args:
      directory: of the images.
      recipe: of the `Images` whose classes count. What is in a folder of another name,
        or in none, has the label -1.

    Raises:
      DataError: it holds no images.
    """
    root, names = pathlib.Path(directory), list(recipe["classes"])
    below = [
        one.relative_to(root)
        for one in sorted(root.rglob("*"))
        if one.suffix.lower() in _KINDS and one.is_file()
    ]
    if not below:
        raise DataError(
            f"{root} holds no images. Expected files such as {root}/1.jpg "
            f"({', '.join(_KINDS)}), or folders of them. Check the path."
        )
    labels = [names.index(p.parts[0]) if p.parts[0] in names else -1 for p in below]
    return Images(names, [root / one for one in below], labels)


def decode_image(
    content: tf.Tensor, size: tuple[int, int] | None = None, channels: int = 3
) -> tf.Tensor:
    """An image as pixels; for `Task.decode`.

    Args:
      content: string scalar, the bytes of a JPEG, PNG, GIF (its first frame) or BMP.
      size: height and width to which it is resized, bilinear; None: as it is.
      channels: 1: grey, 3: colour, 4: with alpha (PNG).

    Returns:
      uint8 `[height, width, channels]`.
    """
    pixels = tf.io.decode_image(content, channels, expand_animations=False)
    pixels.set_shape([None, None, channels])
    if size is None:
        return pixels
    resized = tf.image.resize(pixels, size)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
