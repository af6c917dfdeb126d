import dataclasses
import math
import re
import sys

import pytest

from trainer import task
from trainer.checkpoint.layout import RunDirectory
from trainer.config import completion, lookup, options, run_record, tasks


class Bare(task.Task):
    """A task without anything to do: here only its hyperparameters count."""

    def sources(self):
        return {}

    networks = optimizers = sources

    def values(self, networks, batch, training):
        return {}


@dataclasses.dataclass(frozen=True)
class Everything(Bare):
    width: int = 3
    rate: float = 0.1
    nesterov: bool = False
    name: str = "adam"
    decay: float | None = None
    sizes: tuple[int, ...] = (1,)
    pair: tuple[int, float] = (1, 0.5)
    labels: tuple[str, ...] = ()
    either: int | str = 0
    table: dict[str, int] | None = None

    def __post_init__(self):
        if self.width < 0:
            raise ValueError("a width of less than nothing")


@dataclasses.dataclass(frozen=True)
class Odd(Bare):
    """Defaults that are fine in Python."""

    limit: float = math.inf
    suffix: str | None = ""
    count: int = 10**20
    tiny: float = 5e-324
    third: float = 1 / 3
    off: tuple[bool, ...] = (True, False)
    none: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Needy(Bare):
    width: int


LINE = f"""
import dataclasses
from {__name__} import Bare
from trainer import task
@dataclasses.dataclass(frozen=True)
class Line(Bare):
    width: int = 3
class Plain: pass
"""


def create(cls, *settings):
    name = f"{__name__}:{cls.__name__}"
    return tasks.create(name, settings, package="models", trust=True)


def refused(*texts):
    expected = ".*".join(map(re.escape, texts))
    return pytest.raises(options.ConfigError, match=f"(?s){expected}")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes modules into a directory, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(task.registry, "_registered", {})
    before = set(sys.modules)

    def write_module(name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    yield write_module
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("width=64", 64),
        ("width=" + "1" * 400, int("1" * 400)),
        ("rate=1e-3", 0.001),
        ("rate=2", 2.0),
        ("nesterov=true", True),
        ("nesterov=No", False),
        ("name=a=b, c", "a=b, c"),
        ("name=", ""),
        ("name=None", "None"),
        ("decay=0.5", 0.5),
        ("decay=none", None),
        ("sizes=1,2,3", (1, 2, 3)),
        ("sizes=", ()),
        ("pair=2,2.5", (2, 2.5)),
        ("labels=a,b c", ("a", "b c")),
        ('labels=["a,b"]', ("a,b",)),
        ('labels:=["a "]', ("a ",)),
        ("either=adam", "adam"),
        ("either:=1", 1),
        ('either:="1"', "1"),
        ('table={"a": 1}', {"a": 1}),
        ("table=none", None),
        ("rate:=2", 2),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_setting_becomes_a_value_of_its_type(setting, value):
    found = getattr(create(Everything, setting), setting.partition("=")[0].rstrip(":"))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("width", "--set=width: expected --set=name=value."),
        ("width=1.5", "--set=width=1.5: '1.5' is not a whole number."),
        ("width=", "'' is not a whole number."),
        ("rate=fast", "--set=rate=fast: 'fast' is not a number."),
        ("rate=nan", "'nan' is not a number."),
        ("nesterov=maybe", "'maybe' is neither true nor false."),
        ("sizes=1,x", "'x' is not a whole number."),
        ("pair=1", "--set=pair=1: "),
        ("decay=x", "'x' is not a number."),
        (
            "either=1",
            "'1' may mean several things as int | str, and so can't be",
        ),
        (
            "either=1",
            "as JSON: --set='either:=1' or --set='either:=\"1\"'",
        ),
        ("table=1", "1 is no dict[str, int]."),
        ("table=a", "'a' is not JSON (Expecting value"),
        (
            "width:=1.5",
            "Everything.width is 1.5 of type float, and declared as int. Give a",
        ),
        ("width:=[", "--set=width:=[: '[' is not JSON ("),
        ('width:={"$enum": "A.B"}', "A.B is not in the type int"),
        ("widht=1", "has no hyperparameter 'widht'. Did you mean 'width'?"),
        ("best=loss:min", "has no hyperparameter 'best'"),
        ("=1", "has no hyperparameter ''. Known: decay, either, labels,"),
        ("width=-1", "Everything refuses its settings: a width of less than nothing"),
    ],
)
def test_a_setting_that_does_not_fit_is_told(setting, told):
    with refused(told):
        create(Everything, setting)


