"""A hyperparameter comes back from the record as the same value of the same type."""

import dataclasses
import enum
import math
import random
import re
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from test_lookup import Bare

from trainer.checkpoint.layout import RunDirectory
from trainer.config import completion, options, run_record, tasks, values


class Color(enum.Enum):
    RED = 1
    BLUE = "none"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Kind(str, enum.Enum):
    A = "a"


def texts(rng):
    parts = ["none", "None", "a,b", " ", "\n", '"', "'", "#", "--x=1", "ü", "\\", "1"]
    parts += ["", "true", "nan", "{}", "[1]", "\t", "=", ":=", "\u2028", "//", "\x00"]
    return "".join(rng.choice(parts) for _ in range(rng.randrange(4)))


def floats(rng):
    edges = [math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, 1e308, 1 / 3]
    return rng.choice([*edges, rng.uniform(-1, 1), float(rng.randrange(9))])


def ints(rng):
    return rng.choice([0, 1, -1, 2**63, -(10**300), rng.randrange(100)])


def truths(rng):
    return rng.random() < 0.5


def several(make, container, most=4):
    return lambda rng: container(make(rng) for _ in range(rng.randrange(most)))


def either(*makers):
    return lambda rng: rng.choice(makers)(rng)


def nothing(rng):
    return None


def pairs(keys, ones):
    return lambda rng: {keys(rng): ones(rng) for _ in range(rng.randrange(4))}


anything = either(texts, floats, ints, truths, nothing, several(ints, list))
MAKERS = {
    int: ints,
    float: floats,
    bool: truths,
    str: texts,
    int | None: either(ints, nothing),
    str | None: either(texts, nothing),
    float | None: either(floats, nothing),
    int | str: either(ints, texts),
    bool | int | float | str | None: either(truths, ints, floats, texts, nothing),
    tuple[int, ...]: several(ints, tuple),
    tuple[str, ...]: several(texts, tuple),
    tuple[bool, float]: lambda rng: (truths(rng), floats(rng)),
    tuple[tuple[int, str], ...]: several(lambda rng: (ints(rng), texts(rng)), tuple),
    tuple[()]: lambda rng: (),
    tuple: several(anything, tuple),
    list[int]: several(ints, list),
    list[str]: several(texts, list),
    list[list[float]]: several(several(floats, list), list),
    list[tuple[int, ...]]: several(several(ints, tuple), list),
    tuple[list[int], ...]: several(several(ints, list), tuple),
    list: several(anything, list),
    list[int] | tuple[int, ...]: either(several(ints, list), several(ints, tuple)),
    list[int] | None: either(several(ints, list), nothing),
    dict[str, int]: pairs(texts, ints),
    dict[int, str]: pairs(ints, texts),
    dict[tuple[int, ...], list[Color]]: pairs(
        several(ints, tuple), several(lambda rng: rng.choice(list(Color)), list)
    ),
    dict: pairs(texts, anything),
    Literal["a", "none", 1, True, None]: lambda rng: rng.choice(
        ["a", "none", 1, True, None]
    ),
    Literal[Color.RED]: lambda rng: Color.RED,
    Color: lambda rng: rng.choice(list(Color)),
    Level: lambda rng: rng.choice(list(Level)),
    Kind: lambda rng: Kind.A,
    Color | None: either(lambda rng: Color.BLUE, nothing),
    Color | Level: either(lambda rng: Color.RED, lambda rng: Level.HIGH),
    tuple[Color, ...]: several(lambda rng: rng.choice(list(Color)), tuple),
    Any: either(anything, several(anything, tuple), pairs(texts, anything)),
}


def task_of(kind, default):
    def fresh():
        return default

    field = ("x", kind, dataclasses.field(default_factory=fresh))
    made = dataclasses.make_dataclass("Made", [field], bases=(Bare,), frozen=True)
    made.__module__ = __name__
    return made


@pytest.mark.parametrize("kind", MAKERS, ids=str)
def test_what_was_recorded_comes_back(tmp_path, monkeypatch, kind):
    """Created with a value, recorded, completed, created again: the same value."""
    rng = random.Random(str(kind))
    for number in range(60):
        value = MAKERS[kind](rng)
        cls = task_of(kind, value)
        monkeypatch.setitem(globals(), "Made", cls)
        tasks.check(cls())
        directory = tmp_path / str(number)
        directory.mkdir()
        choices = options.RunOptions(task=f"{__name__}:Made", run_dir=str(directory))
        noted = run_record.settle(choices, cls().hyperparameters(), {})
        run_record.write(RunDirectory(directory), noted)
        assert run_record.settle(choices, cls().hyperparameters(), {}) == noted
        other = task_of(kind, object())  # the default is another one by now
        monkeypatch.setitem(globals(), "Made", other)
        whole = completion.complete(choices, {"task", "run_dir"})
        again = tasks.of(whole, package="models")
        assert values.same(again.x, value), (again.x, value)


def refused(*parts):
    return pytest.raises(
        options.ConfigError, match="(?s)" + ".*".join(map(re.escape, parts))
    )


