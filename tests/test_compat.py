"""Each private name of TensorFlow, Keras and TensorBoard that `trainer/compat` uses.

When one of them moves, the test that is called like it fails.
"""

import ast
import pathlib
import re
import traceback

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import task
from trainer.compat import autograph, datasets, events, networks, session, tracking

ROOT = pathlib.Path(__file__).resolve().parents[1]
PRIVATE = ("tensorflow.python", "tensorflow.core", "keras.src", "tensorboard")
PUBLIC = ("tensorboard.plugins.hparams.api",)


def absolute(x):
    return x if x > 0 else -x  # over a tensor it needs AutoGraph


def test_autograph_tf_convert():
    """In unconverted code, too."""

    @tf.function(autograph=False)
    def inside(x):
        return autograph.unconverted(lambda y: autograph.converted(absolute)(y))(x)

    assert inside(tf.constant(-3)).numpy() == 3


def test_autograph_do_not_convert():
    @tf.function
    def inside(x):
        return autograph.unconverted(absolute)(x)

    with pytest.raises(TypeError, match=r"symbolic `tf\.Tensor` as a Python `bool`"):
        inside(tf.constant(-3))


def test_autograph_control_status_ctx():
    """Conversion is on within the call, and what it was after it."""
    context = tf.__internal__.autograph.control_status_ctx
    before, seen = context(), []
    autograph.converted(lambda: seen.append(context().status.name))()
    assert seen == ["ENABLED"]
    assert context() is before


def test_autograph_leaves_as_it_is_what_has_no_source():
    source = compile("def double(x): return 2 * x", "<string>", "exec")
    names = {}
    exec(source, names)
    assert autograph.converted(names["double"])(3) == 6


def test_autograph_ag_pass_through():
    class ToldError(Exception):
        """Takes more than a message."""

        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    def refuse(x):
        raise ToldError(1, 2)

    setattr(ToldError, autograph.PASS_THROUGH, True)
    with pytest.raises(ToldError, match=r"^1 and 2$"):
        tf.function(refuse)(tf.constant(1))
    assert getattr(task.TaskError, autograph.PASS_THROUGH)


def test_autograph_conversion_rules_are_those_of_tensorflow():
    from tensorflow.python.autograph.core import config

    names = [str(rule) for rule in config.CONVERSION_RULES]
    assert not any("trainer" in name for name in names), names


def test_autograph_converts_nothing_of_the_framework_but_the_train_loop():
    """Each function more would cost every start of a run its time."""
    import tasks

    from trainer.model import steps

    generated = set()

    @autograph.unconverted
    def look():
        for frame in traceback.extract_stack():
            if "__autograph" in frame.filename and frame.name.startswith("tf__"):
                generated.add(frame.name)

    class Looking(tasks.Light):
        def values(self, networks, batch, training):
            look()
            return super().values(networks, batch, training)

    given = Looking()
    current = tasks.built(given)
    generated.clear()
    assert steps.TrainLoop(given, current, tasks.inputs(given)).traced
    assert generated == {"tf___loop", "tf__values"}


def saved(tree, path):
    return tf.train.load_checkpoint(tf.train.Checkpoint(tree=tree).write(str(path)))


def test_tracking_auto_trackable_and_track_trackable(tmp_path):
    """Under any name, those of methods included."""
    node = tracking.Node()
    for name in ("variables", "0", "root"):
        tracking.track(node, tf.Variable(1.0), name)
    keys = saved(node, tmp_path / "a").get_variable_to_shape_map()
    for name in ("variables", "0", "root"):
        assert f"tree/{name}/.ATTRIBUTES/VARIABLE_VALUE" in keys


def test_tracking_serialize_to_tensors(tmp_path):
    """What is saved is the value, and not what the variable has become."""
    variable = tf.Variable([1.0, 2.0], name="some_name")
    value = tracking.HostValue(variable)
    (value.tensor,) = tracking.read_variables(
        [variable.handle], [variable.dtype.as_datatype_enum]
    )
    variable.assign([3.0, 4.0])
    node = tracking.Node()
    tracking.track(node, value, "x")
    reader = saved(node, tmp_path / "a")
    key = f"tree/x/.ATTRIBUTES/{tracking.VARIABLE_VALUE}"
    assert reader.get_tensor(key).tolist() == [1.0, 2.0]