def test_of_two_settings_with_one_name_the_later_counts():
    assert create(Everything, "width=1", "rate=2", "width=5").width == 5


def test_a_task_without_hyperparameters_takes_none():
    with refused("Bare has no hyperparameter 'width'."):
        create(Bare, "width=1")


def test_a_hyperparameter_without_a_default_is_asked_for():
    assert create(Needy, "width=1").width == 1
    with refused("Needy", "--set=width="):
        create(Needy)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Odd)])
def test_the_same_command_again_gives_the_same_task(tmp_path, field):
    """What a run remembers of a hyperparameter goes through text and back."""
    original = create(Odd)
    own = {field: original.hyperparameters()[field]}
    choices = options.RunOptions(task=f"{__name__}:Odd", run_dir=str(tmp_path))
    run_record.write(RunDirectory(tmp_path), run_record.settle(choices, own, {}))
    again = completion.complete(choices, {"task", "run_dir"})
    assert create(Odd, *again.set) == original


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lien", "there is no task 'lien'. Did you mean 'line'? A task of your own is"),
        ("zzz", "there is no task 'zzz'. Known: line. A task of your own is --task=p"),
        ("", "no task given: use --task=NAME. Known: line."),
    ],
)
def test_a_task_is_found_by_its_name_in_the_package(write, name, told):
    write("house/__init__.py", "")
    write("house/lines.py", LINE.replace("@data", '@task.register("line")\n@data'))
    assert tasks.create("line", ["width=5"], package="house").width == 5
    assert list(lookup.all_tasks("house")) == ["line"]
    with refused(told):
        tasks.create(name, [], package="house")


def test_a_class_in_the_current_directory_is_found(write):
    write("shop/prices.py", LINE)
    found = tasks.create("shop.prices:Line", ["width=9"], package="models", trust=True)
    assert (type(found).__name__, found.width) == ("Line", 9)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere:Line", "there is no module 'nowhere' in the current directory or am"),
        ("shop.none:Line", "there is no module 'shop.none' in the current directory"),
        ("shop/none.py:Line", "there is no Python file shop/none.py. Expected path/to"),
        ("shop/:Line", "there is no Python file shop/. Expected path/to/file.py:Class"),
        ("shop.prices:Lime", "has no task class 'Lime'. Did you mean 'Line'?"),
        ("shop.prices:", "--task=shop.prices:: expected package.module:Class"),
        (":Line", "--task=:Line: "),
        (".prices:Line", "--task=.prices:Line: "),
    ],
)
def test_a_class_that_is_not_there_is_told(write, name, told):
    write("shop/prices.py", LINE)
    with refused(told):
        tasks.create(name, [], package="models", trust=True)


@pytest.mark.parametrize(
    ("text", "name", "wrong"),
    [(LINE, "Plain", "mean 'Plain'"), ("width = 3", "width", "Known: .")],
)
def test_what_is_no_task_is_not_suggested(write, text, name, wrong):
    write("prices.py", text)
    with refused(f"--task=prices:{name}: prices has no task class {name!r}") as caught:
        tasks.create(f"prices:{name}", [], package="models", trust=True)
    assert wrong not in str(caught.value)


@pytest.mark.parametrize("missing", ["nowhere_to_be_found", "pric"])
def test_what_a_module_of_the_user_misses_is_not_the_module_itself(write, missing):
    """The second name begins like the module's own."""
    write("prices.py", f"import {missing}\n" + LINE)
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{missing}'"):
        tasks.create("prices:Line", [], package="models", trust=True)
