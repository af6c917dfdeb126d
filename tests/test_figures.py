"""Figures: what they show, and that a run draws them of each new best and only then."""

import dataclasses

import numpy as np
import pytest
import scripted
import tasks
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

from trainer.figures import confusion_matrix, gallery, of_classification

CELL = 25  # a cell of 24 pixels, and the line beside it
GREEN, RED, WHITE = (20, 140, 60), (200, 30, 30), (255, 255, 255)


def cells(image, classes, cell=CELL):
    """A corner pixel of each cell of a matrix, as a grid of colours."""
    top, left = (side - 1 - classes * cell for side in image.shape[:2])
    return [
        [
            tuple(map(int, image[top + 3 + row * cell, left + 3 + column * cell]))
            for column in range(classes)
        ]
        for row in range(classes)
    ]


def ink(image, top, left, bottom, right):
    """How many pixels of a part are dark: text."""
    return int((image[top:bottom, left:right].max(axis=-1) < 100).sum())


# The confusion matrix.


def test_a_confusion_matrix_has_the_true_classes_from_the_top():
    labels = np.array([0, 0, 1, 2, 2, 2])
    predicted = np.array([0, 0, 2, 2, 2, 2])
    image = confusion_matrix(labels, predicted, 3)
    assert image.dtype == np.uint8
    assert cells(image, 3) == [
        [GREEN, WHITE, WHITE],
        [WHITE, WHITE, RED],
        [WHITE, WHITE, GREEN],
    ]


def test_a_colour_is_the_stronger_the_larger_its_share_of_the_row():
    labels = np.repeat([0, 1], 100)
    predicted = np.concatenate([np.repeat([0, 1], [99, 1]), np.repeat([0, 1], 50)])
    image = confusion_matrix(labels, predicted, 2)
    (right, rare), (often, half) = cells(image, 2)
    assert right[0] < half[0] < 255
    assert often[1] < rare[1] < 255
    assert rare != WHITE, "one of a hundred is to be seen"


def test_a_class_without_examples_is_a_white_row():
    image = confusion_matrix(np.array([1]), np.array([1]), 2)
    assert cells(image, 2)[0] == [WHITE, WHITE]


def test_a_matrix_has_axes_names_and_counts():
    labels = np.array([0, 0, 1])
    image = confusion_matrix(labels, labels, 2)
    top, left = (side - 1 - 2 * CELL for side in image.shape[:2])
    assert ink(image, 0, left, 16, image.shape[1]), "the axis above"
    assert ink(image, top, 0, image.shape[0], 16), "the axis beside"
    assert ink(image, 16, left, top, image.shape[1]), "names above"
    assert ink(image, top, 16, image.shape[0], left), "names beside"
    other = confusion_matrix(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 1]), 2)
    assert (image != other).any(), "the counts"


def test_the_names_of_the_classes_are_shown():
    labels = np.array([0, 1])
    plain = confusion_matrix(labels, labels, 2)
    named = confusion_matrix(labels, labels, 2, ["cat", "hippopotamus"])
    assert named.shape > plain.shape
    assert cells(named, 2) == cells(plain, 2)
    endless = confusion_matrix(labels, labels, 2, ["a" * 500, "b"])
    assert max(endless.shape) < 400
    text = r"^there are 1 names for 2 classes; expected one for each, in the order"
    with pytest.raises(ValueError, match=text):
        confusion_matrix(labels, labels, 2, ["cat"])


def test_large_counts_fit_into_their_cells():
    labels = np.zeros([12345], int)
    wide = confusion_matrix(labels, labels, 2)
    assert wide.shape[1] > confusion_matrix(labels[:9], labels[:9], 2).shape[1]


# The worst mistakes.


def flat(*greys):
    """Images of 4x4 pixels, each of one grey."""
    return np.float32(greys)[:, None, None] * np.ones([4, 4], np.float32)


