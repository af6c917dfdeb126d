"""A module knows only what lies below it: that is what keeps each one small."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
LAYERS = [
    "compat compat.autograph compat.datasets compat.events compat.networks "
    "compat.tracking errors",
    "model.audit model.ema storage.failpoints figures training.preemption "
    "checkpoint.retention checkpoint.snapshot task checkpoint.reader "
    "commands.console",
    "config.options data training.progress storage.files",
    "config.values config.task_name config.program",
    "config.settings config.comparison config.lookup",
    "reporting.event_rollback config.tasks config.flagfile storage.checked_json "
    "data.stream reporting.event_file",
    "checkpoint.manifest config.run_record reporting.reporter",
    "checkpoint.catalog checkpoint.compatibility checkpoint.shards model.state",
    "inspection.diff inspection.rows model.prediction model.steps "
    "model.weights checkpoint.upkeep",
    "commands.answers checkpoint.store inspection.proof exporting.roundtrip",
    "inference.restore checkpoint.saver",
    "training.run",
    "inference.loaded training.resume",
    "inference.average inference.evaluate exporting.exporter training.loop",
    "commands.training commands.inference",
    "commands.cli",
    "__main__",
]
LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names.split()}
LIGHT = [
    "storage.files",
    "checkpoint.manifest",
    "checkpoint.retention",
    "config.options",
    "config.program",
    "config.run_record",
    "config.comparison",
    "config.flagfile",
    "config.settings",
    "config.task_name",
    "config.values",
    "checkpoint.catalog",
    "inspection.rows",
    "reporting.event_rollback",
    "training.preemption",
    "training.progress",
    "checkpoint.upkeep",
    "commands.console",
    "commands.answers",
    "storage.checked_json",
    "commands.training",
    "commands.inference",
    "commands.cli",
]

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
    found = set()
    for name in imported(tree):
        word = name.removeprefix("trainer.") if name.startswith("trainer.") else ""
        while word and word not in LAYER:
            word = word.rpartition(".")[0]
        found |= {word} - {""}
    return found


def lines_with(tree, kind, test=lambda node: True):
    return [n.lineno for n in ast.walk(tree) if isinstance(n, kind) and test(n)]


def test_every_module_has_a_layer():
    named = {name.removesuffix(".__init__") for name in TREES if TREES[name].body}
    unknown = sorted(named - LAYER.keys() - {"__init__"})
    assert not unknown, f"give these a place in LAYERS, or another home: {unknown}"


@pytest.mark.parametrize("name", LAYER)
def test_a_module_imports_only_from_layers_below_its_own(name):
    tree = TREES.get(name) or TREES[f"{name}.__init__"]
    known = own_modules(tree) - {name}
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
    assert bool(lines) == (name == "model.steps"), f"{name}: {lines}"


@pytest.mark.parametrize("name", LIGHT)
def test_what_answers_at_once_does_not_wait_for_tensorflow(name):
    words = imported(TREES[name], anywhere=False)
    heavy = [word for word in words if word.split(".")[0] in ("tensorflow", "keras")]
    assert not heavy, f"{name} imports {heavy} with itself"


def test_importing_what_answers_at_once_leaves_tensorflow_out():
    modules = ", ".join(f"trainer.{name}" for name in LIGHT)
    code = f"import sys, {modules}; print(*sys.modules)"
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
    assert name == "commands.console" or not lines, (
        f"{name}.py prints in the lines {lines}"
    )


@every_module
def test_what_must_hold_is_not_left_to_assert(name):
    """`python -O` takes asserts away; an error says what to do."""
    lines = lines_with(TREES[name], ast.Assert)
    assert not lines, f"{name}.py asserts in the lines {lines}"


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
    assert "training.loop" in own_modules(ast.parse(text))


def test_an_import_inside_a_function_is_not_one_of_the_module():
    tree = ast.parse("def f():\n  import keras\nif True:\n  import tensorflow.io")
    assert list(imported(tree, anywhere=False)) == ["tensorflow.io"]
