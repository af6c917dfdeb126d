"""What README.md and BUILD.md show is run, and what they name exists."""

import pathlib
import re

import processes
import pytest

from trainer.commands import command_line
from trainer.config import options

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BUILD = (ROOT / "BUILD.md").read_text(encoding="utf-8")


def example(name):
    """The code that README.md marks as a test of that name."""
    pattern = rf"<!-- test: {re.escape(name)} -->\n```python\n(.*?)```"
    return re.search(pattern, README, re.DOTALL)[1]


def test_the_task_of_the_readme_trains_from_another_directory(tmp_path):
    (tmp_path / "rings.py").write_text(example("rings.py"))
    arguments = ["--task=rings:Rings", "--set=width=64", "--epochs=20"]
    done = processes.script(ROOT / "run.py", *arguments, cwd=tmp_path)
    assert done.code == 0, done.stderr
    best = re.search(r"best .*\(accuracy (\S+)\)", done.stdout)
    assert float(best[1]) > 0.95
    assert (tmp_path / "runs" / "Rings" / "recent" / "checkpoint").exists()


def test_the_commands_are_functions(tmp_path):
    (tmp_path / "rings.py").write_text(example("rings.py"))
    (tmp_path / "script.py").write_text(f"import sys\nsys.path.append({str(ROOT)!r})\n")
    with (tmp_path / "script.py").open("a") as script:
        script.write(example("functions"))
    done = processes.script("script.py", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert re.search(r"^469 {'accuracy': (0\.9|1)", done.stdout, re.MULTILINE)
    assert list((tmp_path / "runs/rings/exports/keras").iterdir())


@pytest.mark.parametrize("name", ["open", "weights"])
def test_a_checkpoint_is_read_with_the_lines_of_the_readme(reference, tmp_path, name):
    """The lines name the run directory of the main job: one is linked there."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(reference.directory)
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "trainer").symlink_to(ROOT / "trainer")
    check = """
import tensorflow as tf
from trainer import data
valid = data.split(Digits().sources(), "valid")
batch = valid.gather(tf.range(len(valid), dtype=tf.int64))
right = tf.argmax(model(batch["image"]), 1) == tf.cast(batch["label"], tf.int64)
print(float(tf.reduce_mean(tf.cast(right, tf.float64))))
"""
    (tmp_path / "read.py").write_text(example(name) + check)
    done = processes.script("read.py", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert float(done.stdout) > 0.5


KINDS = "|".join(options.EXPORTS)
FORMATS = re.findall(rf"^\| `({KINDS})` \|", BUILD, re.MULTILINE)


def test_every_format_has_its_line_in_the_build_document():
    assert set(FORMATS) == set(options.EXPORTS)


def test_every_module_has_its_line_in_the_build_document():
    named = set(re.findall(r"^\| `([\w/]+)` \|", BUILD, re.MULTILINE))
    named |= {f"commands/{name}" for name in command_line.NAMES}
    paths = (ROOT / "trainer").rglob("*.py")
    modules = {
        path.relative_to(ROOT / "trainer").with_suffix("").as_posix()
        for path in paths
        if path.name != "__init__.py"
    }
    assert named - set(FORMATS) == modules


def test_the_documents_name_only_flags_that_exist():
    flags = {name for one in command_line.NAMES for name in command_line.fields_of(one)}
    flags |= {"flagfile", "flag", "help", "version", "logdir", "option"}
    others = r"`python benchmarks/[^`]*`|```sh\nckpt-chaos.*?```"  # with their own
    ours = README + re.sub(others, "", BUILD, flags=re.DOTALL)
    named = set(re.findall(r"(?<![\w-])--([a-z_]+)", ours))
    assert named <= flags
