"""An export is loaded by a stranger: by the line that is printed, in a fresh process.

What it must say is computed by plain Keras from the checkpoint's own variables.
"""

import contextlib
import http.server
import importlib.metadata
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import warnings

import guides
import numpy as np
import processes
import pytest
import tasks
import tensorflow as tf

import trainer
from models import digits, mnist
from trainer.checkpoint import layout
from trainer.config import options
from trainer.exporting import versions
from trainer.storage import checked_json

# Keras reads arrays for HDF5 in a way that NumPy wants to be done with.
ARRAYS = "ignore:__array__ implementation:DeprecationWarning"
pytestmark = pytest.mark.filterwarnings(ARRAYS)
KINDS = ("saved_model", "keras", "h5", "weights", "tflite")
if importlib.util.find_spec("tf2onnx"):  # the extra `onnx` has it
    KINDS += ("onnx",)


def fresh(code, *arguments, cwd):
    """What code prints in a process that knows nothing but what lies in `cwd`."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Exports:
    """One run, exported in each format, with what each command said."""

    def __init__(self, run_dir, task, kinds):
        self.run_dir, self.task = run_dir, task
        self.prefix = tasks.only(run_dir / "best/accuracy")
        self.step = int(self.prefix.name.removeprefix("ckpt-"))
        self.results = {}
        for kind in kinds:
            debris = run_dir / "exports" / kind / f".{self.step}.tmp"
            debris.mkdir(parents=True)
            (debris / "half").write_text("of an export that was interrupted")
            done = processes.call("export", f"--run_dir={run_dir}", f"--format={kind}")
            assert done.code == 0, done.stderr
            self.results[kind] = done

    def path(self, kind):
        number = 1 if kind == "saved_model" else self.step
        return self.run_dir / "exports" / kind / str(number)

    def line(self, kind):
        """How to load it, as the command said."""
        return re.search(r"^load  (.+)$", self.results[kind].stdout, re.M)[1]

    def images(self):
        return self.task.sources()["test"]["image"][:7]

    def expected(self):
        model = tasks.restored(self.task, self.prefix)
        return model(self.images(), training=False).numpy()


@pytest.fixture(scope="module")
def exports(reference, tmp_path_factory):
    """Digits."""
    run_dir = tmp_path_factory.mktemp("exports") / "run"
    shutil.copytree(reference.directory, run_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(processes.PROJECT)
        return Exports(run_dir, digits.Digits(), KINDS)


@pytest.fixture(scope="module")
def custom(tmp_path_factory):
    """MNIST, whose layers are its own; the fresh processes of digits are enough."""
    run_dir = tmp_path_factory.mktemp("custom") / "run"
    arguments = ["--steps=4", "--evaluate_every_steps=4", "--set=hidden=8"]
    flags = f"--flagfile={processes.PROJECT / 'models' / 'mnist.flags'}"
    assert processes.call(flags, *arguments, f"--run_dir={run_dir}").code == 0
    with processes.forked_reloads():
        return Exports(run_dir, mnist.Mnist(hidden=8), ("keras", "h5"))


# What is written.


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("saved_model", {"saved_model.pb", "variables/variables.index"}),
        ("keras", {"model.keras"}),
        ("h5", {"model.h5"}),
        ("weights", {"model.weights.h5"}),
        ("tflite", {"model.tflite"}),
        ("onnx", {"model.onnx"}),
    ],
)
def test_an_export_is_a_directory_with_a_card(exports, kind, files):
    if kind not in KINDS:
        pytest.skip("the extra `onnx` is not installed")
    path = exports.path(kind)
    found = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
    assert files | {"model_card.json"} <= found
    if kind != "saved_model":
        assert found == files | {"model_card.json"}
    assert list(path.parent.iterdir()) == [path], "nothing of the interrupted one"
    said = exports.results[kind].stdout.splitlines()[0]
    assert re.fullmatch(
        rf"exported {re.escape(str(exports.prefix))} to {re.escape(str(path))}: loaded "
        r"back in a fresh process, 64 predictions differ by \S+ at most\.",
        said,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_tells_what_a_user_should_know(exports, kind):
    card = json.loads((exports.path(kind) / "model_card.json").read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", card.pop("created"))
    assert 0 <= card.pop("max_difference") <= 1e-5
    versions = card.pop("versions")
    assert versions["keepstep"] == trainer.__version__
    assert versions["tensorflow"] == tf.__version__
    if kind == "onnx":
        assert versions["onnx"] == importlib.metadata.version("onnx")
    model = exports.task.networks()
    signatures = card.pop("signatures")
    if kind == "saved_model":
        assert card.pop("serving_version") == 1
        said = signatures.pop("serving_default")
        assert said == {"inputs": card["inputs"], "outputs": card["outputs"]}
        assert signatures.keys() == {"model"}
        logits = {"dtype": "float32", "shape": [None, 10]}
        assert signatures["model"]["outputs"] == {"output": logits}
    else:
        assert signatures == {}
    assert card == {
        "task": "digits",
        "about": (digits.Digits.__doc__ or "").partition("\n")[0],
        "hyperparameters": exports.task.hyperparameters(),
        "format": kind,
        "step": exports.step,
        "metrics": tasks.manifest(exports.prefix)["metrics"],
        "averaged_weights": False,
        "inputs": {"image": {"dtype": "uint8", "shape": [None, 8, 8]}},
        "outputs": {
            "digit": {"dtype": "int64", "shape": [None]},
            "probability": {"dtype": "float32", "shape": [None, 10]},
        },
        "parameters": {"model": model.count_params()},
        "data": {
            "train": "1201 examples",
            "valid": "300 examples",
            "test": "296 examples",
        },
        "compared_examples": 64,
        "compared_on": "the data",
        "labels": {},
        "units": {},
        "prepared": {},
    }


# Loaded back.

OF_SAVED_MODEL = """
import sys
import numpy as np
import tensorflow as tf
images = np.load(sys.argv[2])
model = eval(sys.argv[1])
assert not [name for name in sys.modules if name.startswith(("trainer", "models"))]
said = {}
for count in (1, 7):
    for name, value in model(image=tf.constant(images[:count])).items():
        said[f"{name} of {count}"] = value.numpy()