def tiles(image, rows, columns):
    """The pixel in the upper middle of each tile."""
    height, width = (image.shape[0] // rows, image.shape[1] // columns)
    return [
        tuple(map(int, image[row * height + 5, column * width + width // 2]))
        for row in range(rows)
        for column in range(columns)
    ]


def greys(image, count):
    return [one[0] for one in tiles(image, count, count)]


def test_a_gallery_shows_the_chosen_in_their_order_and_then_white():
    images = flat(0.0, 0.25, 0.5, 1.0)
    image = gallery(images, np.array([2, 0, 1]), count=4)
    side = 4 * 12 + 1
    assert (image.shape, image.dtype) == ((2 * side, 2 * side, 3), np.uint8)
    assert greys(image, 2) == [128, 0, 64, 255]


def test_a_gallery_shows_no_more_than_it_has_room_for():
    images = flat(*np.linspace(0, 1, 9))
    image = gallery(images, np.arange(9), count=4)
    assert greys(image, 2) == [0, 32, 64, 96]


def test_a_gallery_is_in_colour_where_the_images_are():
    images = np.zeros([2, 4, 4, 3])
    images[0, ..., 0], images[1, ..., 2] = 255, 255
    image = gallery(images, np.array([1, 0]), count=2)
    assert tiles(image, 1, 2) == [(0, 0, 255), (255, 0, 0)]


def test_a_large_image_is_shown_as_it_is():
    image = gallery(np.zeros([1, 60, 50]), np.array([0]), count=1)
    assert image.shape == (61, 51, 3)


def test_what_is_written_below_an_image_has_room():
    images = flat(0.0, 1.0)
    plain = gallery(images, np.array([0, 1]), count=2)
    lines = {0: ["true a", "predicted b"]}
    image = gallery(images, np.array([0, 1]), count=2, captions=lines)
    assert image.shape[0] >= plain.shape[0] + 24
    half = image.shape[1] // 2
    assert ink(image, 49, 0, image.shape[0], half)
    assert not ink(image, 49, half, image.shape[0], image.shape[1])


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_the_worst_mistake_comes_first(kind):
    """The worst is the one whose true class was thought the least likely."""
    probabilities = np.array(
        [[0.75, 0.25], [0.125, 0.875], [0.25, 0.75], [1.0, 0.0], [0.5, 0.5]]
    )
    labels = np.array([0, 0, 0, 1, 1], kind)
    images = flat(0, 51, 102, 153, 204).astype(kind)
    images[0, 0, 0] = 255
    drawn = of_classification(images, labels, probabilities)
    assert sorted(drawn) == ["confusion", "worst_mistakes"]
    shown = greys(drawn["worst_mistakes"], 4)
    assert shown == [153, 51, 102, 204, *[255] * 12], (
        "of equal classes it says the first"
    )
    again = of_classification(images, labels, probabilities)
    for name, image in drawn.items():
        np.testing.assert_array_equal(image, again[name])
    named = of_classification(images, labels, probabilities, ["cat", "dog"])
    for name, image in drawn.items():
        assert image.shape != named[name].shape or (image != named[name]).any()


def test_of_equally_bad_mistakes_the_earlier_comes_first():
    probabilities = np.tile([0.25, 0.75], [3, 1])
    images = flat(0, 51, 255)
    drawn = of_classification(images, np.zeros([3]), probabilities)
    assert greys(drawn["worst_mistakes"], 4)[:3] == [0, 51, 255]


def test_without_a_mistake_the_gallery_is_white():
    drawn = of_classification(flat(0, 1), [0, 1], np.eye(2))
    assert set(greys(drawn["worst_mistakes"], 4)) == {255}


# In a run.


@dataclasses.dataclass(frozen=True)
class Shown(scripted.Scripted):
    """The number of steps so far is drawn as a grey, the examples as its size."""

    def predictions(self, networks, batch):
        return {"count": networks(batch["x"], training=False)}

    def figures(self, examples, predictions):
        (count,) = set(predictions["count"].tolist())
        shape = [len(examples["x"]), len(predictions["count"]), 3]
        return {"grey": np.full(shape, -count, np.uint8)}


def images(run_dir):
    """What TensorBoard is given: by tag `{step: image}`, each step once."""
    events = event_accumulator.EventAccumulator(
        str(run_dir / "summaries/eval"),
        size_guidance={event_accumulator.TENSORS: 0},
        purge_orphaned_data=False,
    )
    events.Reload()
    found = {}
    for tag in events.summary_metadata:
        if events.SummaryMetadata(tag).plugin_data.plugin_name != "images":
            continue
        shown = [
            (event.step, tf.make_ndarray(event.tensor_proto)[2])
            for event in events.Tensors(tag)
        ]
        assert len(dict(shown)) == len(shown)
        found[tag] = {step: tf.io.decode_png(one).numpy() for step, one in shown}
    return found


def train(run_dir, task, steps=None, **choices):
    steps = steps or len(task.script.split())
    return tasks.train(run_dir, task, steps=steps, evaluate_every_steps=1, **choices)


SCRIPT = "nan 0.25 0.125 0.5 0.5 0.75"


def test_a_run_draws_each_new_best_and_nothing_else(tmp_path):
    train(tmp_path / "run", Shown(SCRIPT), eval_batch_size=3)
    drawn = images(tmp_path / "run")
    assert sorted(drawn) == ["grey"]
    assert sorted(drawn["grey"]) == [2, 4, 6]
    for step, image in drawn["grey"].items():
        np.testing.assert_array_equal(image, np.full([4, 4, 3], step, np.uint8))


@pytest.mark.parametrize("step", [3, 4])
def test_a_resumed_run_draws_what_is_left(tmp_path, step):
    straight, task = tmp_path / "straight", Shown("0.0 0.25 0.125 0.5 0.5 0.75")
    train(straight, task)
    run_dir = tasks.cut_back(straight, tmp_path / "run", step)
    train(run_dir, task)
    tasks.assert_same_run(straight, run_dir)
    assert sorted(images(run_dir)["grey"]) == [1, 2, 4, 6]


def test_without_figures_there_are_no_images(tmp_path):
    train(tmp_path / "run", scripted.Scripted(SCRIPT), steps=2)
    assert images(tmp_path / "run") == {}


def test_without_anything_that_is_best_there_are_no_images(tmp_path):
    train(tmp_path / "run", Shown(SCRIPT), steps=2, best=())
    assert images(tmp_path / "run") == {}


class Moody(tasks.Rich):
    """Draws random numbers where it predicts, from the generator that training uses."""

    def predictions(self, networks, batch):
        noise = tf.random.get_global_generator().normal([1, tasks.FEATURES])
        return {"y": networks(batch["x"] + noise, training=True)}

    def values(self, networks, batch, training):
        noise = tf.random.get_global_generator().normal([1, tasks.FEATURES])
        return super().values(networks, {**batch, "x": batch["x"] + noise}, training)


class Drawn(Moody):
    def figures(self, examples, predictions):
        return {"y": np.zeros([8, 8, 3], np.uint8)}


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_drawing_leaves_no_trace_in_the_training(tmp_path, ema):
    for cls in (Moody, Drawn):
        tasks.train(tmp_path / cls.__name__, cls(), steps=8, ema=ema)
    assert len(images(tmp_path / "Drawn")["y"]) >= 1
    assert images(tmp_path / "Moody") == {}
    for step in range(1, 9):
        name = f"recent/ckpt-{step}"
        one, other = (tmp_path / cls / name for cls in ("Moody", "Drawn"))
        assert tasks.different(one, other) == []
    curves = tasks.scalars(tmp_path / "Drawn")
    del curves["eval/y"]
    assert curves == tasks.scalars(tmp_path / "Moody")
