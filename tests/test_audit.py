"""What a traced function changes and no checkpoint would hold, by name."""

import itertools
import re

import keras
import pytest
import tasks
import tensorflow as tf

from trainer.model import audit

SCALAR = tf.TensorSpec([], tf.float32)
SAVED = (
    "What is a variable, a layer or a table is saved if the task gives it: def state("
    'self, networks): return {"some_name": it}. A metric belongs into metrics(self).'
)
RANDOM = (
    "Random numbers that resume come from the seeds that augment() gets (data.uniform, "
    "tf.random.stateless_*), from keras.random, or from "
    "tf.random.get_global_generator(), which are in the checkpoint."
)
PYTHON = (
    "What Python keeps between steps is lost with the process: write the function with "
    "TensorFlow ops, or apply it to the data beforehand."
)


def found(function, *signature, given=None):
    concrete = tf.function(function).get_concrete_function(*signature)
    tree = tf.train.Checkpoint(**(given or {}))
    return audit.examine(concrete, tree)


def nested(inner):
    """Calls `inner` through everything that puts code into a function of its own."""

    def branch(x):
        return tf.cond(x > 0, lambda: tf.ensure_shape(inner(x), []), lambda: x)

    def chosen(x):
        return tf.switch_case(tf.cast(x > 0, tf.int32), [lambda: x, lambda: branch(x)])

    def repeated(x):
        (x,) = tf.while_loop(lambda x: x < 3, lambda x: (chosen(x) + 1,), [x])
        return x

    def mapped(x):
        return tf.map_fn(repeated, tf.fill([2], x))

    called = tf.function(mapped)

    @tf.recompute_grad
    def recomputed(x):
        return tf.reduce_sum(called(x))

    return recomputed


# Variables and other resources.


@pytest.mark.parametrize(
    ("variable", "what"),
    [
        (lambda: tf.Variable(0.0, name="total"), "total:0 () float32"),
        (lambda: tf.Variable(tf.zeros([2, 3]), name="m"), "m:0 (2, 3) float32"),
        (lambda: tf.Variable(1, dtype=tf.int64, name="n"), "n:0 () int64"),
        (lambda: keras.Variable([0.5], name="k").value, "k:0 (1,) float32"),
    ],
)
def test_a_variable_is_named_with_its_shape_its_type_and_its_use(variable, what):
    variable = variable()

    def function():
        variable.assign(variable + tf.ones([], variable.dtype))

    (finding,) = found(function)
    assert re.fullmatch(
        rf"the variable {re.escape(what)}, used by '\S*ReadVariableOp\S*'", finding.what
    )
    assert finding.remedy == SAVED
    assert found(function, given={"it": variable}) == []


def test_a_variable_deep_inside_is_found():
    variable = tf.Variable(0.0, name="deep")
    function = nested(lambda x: x + variable.assign_add(1.0))
    (finding,) = found(function, SCALAR)
    assert finding.what.startswith("the variable deep:0 () float32, used by '")
    assert found(function, SCALAR, given={"it": variable}) == []


def test_each_variable_is_found_once_and_in_any_corner_of_the_tree():
    one, two = tf.Variable(0.0, name="one"), tf.Variable(0.0, name="two")

    def function():
        one.assign_add(two)
        one.assign_add(two)

    assert sorted(f.what.split()[2] for f in found(function)) == ["one:0", "two:0"]
    corner = tf.train.Checkpoint(deep=[tf.train.Checkpoint(one=one)])
    (finding,) = found(function, given={"corner": corner})
    assert finding.what.startswith("the variable two:0")


def test_a_variable_that_is_only_read_could_change_elsewhere_and_is_found():
    variable = tf.Variable(2.0, name="scale")
    assert len(found(lambda: variable * 2)) == 1


def test_tensors_that_are_captured_are_no_state():
    constant = tf.constant([1.0, 2.0])
    assert found(lambda: constant * 2) == []


def mutable():
    return tf.lookup.experimental.MutableHashTable(tf.int32, tf.float32, 0.0)


def static():
    initial = tf.lookup.KeyValueTensorInitializer([1], [2.0])
    return tf.lookup.StaticHashTable(initial, 0.0)