np.savez(sys.argv[3], **said)
"""


def test_a_saved_model_needs_tensorflow_alone(exports, tmp_path):
    np.save(tmp_path / "images.npy", exports.images())
    files = [tmp_path / "images.npy", tmp_path / "said.npz"]
    fresh(OF_SAVED_MODEL, exports.line("saved_model"), *files, cwd=tmp_path)
    right = tf.nn.softmax(exports.expected()).numpy()
    with np.load(tmp_path / "said.npz") as said:
        for count in (1, 7):
            probability = said[f"probability of {count}"]
            np.testing.assert_allclose(probability, right[:count], atol=1e-5)
            digit = said[f"digit of {count}"].tolist()
            assert digit == right[:count].argmax(1).tolist()


OF_TFLITE = """
import sys
import numpy as np
import tensorflow as tf
images = np.load(sys.argv[2])
run = eval(sys.argv[1])
assert not [name for name in sys.modules if name.startswith(("trainer", "models"))]
said = {}
for count in (1, 7):
    for name, value in run(image=images[:count]).items():
        said[f"{name} of {count}"] = value
np.savez(sys.argv[3], **said)
"""
OF_ONNX = """
import sys
import numpy as np
import onnxruntime
images = np.load(sys.argv[2])
session = eval(sys.argv[1])
assert "tensorflow" not in sys.modules
names = [one.name for one in session.get_outputs()]
said = {}
for count in (1, 7):
    values = session.run(None, {"image": images[:count]})
    for name, value in zip(names, values):
        said[f"{name} of {count}"] = value