def test_tracking_shared_name_and_should_act_as_resource_variable(tmp_path):
    """The full name beside the key is the variable's own."""
    variable = tf.Variable(1.0, name="some_name")
    names = []
    for child in (variable, tracking.HostValue(variable)):
        if child is not variable:
            child.tensor = variable.read_value()
        node = tracking.Node()
        tracking.track(node, child, "x")
        reader = saved(node, tmp_path / str(len(names)))
        graph = tracking.object_graph(reader.get_tensor(tracking.OBJECT_GRAPH))
        names.append([a.full_name for one in graph.nodes for a in one.attributes])
    assert names == [["some_name"], ["some_name"]]


@pytest.mark.parametrize("name", tracking.OWN_SAVING)
def test_tracking_own_saving(name):
    assert hasattr(tf.__internal__.tracking.Trackable, name)


def test_tracking_tells_what_saves_itself():
    keys = tf.constant(["a"])
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    table.insert(keys, tf.constant([1], tf.int64))
    assert tracking.saves_itself(table)
    assert tracking.saves_itself(iter(tf.data.Dataset.range(3)))
    assert not tracking.saves_itself(tracking.Node())
    assert not tracking.saves_itself(keras.layers.Dense(1))


@pytest.mark.parametrize(
    ("given", "is_one"),
    [
        (tf.Variable(1), True),
        (keras.layers.Dense(1), True),
        (tf.Module(), True),
        (3, False),
        ("text", False),
        ({}, False),
        ([], False),
        (np.zeros(3), False),
        (keras.metrics.Mean(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tracking_is_trackable(given, is_one):
    assert tracking.is_trackable(given) == is_one


def test_tracking_read_variables_op_and_execute():
    variables = [tf.Variable(1.5), tf.Variable([1, 2]), tf.Variable("text")]
    read = tracking.read_variables(
        [one.handle for one in variables],
        [one.dtype.as_datatype_enum for one in variables],
    )
    assert [np.asarray(one).tolist() for one in read] == [1.5, [1, 2], b"text"]


def test_tracking_trackable_object_graph_pb2_and_the_format(tmp_path):
    reader = saved(tf.train.Checkpoint(x=tf.Variable(1.0)), tmp_path / "a")
    graph = tracking.object_graph(reader.get_tensor(tracking.OBJECT_GRAPH))
    attributes = [a for one in graph.nodes for a in one.attributes]
    assert {a.name for a in attributes} == {tracking.VARIABLE_VALUE}
    assert "tree/x/.ATTRIBUTES/VARIABLE_VALUE" in {a.checkpoint_key for a in attributes}


def test_datasets_inputs():
    made = tf.data.Dataset.zip(
        (tf.data.Dataset.range(3).batch(2), tf.data.Dataset.range(2).repeat())
    )
    names = [type(one).__name__.strip("_") for one in datasets.chain(made)]
    assert sorted(names) == [
        "BatchDataset",
        "RangeDataset",
        "RangeDataset",
        "RepeatDataset",
        "ZipDataset",
    ]


def test_datasets_functions():
    made = tf.data.Dataset.range(3).map(lambda x: tf.sin(tf.cast(x, tf.float32)))
    graph = datasets.functions(made)[0].graph
    assert "Sin" in {node.op for node in graph.as_graph_def().node}


@pytest.mark.parametrize("each", [True, False, None])
def test_datasets_reshuffle_each_iteration(each):
    base = tf.data.Dataset.range(3)
    made = base.shuffle(3, reshuffle_each_iteration=each)
    assert hasattr(made, datasets.RESHUFFLES)
    assert datasets.reshuffles(made) == (each is not False)
    assert not datasets.reshuffles(base)


def test_datasets_iterator_resource():
    """It is what a graph captures that asks the iterator for more."""
    iterator = iter(tf.data.Dataset.range(3))
    traced = tf.function(iterator.get_next).get_concrete_function()
    captured = [one for one, _ in traced.graph.captures]
    assert any(one is datasets.iterator_resource(iterator) for one in captured)
    assert datasets.iterator_resource(tf.Variable(1)) is None


def test_networks_flatten_layers():
    class Pair(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.parts = [keras.layers.Dense(1, name="deep")]

    model = keras.Sequential([keras.Sequential([Pair()], name="inner")], name="outer")
    names = [layer.name for layer in networks.layers_of(model)]
    assert names[0] == "outer"
    assert names.index("inner") < names.index("deep")


def test_networks_global_seed_generator():
    keras.utils.set_random_seed(3)
    state = networks.global_seed_state()
    before = state.numpy().tolist()
    keras.random.normal([2])
    assert state.numpy().tolist() != before
    drawn = np.asarray(keras.random.normal([2]))
    state.assign(before)
    keras.random.normal([2])
    assert np.asarray(keras.random.normal([2])).tolist() == drawn.tolist()


@pytest.mark.parametrize("plugin", ["scalar", "text", "image"])
def test_events_protos_metadata_record_writer_and_accumulator(tmp_path, plugin):
    array = np.float32(0.5) if plugin == "scalar" else np.array([b"1"], object)
    event = events.Event(step=3, wall_time=1.0)
    event.summary.value.extend([events.value(plugin, "tag", array)])
    version = events.record(events.Event(file_version="brain.Event:2"))
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(version + events.record(event))
    read = events.EventAccumulator(str(tmp_path), size_guidance={events.TENSORS: 0})
    read.Reload()
    (found,) = read.Tensors("tag")
    metadata = read.SummaryMetadata("tag")
    name = {"scalar": "scalars", "image": "images", "text": "text"}[plugin]
    assert (found.step, metadata.plugin_data.plugin_name) == (3, name)


def test_networks_initial_epoch():
    model = keras.Sequential([keras.layers.Input([1]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    networks.begin_at_epoch(model, 2)
    x = np.zeros([2, 1])
    assert model.fit(x, x, epochs=4, verbose=0).epoch == [2, 3]
    networks.begin_at_epoch(model, None)
    assert model.fit(x, x, epochs=2, verbose=0).epoch == [0, 1]


def test_session_global_state_seed_and_rng():
    def numbers():
        return [tf.random.uniform([]).numpy(), keras.random.uniform([]).numpy()]

    keras.utils.set_random_seed(3)
    expected = numbers()
    before = keras.layers.Dense(1).name
    keras.utils.set_random_seed(3)
    with session.borrowed():
        keras.utils.clear_session()
        keras.utils.set_random_seed(9)
        assert numbers() != expected
        assert keras.layers.Dense(1).name == "dense"
    assert numbers() == expected
    assert keras.layers.Dense(1).name not in ("dense", before)


def test_session_op_determinism_enabled():
    from tensorflow.python.framework import config

    before = config.is_op_determinism_enabled()
    config.disable_op_determinism()
    with session.borrowed():
        tf.config.experimental.enable_op_determinism()
    assert not config.is_op_determinism_enabled()
    if before:
        tf.config.experimental.enable_op_determinism()


def test_tracking_save_as_and_table_marks(tmp_path):
    table = tf.lookup.experimental.DenseHashTable(tf.int64, tf.int64, -1, -2, -3)
    assert [int(one) for one in tracking.table_marks(table)] == [-2, -3]
    node = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0)
    content = {"-keys": tf.constant(["a"]), "-values": tf.constant([1], tf.int64)}
    tracking.save_as(node, lambda: content)
    path = tf.train.Checkpoint(node=node).write(str(tmp_path / "table"))
    saved = tf.train.load_checkpoint(path)
    (key,) = [k for k in saved.get_variable_to_shape_map() if k.endswith("-keys")]
    assert saved.get_tensor(key).tolist() == [b"a"]


def test_tracking_saved_as_made(tmp_path):
    """A SavedModel holds what is in a table, and the table is saved in order again."""
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, 0)
    table.insert([7], [49])
    tracking.save_as(table, said := lambda: {"-keys": [1], "-values": [2]})
    module = tf.Module()
    module.table = table
    module.squared = tf.function(table.lookup, [tf.TensorSpec([None], tf.int64)])
    with tracking.saved_as_made([table, tf.Variable(0)]):
        tf.saved_model.save(module, str(tmp_path))
    assert tf.saved_model.load(str(tmp_path)).squared([7]).numpy() == [49]
    assert vars(table)["_serialize_to_tensors"] is said


def test_networks_calls_noted():
    """Keras looks `call` up on the layer, of any kind; and only meanwhile."""
    made = keras.Sequential([keras.layers.Input([2]), keras.layers.Dense(1)])
    functional = keras.Model(made.inputs, made.outputs)
    x = tf.ones([3, 2])
    with networks.calls_noted([made, functional, made]) as noted:
        made(x, training=True)
        functional(x[:1])
        made(x[:2])
    made(x[:2])
    assert noted[id(made)].arguments["inputs"].shape == [3, 2]
    assert noted[id(made)].arguments["training"] is True
    assert noted[id(functional)].arguments["inputs"].shape == [1, 2]
    assert "call" not in vars(made)


def test_datasets_batch_size():
    numbers = tf.data.Dataset.range(9)
    for made in (numbers.batch(4), numbers.padded_batch(4)):
        assert datasets.batch_size(made) == 4
    assert datasets.batch_size(numbers.batch(4, num_parallel_calls=2)) == 4
    assert datasets.batch_size(numbers) == 0


def test_datasets_stops_on_empty():
    sample = tf.data.Dataset.sample_from_datasets
    pair = [tf.data.Dataset.range(9), tf.data.Dataset.range(9)]
    for stops in (False, True):
        made = sample(pair, stop_on_empty_dataset=stops)
        assert datasets.stops_on_empty(made) == stops
    assert not datasets.stops_on_empty(pair[0])


def test_datasets_filename(tmp_path):
    numbers = tf.data.Dataset.range(3)
    assert datasets.filename(numbers.cache(str(tmp_path / "x"))) == str(tmp_path / "x")
    assert datasets.filename(numbers.cache()) == ""
    assert datasets.filename(numbers) == ""


def private_names(tree):
    """What a file uses of others that is private, as far as its text tells."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            base = getattr(node, "module", None)
            names = [base] if base else [alias.name for alias in node.names]
            for name in names:
                if name.startswith(PRIVATE) and not name.startswith(PUBLIC):
                    yield node.lineno, name
        elif isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            private = re.match(r"_(?!_)", node.attr) and not own
            if node.attr == "__internal__" or private:
                yield node.lineno, node.attr
        elif isinstance(node, ast.Call):
            by_name = getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr")
            word = getattr(node.args[1], "value", "") if by_name else ""
            if isinstance(word, str) and re.match(r"_(?!_)", word):
                yield node.lineno, word


def test_no_other_file_uses_a_private_name():
    found = []
    for folder in ("trainer", "models"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.parent.name != "compat":
                tree = ast.parse(path.read_text(encoding="utf-8"))
                name = path.relative_to(ROOT)
                found += [f"{name}:{line} {what}" for line, what in private_names(tree)]
    assert not found, "give these a function in trainer/compat: " + ", ".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import tensorflow.python.eager",
        "from tensorflow.python.eager import context",
        "from keras.src import random",
        "x = tf.__internal__.tracking",
        "layer._flatten_layers()",
        "model.layers[0]._layers",
        "getattr(node, '_handle')",
        "from tensorboard.util import tensor_util",
    ],
)
def test_a_private_name_is_seen(text):
    assert list(private_names(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    ["self._layers", "x.__class__", "import keras", "tf.raw_ops.Identity", "keras.a.b"],
)
def test_a_public_name_is_let_pass(text):
    assert not list(private_names(ast.parse(text)))