@pytest.mark.parametrize("make", [static, mutable])
@pytest.mark.parametrize("wrap", [nested, lambda inner: inner], ids=["deep", "plain"])
def test_a_table_that_is_only_read_is_no_state(make, wrap):
    table = make()
    assert found(wrap(lambda x: x + table.lookup(tf.constant([1]))[0]), SCALAR) == []


def by_call(x, write):
    return tf.function(write)(x)


def by_cond(x, write):
    return tf.cond(x > 0, lambda: x, lambda: write(x))


def by_case(x, write):
    return tf.switch_case(tf.cast(x > 0, tf.int32), [lambda: x, lambda: write(x)])


def by_loop(x, write):
    for _ in tf.range(3):
        x = write(x)
    return x


def deep(x, write):
    return nested(write)(x)


@pytest.mark.parametrize("first_read", [False, True])
@pytest.mark.parametrize(
    "way", [lambda x, write: write(x), by_call, by_cond, by_case, by_loop, deep]
)
def test_a_table_that_is_written_anywhere_is_found(way, first_read):
    """Where it is read before, the order of the two is an edge of the graph, too."""
    table = mutable()

    def write(x):
        table.insert([1], tf.reshape(x, [1]))
        return x

    def function(x):
        return way(x + table.lookup(tf.constant([1]))[0] if first_read else x, write)

    (finding,) = found(function, SCALAR)
    assert re.match(r"the resource .+, used by '\S+'$", finding.what, re.S)
    assert finding.remedy == SAVED
    assert found(function, SCALAR, given={"table": table}) == []


def test_an_iterator_that_is_not_in_the_tree_is_found():
    iterator = iter(tf.data.Dataset.range(9))
    (finding,) = found(lambda: iterator.get_next())
    assert finding.what.startswith("the resource ")
    assert finding.what.endswith("used by 'IteratorGetNext'")
    assert found(lambda: iterator.get_next(), given={"input": iterator}) == []


def test_a_generator_is_a_variable():
    generator = tf.random.Generator.from_seed(1, alg="philox")
    function = nested(lambda x: x + generator.normal([]))
    (finding,) = found(function, SCALAR)
    assert finding.what.startswith("the variable StateVar:0 (3,) int64, used by '")
    assert found(function, SCALAR, given={"it": generator}) == []


# Ops with a state of their own.

OPS = [
    ("RandomStandardNormal", lambda x: x + tf.random.normal([], seed=1), RANDOM),
    ("RandomUniform", lambda x: x + tf.random.uniform([], seed=1), RANDOM),
    (
        "RandomUniformInt",
        lambda x: x + tf.cast(tf.random.uniform([], 0, 9, tf.int32, 1), tf.float32),
        RANDOM,
    ),
    (
        "RandomShuffle",
        lambda x: x + tf.random.shuffle(tf.range(3.0), seed=1)[0],
        RANDOM,
    ),
    (
        "Multinomial",
        lambda x: x + tf.cast(tf.random.categorical([[0.0]], 1, seed=1)[0, 0], x.dtype),
        RANDOM,
    ),
    (
        "RandomGammaV2|RandomGamma",
        lambda x: x + tf.random.gamma([], 1.0, seed=1),
        RANDOM,
    ),
    ("EagerPyFunc", lambda x: x + tf.py_function(lambda: 1.0, [], tf.float32), PYTHON),
    ("PyFunc", lambda x: x + tf.numpy_function(lambda: 1.0, [], tf.float32), PYTHON),
    (
        "PyFuncStateless",
        lambda x: x + tf.numpy_function(lambda: 1.0, [], tf.float32, stateful=False),
        PYTHON,
    ),
]


@pytest.mark.parametrize("wrap", [nested, lambda inner: inner], ids=["deep", "plain"])
@pytest.mark.parametrize(("op", "inner", "remedy"), OPS, ids=[row[0] for row in OPS])
def test_an_op_with_a_hidden_state_is_found(op, inner, remedy, wrap):
    findings = found(wrap(inner), SCALAR)
    assert findings
    for finding in findings:
        what = (
            r" \(tf\.py_function or tf\.numpy_function\)"
            if remedy is PYTHON
            else ", which has a hidden state of its own,"
        )
        assert re.fullmatch(rf"the op (?:{op}){what} '\S+' in .+", finding.what)
        assert finding.remedy == remedy
    if wrap is not nested:
        assert findings[0].what.endswith(" in the train loop")