np.savez(sys.argv[3], **said)
"""


@pytest.mark.parametrize(("kind", "code"), [("tflite", OF_TFLITE), ("onnx", OF_ONNX)])
def test_other_runtimes_take_batches_of_any_size(exports, tmp_path, kind, code):
    if kind not in KINDS:
        pytest.skip("the extra `onnx` is not installed")
    np.save(tmp_path / "images.npy", exports.images())
    files = [tmp_path / "images.npy", tmp_path / "said.npz"]
    fresh(code, exports.line(kind), *files, cwd=tmp_path)
    right = tf.nn.softmax(exports.expected()).numpy()
    with np.load(tmp_path / "said.npz") as said:
        for count in (1, 7):
            probability = said[f"probability of {count}"]
            np.testing.assert_allclose(probability, right[:count], atol=1e-5)
            digit = said[f"digit of {count}"]
            assert (digit.dtype, digit.tolist()) == (
                np.int64,
                right[:count].argmax(1).tolist(),
            )


OF_KERAS = """
import json, sys
import keras
import numpy as np
import models.mnist
from models.digits import Digits
said = {}
for name, (line, path) in json.loads(sys.argv[1]).items():
    images = np.load(path)
    if name == "weights":
        model = Digits().networks()
        eval(line)
    else:
        model = eval(line)
    for count in (1, 7):
        said[f"{name} of {count}"] = model(images[:count], training=False)
