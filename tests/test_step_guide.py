"""Each snippet of docs/step.md trains, is resumed exactly, and is evaluated."""

import re

import guides
import keras
import pytest
import tasks
import tensorflow as tf

import trainer
from trainer import task

TEXT = guides.text("step.md")
SNIPPETS = guides.snippets("step.md")


class Base(tasks.Plain):
    def networks(self):
        return keras.Sequential([keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)])


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_trains_and_is_resumed(name, tmp_path):
    path = tmp_path / "snippet.py"
    path.write_text(SNIPPETS[name])  # a file, since AutoGraph reads the source
    methods = {"keras": keras, "tf": tf, "task": task, "__name__": __name__}
    exec(compile(path.read_text(), path, "exec"), methods)
    own = {k: v for k, v in methods.items() if k == "best" or hasattr(v, "__code__")}
    cls = type("Snippet", (Base,), own | {"__module__": __name__})
    choices = {"task": f"{__name__}:Snippet", "steps": 7}
    tasks.train(tmp_path / "straight", cls(), **choices)
    tasks.cut_back(tmp_path / "straight", tmp_path / "resumed", 3)
    tasks.train(tmp_path / "resumed", cls(), **choices)
    tasks.assert_same_run(tmp_path / "straight", tmp_path / "resumed")
    (rule, *_) = cls.best
    home = rule.partition(":")[0]
    best = tasks.only(tmp_path / "resumed" / "best" / home)
    found = trainer.evaluate(tmp_path / "resumed", f"best:{home}", task=cls())
    assert found == tasks.manifest(best)["metrics"]


def test_every_way_of_the_table_is_in_a_snippet():
    rows = re.findall(r"^\| `(optimize\.\w+|self\.\w+)", TEXT, re.M)
    assert len(rows) == 7
    for row in rows:
        assert any(row in one for one in SNIPPETS.values()), row