@pytest.mark.parametrize(
    ("kind", "value", "parts"),
    [
        (Any, Color.RED, ["Any", "Color.RED is not in the type Any", "such as x: str"]),
        (Any, np.float32(0.5), ["numpy.float32", "such as x: float = 0.5"]),
        (float, np.float64(0.5), ["float (", "such as x: float = 0.5"]),
        (set[int], {1}, ["set[int]", "such as x: tuple[int, ...] = (1,)"]),
        (bytes, b"a", ["bytes", "builtins.bytes is not among the types"]),
        (int, 1 << 20_000, ["is too large"]),
        (list, [object()], ["builtins.object is not among"]),
        (int, "a", [" is 'a' of type str, and declared as int. Give a value of"]),
        (
            tuple[int, str],
            (1, 2),
            ["is (1, 2) of type tuple, and declared as tuple[int"],
        ),
        (Literal["a"], "b", ["and declared as Literal['a']"]),
        (bool, 1, [" is 1 of type int, and declared as bool"]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_could_not_come_back_is_refused_with_what_mends_it(kind, value, parts):
    with refused("Made.x", *parts):
        tasks.check(task_of(kind, value)())


def test_a_list_that_holds_itself_is_refused():
    endless: list[Any] = []
    endless.append(endless)
    with refused("Made.x can't be recorded"):
        tasks.check(task_of(Any, endless)())


def test_a_default_that_its_own_type_leaves_out_is_let_pass():
    """Many write `name: str = None`; it comes back as what it is."""

    @dataclasses.dataclass(frozen=True)
    class Sloppy(Bare):
        name: str = None  # type: ignore[assignment]
        rate: float = 1

    tasks.check(Sloppy())


@dataclasses.dataclass(frozen=True)
class Base(Bare):
    width: int = 3


class Undecorated(Bare):
    width: int = 3


class Inherits(Base):
    width: int = 5


class WithInit(Bare):
    def __init__(self, width=3):
        super().__init__()


class Mixin:
    depth: int = 2


@dataclasses.dataclass(frozen=True)
class Mixed(Mixin, Base):
    pass


@dataclasses.dataclass(frozen=True)
class Hidden(Bare):
    width: dataclasses.InitVar[int] = 3


@dataclasses.dataclass(frozen=True)
class Doubling(Bare):
    width: int = 3

    def __post_init__(self):
        object.__setattr__(self, "width", 2 * self.width)


class Fine(Base):
    """Adds nothing that a run should record."""

    best = ("loss:max",)
    table: ClassVar[dict[str, int]] = {}


@dataclasses.dataclass(frozen=True)
class Derived(Bare):
    width: int = 3
    double: int = dataclasses.field(init=False, default=0)

    def __post_init__(self):
        object.__setattr__(self, "double", 2 * self.width)


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (Undecorated, "Undecorated declares width and is no dataclass, so that would"),
        (Undecorated, "above the class: @dataclasses.dataclass(frozen=True). What is"),
        (Inherits, "Inherits declares width and is no dataclass"),
        (Mixed, "Mixin declares depth and is no dataclass"),
        (WithInit, "WithInit.__init__ takes width, which no run would record."),
        (Hidden, "Hidden.width is an InitVar, which no run can record."),
        (Doubling, "Doubling.width is 6, and a task made with that has 12: a later"),
    ],
)
def test_what_would_be_ignored_is_refused(cls, text):
    with refused(text):
        tasks.create(f"{__name__}:{cls.__name__}", [], package="models", trust=True)


@pytest.mark.parametrize("cls", [Fine, Derived])
def test_what_no_run_need_record_is_let_pass(cls):
    name = f"{__name__}:{cls.__name__}"
    made = tasks.create(name, ["width=4"], package="models", trust=True)
    assert made.hyperparameters() == {"width": 4}


@dataclasses.dataclass(frozen=True)
class Typed(Bare):
    color: Color = Color.RED
    mode: Literal["a", "none", 1] = "a"
    grid: tuple[tuple[int, ...], ...] = ()
    sizes: list[int] = dataclasses.field(default_factory=list)
    table: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    colors: tuple[Color, ...] = ()
    what: Any = None


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("color=BLUE", Color.BLUE),
        ("mode=none", "none"),
        ("mode=1", 1),
        ("grid=[[1, 2], [3]]", ((1, 2), (3,))),
        ("sizes=1,2", [1, 2]),
        ("sizes=[1, 2]", [1, 2]),
        ("sizes=", []),
        ('table={"a": [1, 2]}', {"a": (1, 2)}),
        ("colors=RED,BLUE", (Color.RED, Color.BLUE)),
        ('colors=["RED"]', (Color.RED,)),
        ('what:={"a": [1]}', {"a": (1,)}),
    ],
)
def test_a_setting_of_any_type(setting, value):
    name = f"{__name__}:Typed"
    made = tasks.create(name, [setting], package="models", trust=True)
    assert values.same(getattr(made, setting.partition("=")[0].rstrip(":")), value)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("color=GREEN", "--set=color=GREEN: 'GREEN' is none of RED, BLUE."),
        ("mode=b", "'b' is none of a, none, 1."),
        ("grid=1", "'1' is not JSON, such as --set='grid=[[1, 2], [3]]'"),
        ("what=1", "type Any can't be given as text; give its value as JSON, such as"),
        ("sizes=[1, 2.5]", "[1, 2.5] is no list[int]"),
    ],
)
def test_a_setting_that_no_type_has_is_told(setting, text):
    with refused(text):
        tasks.create(f"{__name__}:Typed", [setting], package="models", trust=True)
