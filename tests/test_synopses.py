"""The examples in docstrings are run, and give what they say."""

import ast
import dataclasses
import doctest
import pathlib
import shutil

import line
import pytest

import trainer

ROOT = pathlib.Path(__file__).resolve().parents[1]
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


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_gives_what_it_says(name, finished, tmp_path, monkeypatch):
    """Nothing is there but what it imports and makes, and a finished run."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    one = ALL[name]
    test = doctest.DocTestParser().get_doctest(
        one.text, {"__name__": "__main__"}, name, str(one.path), one.line - 1
    )
    said = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    assert result.attempted
    assert not result.failed, "".join(said)
