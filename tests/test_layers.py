"""A module knows only what lies below it: that is what keeps each one small."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
LAYERS = [
    "tracing",
    "audit ema faults figures preemption retention snapshot task tensors terminal",
    "config data records storage",
    "events lookup sealed stream summaries",
    "manifest record reporting",
    "catalog compatibility shards state",
    "difference inspection prediction steps transfer upkeep",
    "answers checkpoints proof reload",
    "restore saving",
    "parts",
    "restored resume",
    "averaging evaluation export loop",
    "commands uses",
    "cli",
]
LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names.split()}
LIGHT = ["storage", "manifest", "retention", "config", "record", "catalog"]
LIGHT += [
    "inspection",
    "events",
    "preemption",
    "records",
    "upkeep",
    "terminal",
    "answers",
]
LIGHT += ["sealed", "commands", "uses", "cli"]

TREES = {
    ".".join(path.relative_to(ROOT / "trainer").with_suffix("").parts): ast.parse(
        path.read_text(encoding="utf-8"), str(path)
    )
    for path in sorted((ROOT / "trainer").rglob("*.py"))
}
every_module = pytest.mark.parametrize("name", TREES)


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
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from at_import(child)


def own_modules(tree):
    """The modules of trainer/ among what is imported."""
    words = [name.split(".") for name in imported(tree)]
    second = {word[1] for word in words if word[0] == "trainer" and len(word) > 1}
    return {name for name in second if name in LAYER or name in TREES}


def lines_with(tree, kind, test=lambda node: True):
    return [n.lineno for n in ast.walk(tree) if isinstance(n, kind) and test(n)]


def test_every_module_has_a_layer():
    unknown = sorted(TREES.keys() - LAYER.keys() - {"__init__"})
    assert not unknown, f"give these a place in LAYERS, or another home: {unknown}"


@pytest.mark.parametrize("name", [name for name in TREES if name in LAYER])
def test_a_module_imports_only_from_layers_below_its_own(name):
    known = own_modules(TREES[name])
    wrong = [other for other in known if LAYER.get(other, 99) >= LAYER[name]]
    assert not wrong, f"{name} is in layer {LAYER[name]} and imports {sorted(wrong)}"


def test_the_package_itself_imports_none_of_its_modules():
    """Anyone may import it, for its version."""
    assert not own_modules(TREES["__init__"])


@every_module
def test_the_framework_does_not_know_the_models(name):
    roots = {word.split(".")[0] for word in imported(TREES[name])}
    assert "models" not in roots


@every_module
def test_gradients_are_taken_in_one_place(name):
    tree = TREES[name]
    lines = lines_with(tree, ast.Attribute, lambda node: node.attr == "GradientTape")
    lines += [word for word in imported(tree) if word.endswith(".GradientTape")]
    assert bool(lines) == (name == "steps"), f"{name}: {lines}"


@pytest.mark.parametrize("name", LIGHT)
def test_what_answers_at_once_does_not_wait_for_tensorflow(name):
    words = imported(TREES[name], anywhere=False)
    heavy = [word for word in words if word.split(".")[0] in ("tensorflow", "keras")]
    assert not heavy, f"{name} imports {heavy} with itself"


def test_importing_what_answers_at_once_leaves_tensorflow_out():
    code = f"import sys; from trainer import {', '.join(LIGHT)}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    modules = set(done.stdout.split())
    assert {f"trainer.{name}" for name in LIGHT} <= modules, done.stderr
    assert not {"tensorflow", "keras", "jax", "torch"} & modules


@every_module
def test_only_the_terminal_prints(name):
    def prints(call):
        return isinstance(call.func, ast.Name) and call.func.id == "print"

    lines = lines_with(TREES[name], ast.Call, prints)
    assert name == "terminal" or not lines, f"{name}.py prints in the lines {lines}"


@every_module
def test_what_must_hold_is_not_left_to_assert(name):
    """`python -O` takes asserts away; an error says what to do."""
    lines = lines_with(TREES[name], ast.Assert)
    assert not lines, f"{name}.py asserts in the lines {lines}"


@pytest.mark.parametrize(
    "text",
    [
        "import trainer.loop",
        "import trainer.loop as story",
        "from trainer import catalog, loop",
        "from trainer.loop import train",
        "from . import loop",
        "from .loop import train",
        "def f():\n  from trainer import loop",
    ],
)
def test_no_form_of_import_escapes(text):
    assert "loop" in own_modules(ast.parse(text))


def test_an_import_inside_a_function_is_not_one_of_the_module():
    tree = ast.parse("def f():\n  import keras\nif True:\n  import tensorflow.io")
    assert list(imported(tree, anywhere=False)) == ["tensorflow.io"]
