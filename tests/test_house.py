"""The rules of the house: what may know what, and how large a room may be.

A district is a folder of `trainer`, or a file beside them. It knows only districts on
floors below its own: that is what keeps each one small.
"""

import ast
import pathlib
import subprocess
import sys

import processes
import pytest

import trainer

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLOORS = [
    "base compat figures storage",
    "task",
    "checkpoint data reporting",
    "config distribute inspection model",
    "inference training",
    "exporting",
    "commands",
    "__main__",
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 250, 40
# Importing these brings TensorFlow; the others answer at once.
HEAVY = {
    *(
        "commands.functions",
        "compat",
        "data",
        "distribute",
        "exporting",
        "figures",
        "inference",
    ),
    *("model", "task", "checkpoint.environment", "checkpoint.fit_callback"),
    *("checkpoint.keeper", "checkpoint.reader", "checkpoint.saver"),
    *("checkpoint.shards", "checkpoint.snapshot", "checkpoint.store"),
    *("checkpoint.tree", "checkpoint.writer", "config.lookup", "config.tasks"),
    *("config.chosen_hooks", "training.listeners"),
    *("training.plateau", "training.saving"),
    *("inspection.diff", "inspection.proof", "inspection.repair"),
    *("reporting.event_file", "reporting.event_positions", "reporting.reporter"),
    *("training.facts", "training.loop", "training.resume", "training.run"),
}

PATHS = {
    ".".join(path.relative_to(ROOT / "trainer").with_suffix("").parts): path
    for path in sorted((ROOT / "trainer").rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in PATHS.items()}
MODULES = {name.removesuffix(".__init__") for name in TREES} - {"__init__"}


def district(name):
    return name.partition(".")[0]


def imported(tree, *, anywhere=True):
    """Dotted names of all that is imported, by any form of `import`."""
    nodes = ast.walk(tree) if anywhere else at_import(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = "trainer" if node.level else ""
            base = ".".join(filter(None, [package, node.module]))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def at_import(node):
    """The nodes that run when the module is imported."""
    yield node
    typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    if not isinstance(node, functions) and not typing_only:
        for child in ast.iter_child_nodes(node):
            yield from at_import(child)


def own(tree, **which):
    """The modules of trainer/ among what is imported."""
    found = set()
    for name in imported(tree, **which):
        word = name.removeprefix("trainer.") if name.startswith("trainer.") else ""
        while word and word not in MODULES:
            word = word.rpartition(".")[0]
        found |= {word} - {""}
    return found


def offenders(kind, test=lambda node: True):
    return {
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, kind) and test(node)
    }


def test_nothing_inside_goes_out_by_the_front_door():
    """Or the public face, which is on the top floor, would be below everything."""
    found = {name for name, tree in TREES.items() if "trainer" in imported(tree)}
    assert found == set()


def test_every_district_has_a_floor_and_all_together_are_few():
    districts = {district(name) for name in MODULES}
    assert districts <= FLOOR.keys()
    others = {"run.py", "models", "benchmarks"}
    assert len(districts | others) <= 20
    assert len(FLOORS) <= 8


def test_a_district_knows_only_those_on_floors_below_its_own():
    wrong = {
        (name, other)
        for name in MODULES
        for other in own(TREES.get(name) or TREES[f"{name}.__init__"])
        if district(name) != district(other)
        and FLOOR[district(name)] <= FLOOR[district(other)]
    }
    assert not wrong


def test_there_is_no_circle():
    knows = {n: own(TREES.get(n) or TREES[f"{n}.__init__"]) - {n} for n in MODULES}
    left = set(MODULES)
    while free := {name for name in left if not knows[name] & left}:
        left -= free
    assert not left


def test_the_package_imports_none_of_its_modules_until_it_is_asked():
    assert not own(TREES["__init__"], anywhere=False)


def test_the_framework_does_not_know_the_models():
    roots = {word.split(".")[0] for tree in TREES.values() for word in imported(tree)}
    assert "models" not in roots


def test_a_module_is_imported_under_its_own_name_and_nothing_hides_it():
    wrong = set()
    for name, tree in TREES.items():
        known = set()
        for node in ast.walk(tree):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            base = getattr(node, "module", None)
            for alias in node.names:
                full = f"{base}.{alias.name}" if base else alias.name
                if full.removeprefix("trainer.") in MODULES and "trainer" in full:
                    known.add(alias.name)
                    if alias.asname and alias.asname != alias.name:
                        wrong.add(f"{name}:{node.lineno} {alias.asname}")
        for node in ast.walk(tree):
            bound = node.arg if isinstance(node, ast.arg) else None
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound = node.id
            if bound in known and not in_class_body(tree, node):
                wrong.add(f"{name}:{node.lineno} {bound}")
    assert not wrong


def in_class_body(tree, node):
    """A field of a dataclass hides nothing: it is reached through its object."""
    fields = {
        id(one.target)
        for cls in ast.walk(tree)
        if isinstance(cls, ast.ClassDef)
        for one in cls.body
        if isinstance(one, ast.AnnAssign)
    }
    return id(node) in fields


def test_no_file_and_no_function_is_too_long():
    files = {
        name
        for name, path in PATHS.items()
        if len(path.read_text("utf-8").splitlines()) > MOST_LINES
    }
    functions = offenders(
        ast.FunctionDef | ast.AsyncFunctionDef,
        lambda one: (
            one.end_lineno - one.lineno - documented(one) >= MOST_LINES_OF_A_FUNCTION
        ),
    )
    assert not files | functions


def documented(function):
    """The lines of a docstring: to explain more is not to do more."""
    first = function.body[0]
    told = ast.get_docstring(function) is not None
    return first.end_lineno - first.lineno + 1 if told else 0


def test_gradients_are_taken_in_one_place():
    lines = offenders(ast.Attribute, lambda node: node.attr == "gradient")
    assert {line.partition(":")[0] for line in lines} == {"model.optimization"}


def test_only_the_console_prints():
    def prints(call):
        return isinstance(call.func, ast.Name) and call.func.id == "print"

    lines = offenders(ast.Call, prints)
    assert {line.partition(":")[0] for line in lines} == {"commands.console"}


def test_what_must_hold_is_not_left_to_assert():
    """`python -O` takes asserts away; an error says what to do."""
    assert not offenders(ast.Assert)


def test_what_answers_at_once_does_not_import_tensorflow():
    light = [
        name
        for name in sorted(MODULES)
        if name not in HEAVY and district(name) not in HEAVY
    ]
    modules = ", ".join(f"trainer.{name}" for name in light if name != "__main__")
    code = f"import sys, {modules}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=processes.PATIENCE_SECS,
    )
    assert "trainer.commands.cli" in done.stdout, done.stderr
    assert not {"tensorflow", "keras", "jax", "torch"} & set(done.stdout.split())


def test_this_is_all_that_is_public():
    assert sorted(trainer.__all__) == [
        "Hook",
        "Keeper",
        "KeeperCallback",
        "KeepstepError",
        "Task",
        "__version__",
        "evaluate",
        "export",
        "predict",
        "register",
        "restore_weights",
        "train",
    ]
    for name in trainer.__all__:
        assert getattr(trainer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'loop_the_loop'"):
        _ = trainer.loop_the_loop


@pytest.mark.parametrize(
    "text",
    [
        "import trainer.training.loop",
        "import trainer.training.loop as story",
        "from trainer.training import preemption, loop",
        "from trainer.training.loop import train",
        "def f():\n  from trainer.training import loop",
    ],
)
def test_no_form_of_import_escapes(text):
    assert "training.loop" in own(ast.parse(text))