@pytest.mark.parametrize(
    "inner",
    [
        lambda x: x + tf.random.stateless_normal([], seed=[1, 2]),
        lambda x: x + keras.random.normal([], seed=7),
        lambda x: tf.debugging.check_numerics(x, "bad"),
        lambda x: x + tf.cast(tf.timestamp(), tf.float32) * 0,
        lambda x: tf.reduce_sum(tf.TensorArray(tf.float32, 1).write(0, x).stack()),
        lambda x: tf.linalg.global_norm([x, tf.nn.dropout(x, 0.0)]),
    ],
)
@pytest.mark.parametrize("wrap", [nested, lambda inner: inner], ids=["deep", "plain"])
def test_what_has_no_state_is_not_found(inner, wrap):
    assert found(wrap(inner), SCALAR) == []


def test_printing_and_asserting_are_no_state():
    def function(x):
        tf.print("x", x)
        tf.debugging.Assert(x > 0, [x])
        return x

    assert found(function, SCALAR) == []
    assert found(nested(function), SCALAR) == []


def numbers(function=lambda x: x):
    return tf.data.Dataset.range(9).map(function)


def test_the_functions_of_a_stream_are_looked_at_too():
    (finding,) = audit.examine_stream(
        numbers(lambda x: tf.random.normal([], seed=1)).batch(2)
    )
    assert finding.what.startswith("the op RandomStandardNormal, which has a hidden")
    assert finding.what.endswith(" in the input stream")


def test_what_the_iterator_of_a_stream_saves_is_not_found():
    inner = lambda x: tf.data.Dataset.range(x)  # noqa: E731
    for stream in (numbers().shuffle(3), numbers().interleave(inner)):
        assert audit.examine_stream(stream.flat_map(inner)) == []


def test_a_shuffle_inside_a_stream_has_a_hidden_state():
    stream = numbers().flat_map(lambda x: tf.data.Dataset.range(x + 1).shuffle(3))
    assert audit.examine_stream(stream)


def test_an_evaluation_that_is_shuffled_anew_is_found():
    (finding,) = audit.examine_evaluated(numbers().shuffle(3, seed=1).take(2))
    assert finding.what == (
        "the order of the examples to evaluate, which shuffle() draws anew each time"
    )
    assert "reshuffle_each_iteration=False" in finding.remedy
    fixed = numbers().shuffle(3, seed=1, reshuffle_each_iteration=False)
    assert audit.examine_evaluated(fixed) == []


def test_random_numbers_in_the_data_of_an_evaluation_are_found():
    (finding,) = audit.examine_evaluated(
        numbers(lambda x: tf.random.uniform([], seed=1)).batch(2)
    )
    assert finding.what.endswith(" in the evaluation's input")


def test_a_generator_may_give_what_is_evaluated():
    given = tf.data.Dataset.from_generator(
        lambda: iter([1, 2]), output_signature=tf.TensorSpec([], tf.int64)
    )
    assert audit.examine_evaluated(given.batch(2)) == []
    found = [finding.what for finding in audit.examine_stream(given)]
    assert any(
        what.startswith("the op GeneratorDataset (from_generator)") for what in found
    )


def test_a_generator_with_a_memory_may_not():
    numbers = itertools.count()
    given = tf.data.Dataset.from_generator(
        lambda: iter([next(numbers), next(numbers)]),
        output_signature=tf.TensorSpec([], tf.int64),
    )
    (finding,) = audit.examine_evaluated(given.batch(2).prefetch(1))
    assert finding.what == (
        "what Python gives to evaluate, which is something else each time"
    )
    assert finding.remedy.startswith("A generator must begin anew each time")


def test_a_python_function_with_a_memory_may_not():
    numbers = itertools.count()

    def counted(x):
        return tf.py_function(lambda x: x + next(numbers), [x], tf.int64)

    (finding,) = audit.examine_evaluated(numbers_of(counted))
    assert "something else each time" in finding.what
    same = numbers_of(lambda x: tf.py_function(lambda x: x + 1, [x], tf.int64))
    assert audit.examine_evaluated(same) == []


