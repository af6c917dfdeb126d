"""The examples in docstrings are run, and give what they say."""

import ast
import dataclasses
import doctest
import pathlib
import re
import shlex
import shutil

import line
import pytest
import tensorflow as tf

import trainer
from trainer import task
from trainer.checkpoint.layout import RunDirectory
from trainer.commands import command_line
from trainer.config import flagfiles
from trainer.exporting import versions
from trainer.storage import failpoints

# Keras, where it writes files.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")
ROOT = pathlib.Path(__file__).resolve().parents[1]
# What an example needs that isn't always installed.
EXTRAS = {"trainer.data.tables": "pyarrow"}
# What is set apart in a docstring and is neither an example nor a command.
FORMATS = {
    "trainer.checkpoint.layout": "a tree of directories, compared with a real one",
}
COMMAND = re.compile(r"python run\.py\b[^`\n]*")
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):\n")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclasses.dataclass(frozen=True)
class Docstring:
    """One of a module, a class or a function, and the line where it begins."""

    name: str
    path: pathlib.Path
    line: int
    text: str

    @property
    def untested(self):
        """The blocks in it that look like code, or are set apart, and are not run."""
        return [
            part
            for part in re.split(r"\n\s*\n", self.text)
            if not SECTION.match(part)
            and (re.search(r"^ ", part, re.MULTILINE) or is_code(part))
            and not part.lstrip().startswith(">>> ")
            and not all(COMMAND.fullmatch(one.strip()) for one in part.splitlines())
        ]

    @property
    def commands(self):
        """The command lines in it."""
        return [" ".join(found.split()) for found in COMMAND.findall(self.text)]


def is_code(text):
    """Whether it is more than a word or two, and Python."""
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return False
    names = ast.Name | ast.Constant | ast.Attribute
    return not all(isinstance(getattr(one, "value", None), names) for one in body)


def docstrings(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)

    def walk(node, name):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and (text := ast.get_docstring(node, clean=False)):
            place = node.body[0]
            # As it is indented below its quotes, also where all of it is further in.
            text = re.sub(rf"^ {{{place.col_offset}}}", "", text, flags=re.MULTILINE)
            yield Docstring(name, path, place.lineno, text.strip())
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
COMMANDS = sorted({line for one in ALL.values() for line in one.commands})
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
    yield tmp_path
    for name, one in task.registered().items():
        if one.__module__ == "__main__":
            del task.registry._registered[name]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_gives_what_it_says(name):
    """Nothing is there but what it imports and makes, and a finished run."""
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name], reason="an extra has it")
    run_example(name)


def run_example(name):
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


def test_no_docstring_has_code_that_is_not_run():
    found = {name: one.untested for name, one in ALL.items() if one.untested}
    assert found.keys() == FORMATS.keys(), found


@pytest.mark.parametrize(
    "text",
    [
        "Reads.\n\n    words = opened(path)\n",
        "Reads.\n\nwords = opened(path)\n",
        "Reads.\n\nopened(path)   # a comment\n",
        "Reads:\n    words = opened(path)\n",
        "Reads.\n\n    run.json   the choices\n",
        "Reads.\n\n    with opened(path) as words:\n        ...\n",
        "Reads.\n\n    python run.py list\n    rm -r runs\n",
    ],
)
def test_code_that_is_not_run_is_found(tmp_path, monkeypatch, text):
    monkeypatch.setattr("test_synopses.ROOT", tmp_path)
    path = tmp_path / "reading.py"
    text = text.replace("\n", "\n        ")
    path.write_text(f'class Reader:\n    def read(self):\n        """{text}    """\n')
    (one,) = docstrings(path)
    assert one.name == "reading.Reader.read"
    assert len(one.untested) == 1


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_line_in_a_docstring_is_one(line, monkeypatch):
    """Its flags are flags of that command, and their values are allowed."""
    monkeypatch.chdir(ROOT)
    words = flagfiles.opened(shlex.split(line)[2:])
    read = command_line.read(words)
    asked = command_line.asked(read, package="models", as_json=False, debug=False)
    assert asked.command == read.command


def test_most_commands_show_how_they_are_called():
    shown = {word for line in COMMANDS for word in line.split()[2:3]}
    assert set(command_line.NAMES) <= shown


# The run directory.


def drawn():
    """The paths that `layout` draws, each with a pattern for real ones."""
    (tree,) = ALL["trainer.checkpoint.layout"].untested
    found, parent = {}, ""
    for row in tree.splitlines():
        name = row.split()[0]
        if not row.startswith(" " * 6):
            parent = name
        path = name if parent == name else parent + name
        pattern = re.escape(path).replace("accuracy", "loss").replace(r"\*", ".*")
        pattern = re.sub(r"1200|00001|(?<=/)1(?=/)", r"\\d+", pattern)
        found[path] = re.compile(pattern + (".*" if path.endswith(FREE) else ""))
    return found


# What stands in these is not of that format; the others hold what `recent/` does, or
# a part of a run once more.
FREE = (
    "exports/saved_model/1/",
    "exports/keras/1200/",
    "summaries/train/",
    "summaries/eval/",
)


def simpler(path):
    """As the drawing says it: of several such places it names one."""
    path = re.sub(r"^abandoned/\d+/(?=.)", "", path)
    path = re.sub(r"^(best|averaged)/loss/(?=.)", "recent/", path)
    path = re.sub(r"/staging/(?=.)", "/", path)
    path = re.sub(r"\.data-(\S+)\.(damaged|unclaimed)$", r".data-\1", path)
    path = re.sub(r"\.index\.damaged$", ".index", path)
    return re.sub(r"\.tmp/.*", ".tmp", path)


class Learning(line.Line):
    def prepare(self, sources):
        return {"spread": sources["train"]["x"].std()}


def test_a_run_directory_is_as_its_format_says(place, monkeypatch):
    """All that ever stands in it is drawn, and all that is drawn stands in it once."""
    run, other, seen = place / "runs" / "line", place / "runs" / "mine", set()
    learned = place / "runs" / "learned"

    def look(name):
        for root in (run, other, learned):
            for path in root.rglob("*"):
                seen.add(str(path.relative_to(root)) + "/" * path.is_dir())

    monkeypatch.setattr(failpoints, "point", look)
    run_example("trainer.inference.average")
    (run / "recent" / "ckpt-10.json").unlink()
    (run / "recent" / "ckpt-30.index").write_bytes(b"")
    trainer.train(line.Line(), run, progress="none", steps=32)
    trainer.train(line.Line(), run, progress="none", steps=32, checkpoint="step:20")
    with trainer.Keeper(other, tf.train.Checkpoint(x=tf.Variable(0.0))) as keeper:
        keeper.save(5)
        keeper.save(5)
    hooks = [trainer.hooks.Csv()]
    trainer.train(Learning(), learned, progress="none", steps=1, hooks=hooks)
    look("the end")
    # Where an export goes, without making one once more.
    seen.add(f"{RunDirectory(run).export('keras', 30).relative_to(run)}/")
    taken = versions.place(RunDirectory(run), versions.take(RunDirectory(run)))
    seen.add(f"{taken.relative_to(run)}/")
    look("the end")
    patterns = drawn()
    unseen = [path for path in patterns if not any(map(patterns[path].fullmatch, seen))]
    assert unseen == []
    files = {path for path in map(simpler, seen) if not path.endswith("/")}
    every = list(patterns.values())
    unknown = [path for path in files if not any(one.fullmatch(path) for one in every)]
    assert sorted(unknown) == []
