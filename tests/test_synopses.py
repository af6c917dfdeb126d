"""The examples in docstrings are run, and give what they say."""

import ast
import dataclasses
import doctest
import pathlib
import shutil

import line
import pytest

import trainer
from trainer import task
from trainer.config import lookup, shipped

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What an example needs that isn't always installed.
EXTRAS = {"trainer.data.tables": "pyarrow"}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclasses.dataclass(frozen=True)
class Docstring:
    """One of a module, a class or a function, and the line where it begins."""

    name: str
    path: pathlib.Path
    line: int
    text: str


def docstrings(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)

    def walk(node, name):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield Docstring(name, path, node.body[0].lineno, text)
        for child in ast.iter_child_nodes(node):
            inner = getattr(child, "name", None)
            yield from walk(child, f"{name}.{inner}" if inner else name)

    yield from walk(
        ast.parse(path.read_text(encoding="utf-8")), module.removesuffix(".__init__")
    )


ALL = {
    one.name: one
    for path in sorted((ROOT / "trainer").rglob("*.py"))
    for one in docstrings(path)
}
EXAMPLES = [name for name, one in ALL.items() if ">>>" in one.text]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A directory in which `runs/line` is a finished run."""
    directory = tmp_path_factory.mktemp("finished")
    outcome = trainer.train(
        line.Line(),
        directory / "runs" / "line",
        progress="none",
        steps=30,
        batch_size=4,
        evaluate_every_steps=10,
        save_every_steps=10,
    )
    assert outcome.step == 30
    return directory


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """A copy of it, in which an example runs; what it registers is forgotten."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    known = lookup.all_tasks(shipped.tasks_package())
    monkeypatch.setattr(task, "_registered", dict(known))
    return tmp_path


# As it is in Keras, where it writes files.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_gives_what_it_says(name):
    """Nothing is there but what it imports and makes, and a finished run."""
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name], reason="an extra has it")
    one = ALL[name]
    test = doctest.DocTestParser().get_doctest(
        one.text, {"__name__": "__main__"}, name, str(one.path), one.line - 1
    )
    said = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    assert result.attempted
    assert not result.failed, "".join(said)


def test_every_public_name_has_an_example():
    homes = {name: getattr(trainer, name) for name in trainer.__all__}
    without = [
        name
        for name, one in homes.items()
        if name not in ("KeepstepError", "__version__")
        and f"{one.__module__}.{one.__name__}" not in EXAMPLES
    ]
    assert without == []