def numbers_of(function):
    return tf.data.Dataset.range(9).map(function).batch(2)


def writers():
    total = tf.Variable(0, dtype=tf.int64, name="total")
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, 0)
    generator = tf.random.Generator.from_seed(1, alg="philox")

    def insert(x):
        table.insert(x[None], x[None])
        return x

    return {
        "a variable": (lambda x: x + total.assign_add(1), "the variable total:0 "),
        "a table": (insert, "the resource "),
        "a generator": (
            lambda x: generator.uniform([], 0, 9, tf.int64),
            "the variable StateVar:0 ",
        ),
        "deep inside": (
            lambda x: tf.cond(x > 3, lambda: total.assign_add(x), lambda: x),
            "the variable total:0 ",
        ),
    }


@pytest.mark.parametrize("name", writers())
def test_what_a_dataset_changes_while_it_is_read_is_found(name):
    function, what = writers()[name]
    nested = tf.data.Dataset.range(2).flat_map(
        lambda n: tf.data.Dataset.range(n).map(function)
    )
    for dataset in (numbers_of(function), nested):
        for examine in (audit.examine_evaluated, audit.examine_stream):
            (finding,) = examine(dataset)
            assert finding.what.startswith(what)
            assert ", which is changed in the " in finding.what
            assert "count and draw in augment() or values()" in finding.remedy


def test_what_a_dataset_only_reads_is_not_found():
    scale = tf.Variable(2, dtype=tf.int64)
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, 0)
    dataset = numbers_of(lambda x: x * scale + table.lookup(x))
    assert audit.examine_evaluated(dataset) == []
    assert audit.examine_stream(dataset) == []


def test_what_is_evaluated_may_not_be_written_by_the_way(tmp_path):
    dataset = tf.data.Dataset.range(3).cache(str(tmp_path / "kept")).batch(2)
    (finding,) = audit.examine_evaluated(dataset)
    assert finding.what == (
        f"the cache('{tmp_path / 'kept'}') in the evaluation's input"
    )
    assert list(tmp_path.iterdir()) == [], "it was not opened"
    assert audit.examine_evaluated(tf.data.Dataset.range(3).cache()) == []


def insert(table, x):
    table.insert([1], x[None])
    return x


def test_an_iterator_that_an_evaluation_moves_on_is_found():
    iterator = iter(tf.data.Dataset.range(9))
    traced = tf.function(lambda: iterator.get_next()).get_concrete_function()
    tree = tf.train.Checkpoint(input=iterator)
    assert audit.examine(traced, tree) == []
    (finding,) = audit.examine_evaluation(traced, tree)
    assert finding.what.endswith(", which the evaluation moves on")
    assert "can't be put back after an evaluation" in finding.remedy
    table = mutable()
    traced = tf.function(lambda x: insert(table, x)).get_concrete_function(SCALAR)
    tree = tf.train.Checkpoint(table=table)
    assert audit.examine_evaluation(traced, tree) == []


# The message.


def test_the_message_has_each_finding_and_each_remedy_once():
    findings = [
        audit.Finding("the variable a", "Give it."),
        audit.Finding("the op B", "Leave it."),
        audit.Finding("the variable c", "Give it."),
    ]
    assert audit.describe(iter(findings)) == (
        "this task can't be resumed exactly: training changes what no checkpoint "
        "holds.\n"
        "  the variable a\n"
        "  the op B\n"
        "  the variable c\n"
        "Give it.\n"
        "Leave it.\n"
        "Or give --allow_inexact to train all the same."
    )


def test_the_whole_state_of_a_task_is_reachable():
    """The train loop itself, on the task that has the most state."""
    from trainer.model import steps

    task = tasks.Rich()
    current = tasks.built(task)
    loop = steps.TrainLoop(task, current, tasks.inputs(task))
    assert audit.examine(loop.traced, current.tree) == []
    less = tf.train.Checkpoint(
        **{
            name: child
            for name, child in current.tree._trackable_children().items()
            if name not in ("step", "save_counter")
        }
    )
    (finding,) = audit.examine(loop.traced, less)
    assert finding.what.startswith("the variable step:0 () int64, used by '")
