"""Threads that read for TensorFlow: in order, with errors, and never stuck."""

import gc
import threading
import weakref

import numpy as np
import pytest
import tasks

from trainer import data
from trainer.data.prepared import Prepared
from trainer.data.readers import Readers


def test_the_answers_come_in_the_order_of_the_questions():
    first = threading.Event()

    def answer(number):
        if number == 0:
            first.wait()  # the others are done before it
        elif number == 7:
            first.set()
        return number

    assert Readers(2).ask(answer, range(8)) == list(range(8))
    assert Readers(2).ask(answer, []) == []


def test_the_first_error_is_raised_where_it_was_asked():
    def fail(number):
        if number % 2:
            raise ValueError(f"number {number}")

    readers = Readers(3)
    with pytest.raises(ValueError, match="number 1"):
        readers.ask(fail, range(6))
    assert readers.ask(str, [1]) == ["1"]


def test_the_threads_end_with_what_they_belong_to():
    readers = Readers(2)
    threads = readers.ask(lambda n: threading.current_thread(), range(20))
    gone = weakref.ref(readers)
    del readers
    assert gone() is None
    for thread in threads:
        thread.join()


class Collecting:
    """Collects garbage when it is asked for its first example."""

    readers = 2  # said, so that it is not tried out line by line

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index == 0:
            gc.collect()
        return {"x": np.zeros(2, np.float32), "y": np.float32(index)}


def test_an_iterator_that_garbage_collection_ends_stops_no_other():
    """It waits for what it asked for; nothing that this needs may wait for it."""
    for _ in range(5):
        source = data.split({"train": Collecting()}, "train")
        inputs = Prepared(task=tasks.Plain(), source=source, batch_size=4, seed=0)
        with inputs.reading(0, 1):
            inputs.batch(0)
        inputs.itself = inputs  # only a collection finds it