np.savez(sys.argv[2], **said)
"""


def test_what_keras_wrote_is_loaded_by_keras(exports, custom, tmp_path):
    """Importing the module of the layers is all that the custom ones need."""
    plan, right = {}, {}
    of_mnist = {f"mnist {kind}": (custom, kind) for kind in ("keras", "h5")}
    of_digits = {kind: (exports, kind) for kind in ("keras", "h5", "weights")}
    for name, (given, kind) in (of_digits | of_mnist).items():
        path = tmp_path / f"{name}.npy"
        np.save(path, given.images())
        plan[name] = (given.line(kind), str(path))
        right[name] = given.expected()
    where = tmp_path / "said.npz"
    line = ["-c", OF_KERAS, json.dumps(plan), where]
    done = processes.script(*line, cwd=processes.PROJECT)
    assert done.code == 0, done.stderr
    with np.load(where) as said:
        for name, logits in right.items():
            for count in (1, 7):
                given = said[f"{name} of {count}"]
                np.testing.assert_allclose(
                    given, logits[:count], atol=1e-4, rtol=1e-5, err_msg=name
                )


def saved_model_cli(*arguments):
    program = pathlib.Path(sys.executable).with_name("saved_model_cli")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tensorflows_own_tool_shows_the_signature(exports):
    shown = saved_model_cli("show", "--dir", exports.path("saved_model"), "--all")
    signature = shown.partition("signature_def['serving_default']:")[2]
    signature = " ".join(signature.split())
    for line in (
        "inputs['image'] tensor_info: dtype: DT_UINT8 shape: (-1, 8, 8)",
        "outputs['digit'] tensor_info: dtype: DT_INT64 shape: (-1)",
        "outputs['probability'] tensor_info: dtype: DT_FLOAT shape: (-1, 10)",
    ):
        assert line in signature


def test_tensorflows_own_tool_runs_it(exports, tmp_path):
    np.save(tmp_path / "images.npy", exports.images())
    saved_model_cli(
        *("run", "--dir", exports.path("saved_model"), "--tag_set", "serve"),
        *("--signature_def", "serving_default", "--outdir", tmp_path / "said"),
        *("--inputs", f"image={tmp_path / 'images.npy'}"),
    )
    right = tf.nn.softmax(exports.expected()).numpy()
    said = np.load(tmp_path / "said/probability.npy")
    np.testing.assert_allclose(said, right, atol=1e-5)


def test_the_lines_of_the_build_document_load_each_format(exports):
    document = (processes.PROJECT / "BUILD.md").read_text(encoding="utf-8")
    row = r"^\| `(saved_model|keras|h5|weights|tflite|onnx)` \| .*? \| `(.+?)` \| .*\|$"
    every = dict(re.findall(row, document, re.MULTILINE))
    assert every.keys() == set(options.EXPORTS)
    lines = {kind: line for kind, line in every.items() if kind in KINDS}
    code = ["import keras, numpy as np, tensorflow as tf, models.digits"]
    code += ["images = np.zeros([3, 8, 8], np.uint8)"]
    code += ["model = models.digits.Digits().networks()"]
    for kind, line in lines.items():
        code += [f"DIR = {str(exports.path(kind))!r}", f"loaded = {line}"]
        if kind in ("saved_model", "tflite"):
            code.append("print(loaded['probability'].shape)")
        elif kind == "onnx":
            code.insert(0, "import onnxruntime")
            code.append("print(loaded[1].shape)")
        else:
            code.append("print((loaded or model)(images).shape)")
    done = processes.script("-c", "\n".join(code), cwd=processes.PROJECT)
    assert (done.code, done.stdout) == (0, "(3, 10)\n" * len(lines)), done.stderr


# The guide.

SNIPPETS = guides.snippets("serving.md")


@contextlib.contextmanager
def serving(path):
    """The SavedModel behind the REST protocol of TensorFlow Serving, by rows."""
    signatures = tf.saved_model.load(str(path)).signatures

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/models/digits:predict"
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            serve, rows = signatures[asked["signature_name"]], asked["instances"]
            specs = serve.structured_input_signature[1]
            inputs = {
                name: tf.constant([row[name] for row in rows], spec.dtype)
                for name, spec in specs.items()
            }
            columns = {name: one.numpy() for name, one in serve(**inputs).items()}
            answer = [
                {name: one[row].tolist() for name, one in columns.items()}
                for row in range(len(rows))
            ]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"predictions": answer}).encode())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["serving", "tflite", "onnx"])
def test_the_lines_of_the_guide_serve(exports, tmp_path, monkeypatch, name):
    if name not in ("serving", *KINDS):
        pytest.skip("the extra `onnx` is not installed")
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", exports.images())
    code, found = SNIPPETS[name], {}
    if name == "serving":
        with serving(exports.path("saved_model")) as port:
            exec(code.replace("8501", str(port)), found)
        digits = [row["digit"] for row in found["answer"]]
    else:
        shutil.copy(exports.path(name) / f"model.{name}", f"digits.{name}")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*Interpreter is deprecated")
            exec(code, found)
        digits = found["answer"]["digit"].tolist()
    assert digits == exports.expected().argmax(1).tolist()


# Never overwritten.


@pytest.mark.parametrize("kind", KINDS[1:])
def test_an_export_is_never_overwritten(exports, kind):
    path = exports.path(kind)
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    again = processes.call("export", f"--run_dir={exports.run_dir}", f"--format={kind}")
    assert (again.code, again.stdout) == (1, "")
    assert again.stderr == (
        f"ExportError: {path} is there already, and an export is never overwritten. "
        "Delete it, or give another --output.\n"
    )
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before
    assert list(path.parent.iterdir()) == [path]


def test_the_version_of_a_saved_model_rises(exports):
    """The numbers of deleted ones are not given again, nor does a step decide them."""
    path = exports.path("saved_model")
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    earlier = f"--checkpoint={exports.run_dir / 'recent/ckpt-100'}"
    again = processes.call("export", f"--run_dir={exports.run_dir}", earlier)
    assert again.code == 0, again.stderr
    second = path.with_name("2")
    assert f"to {second}: loaded back" in again.stdout
    card = json.loads((second / "model_card.json").read_text())
    assert (card["serving_version"], card["step"]) == (2, 100)
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before
    assert sorted(path.parent.iterdir()) == [path, second]
    shutil.rmtree(second)
    run = layout.RunDirectory(exports.run_dir)
    assert versions.take(run) == 3


def test_the_version_is_above_what_earlier_releases_exported(tmp_path):
    run = layout.RunDirectory(tmp_path)
    for name in ("608", "0609", "notes", ".700.tmp"):
        (tmp_path / "exports/saved_model" / name).mkdir(parents=True)
    assert (versions.take(run), versions.take(run)) == (609, 610)
    shutil.rmtree(tmp_path / "exports")
    assert versions.take(run) == 611
    assert versions.place(run, 611) == tmp_path / "exports/saved_model/611"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 3}',
        checked_json.text({"version": True}),
        checked_json.text({"version": -1}),
        checked_json.text({"version": 10**18}),
        checked_json.text({"versions": 3}),
        checked_json.text({"version": 3}).replace("3", "4", 1),
    ],
)
def test_a_damaged_record_of_the_versions_is_not_guessed_at(tmp_path, text):
    (tmp_path / "served.json").write_text(text)
    with pytest.raises(trainer.KeepstepError) as refused:
        versions.take(layout.RunDirectory(tmp_path))
    where = f"{tmp_path}/served.json does not tell the version of the last SavedModel ("
    remedy = (
        'Expected what an export wrote, {"version": 3} with its digest. Delete it if '
        f"no version above those in {tmp_path}/exports/saved_model is being served."
    )
    assert str(refused.value).startswith(where)
    assert str(refused.value).endswith(remedy)


def test_a_card_is_never_overwritten_either(exports, tmp_path):
    (tmp_path / "a.keras.json").write_text("mine")
    where = [f"--run_dir={exports.run_dir}", f"--output={tmp_path / 'a.keras'}"]
    refused = processes.call("export", *where, "--format=keras")
    assert refused.code == 1
    assert f"ExportError: {tmp_path}/a.keras.json is there already" in refused.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.keras.json"]


# --output.


@pytest.mark.usefixtures("forked_reloads")
def test_the_output_is_filled_in(exports, tmp_path):
    output = f"--output={tmp_path}/{{epoch:02d}}-{{val_loss:.4f}}-{{step}}.keras"
    prefix = exports.run_dir / "recent/ckpt-120"
    where = [f"--run_dir={exports.run_dir}", f"--checkpoint={prefix}"]
    done = processes.call("export", *where, "--format=keras", output)
    assert done.code == 0, done.stderr
    loss = tasks.manifest(prefix)["metrics"]["loss"]
    name = f"06-{loss:.4f}-120.keras"  # 120 steps of 64 of 1201 examples
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, f"{name}.json"]
    card = json.loads((tmp_path / f"{name}.json").read_text())
    assert (card["step"], card["format"]) == (120, "keras")
    assert f'load  keras.models.load_model("{tmp_path / name}")' in done.stdout


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("{acuracy:.2f}", "'acuracy'"),
        ("{step:.2x}", "Precision not allowed in integer format specifier"),
        ("{}", "Replacement index 0 out of range for positional args tuple"),
        ("{step", "expected '}' before end of string"),
    ],
)
def test_an_output_that_cannot_be_filled_in_is_refused(exports, output, reason):
    where = [f"--run_dir={exports.run_dir}", f"--output={output}"]
    refused = processes.call("export", *where)
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"ConfigError: --output={output} can't be filled in ({reason}): this "
        "checkpoint has {step}, {accuracy}, {loss}, {val_accuracy}, {val_loss}, "
        "{epoch}.\n"
    )


@pytest.mark.usefixtures("forked_reloads")
@pytest.mark.parametrize(
    ("formats", "kind"),
    [(["--format=json"], "saved_model"), (["--format=weights", "--format=json"], None)],
)
def test_an_export_may_answer_with_a_document(exports, tmp_path, formats, kind):
    output = f"--output={tmp_path}/new"
    done = processes.call("export", f"--run_dir={exports.run_dir}", *formats, output)
    body = json.loads(done.stdout)
    place = str(tmp_path / "new")  # not in the run: no version is given
    assert "serving_version" not in (tmp_path / "new/model_card.json").read_text()
    file = {"saved_model": place} if kind else {"model": f"{place}/model.weights.h5"}
    assert (done.code, body.pop("usage")[0][:5]) == (0, "load ")
    assert body.pop("max_difference") <= 1e-5
    assert body == {
        "step": exports.step,
        "checkpoint": str(exports.prefix),
        "format": kind or "weights",
        "path": place,
        "files": file,
        "examples": 64,
    }


def test_a_format_that_is_none_is_refused(exports):
    refused = processes.call("export", f"--run_dir={exports.run_dir}", "--format=jax")
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.stderr == (
        "ConfigError: --format=jax: expected a format of the export (saved_model, "
        "keras, h5, weights, tflite, onnx) or of the answer (table, json).\n"
    )


def test_a_format_whose_packages_are_missing(exports, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused = processes.call("export", f"--run_dir={exports.run_dir}", "--format=onnx")
    assert (refused.code, refused.stdout) == (1, "")
    assert refused.stderr == (
        "ExportError: --format=onnx needs tf2onnx, onnx, onnxruntime, which this "
        "Python does not have. Expected the extra [onnx]. pip install "
        "'keepstep[onnx]'\n"
    )
