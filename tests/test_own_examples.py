"""`--data`: examples of the user's own, and `--output`: files of predictions."""

import csv
import importlib.util
import json
import pathlib
import re
import shutil
import sys
from typing import ClassVar

import kinds
import numpy as np
import processes
import pytest
import tasks
import tensorflow as tf

from trainer import data
from trainer.checkpoint.layout import RunDirectory
from trainer.commands import functions
from trainer.config import run_record
from trainer.data import rows
from trainer.model import prediction_files
from trainer.task import TaskError


class Photos(kinds.Folder):
    def predictions(self, networks, batch):
        return {"y": networks(batch["x"])[:, 0], "both": batch["x"][:, :2]}


class Decoded(kinds.People):
    """Looks its columns up in `decode`."""

    def decode(self, example, seed):
        city = tf.one_hot(example["city"], 3)
        return {"x": tf.concat([city, example["first"][None]], 0), "y": example["y"]}

    def augment(self, batch, seeds):
        return batch


class Column(tasks.Plain):
    def sources(self):
        given = tasks.examples()
        return {
            split: {"x": one["x"][:, 0], "pair": one["x"][:, :2], "y": one["y"]}
            for split, one in given.items()
        }

    def values(self, networks, batch, training):
        said = self.predictions(networks, batch)["said"]
        return {"loss": (said - batch["y"]) ** 2}

    def predictions(self, networks, batch):
        x = tf.concat([batch["x"][:, None], batch["pair"], batch["pair"][:, :1]], 1)
        return {"said": networks(x)[:, 0]}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run of each task; their own data are gone."""
    path = tmp_path_factory.mktemp("own")
    kinds.make(path / "files")
    tables = (Decoded, kinds.People) if importlib.util.find_spec("pyarrow") else ()
    for cls in (Photos, Column, *tables):
        given = cls(root=str(path / "files")) if cls is not Column else cls()
        name = f"{cls.__module__}:{cls.__name__}"
        tasks.train(path / cls.__name__, given, task=name, steps=2)
    (path / "files").rename(path / "gone")
    return path


def given(cls, root):
    return cls() if cls is Column else cls(root=str(root / "files"))


def predicted(cls, root, path):
    task = given(cls, root)
    return functions.predict(root / cls.__name__, "latest", task=task, data=str(path))


def test_a_folder_of_images_is_decoded_as_the_task_s_own(root, tmp_path, monkeypatch):
    for n, path in enumerate(sorted((root / "gone/valid/images").rglob("*.png"))):
        (tmp_path / "flat").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "flat" / f"{n:02d}.png")
    with monkeypatch.context() as patched:
        listed, real = [], pathlib.Path.rglob

        def counting(path, pattern):
            listed.append(path)
            return real(path, pattern)

        patched.setattr(pathlib.Path, "rglob", counting)
        flat = predicted(Photos, root, tmp_path / "flat")
    assert listed.count(tmp_path / "flat") == 1, "a folder may be large"
    sorted_ = predicted(Photos, root, root / "gone/valid/images")
    assert flat["file"].tolist() == [f"{n:02d}.png".encode() for n in range(11)]
    assert sorted_["file"][0].startswith(b"cat/")
    assert flat["y"].shape == (11,)
    np.testing.assert_array_equal(flat["y"], sorted_["y"])
    run, task = root / "Photos", given(Photos, root)
    metrics = functions.evaluate(
        run, "latest", task=task, data=str(root / "gone/valid/images")
    )
    recorded = tasks.manifest(run / "recent/ckpt-2")["metrics"]
    assert metrics == recorded
    with pytest.raises(data.DataError, match=r"00.png is in no folder of a class"):
        functions.evaluate(run, "latest", task=task, data=str(tmp_path / "flat"))
    (tmp_path / "none").mkdir()
    with pytest.raises(
        data.DataError, match=r"holds no images\. Expected files such as"
    ):
        predicted(Photos, root, tmp_path / "none")


@pytest.mark.parametrize("cls", [kinds.People, Decoded])
def test_rows_are_read_as_those_of_the_task_s_table(root, tmp_path, cls):
    arrow = pytest.importorskip("pyarrow", reason="the extra `data` has it")
    from pyarrow import parquet

    path = root / "gone/valid/a.csv"
    if cls is kinds.People:  # it predicts from x, which only augment makes
        metrics = [
            functions.evaluate(
                root / "People", "latest", task=given(cls, root), data=str(one)
            )
            for one in written(path, tmp_path, arrow, parquet)
        ]
        assert metrics[0] == metrics[1] == metrics[2]
        return
    found = [
        predicted(cls, root, p)["y"] for p in written(path, tmp_path, arrow, parquet)
    ]
    assert found[0].shape == (11,)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def written(path, tmp_path, arrow, parquet):
    """The same rows in a file of each kind."""
    with path.open() as file:
        records = list(csv.DictReader(file))
    typed = [
        {"y": float(r["y"]), "city": r["city"], "first": float(r["first"])}
        for r in records
    ]
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(json.dumps(one) + "\n" for one in typed))
    parquet.write_table(arrow.Table.from_pylist(typed), tmp_path / "a.parquet")
    return path, lines, tmp_path / "a.parquet"


def test_a_column_that_decode_looks_up_must_be_there(root, tmp_path):
    pytest.importorskip("pyarrow", reason="the extra `data` has it")
    (tmp_path / "a.csv").write_text("city,first\nbern,0.5\n")
    with pytest.raises(data.DataError, match=r"has no column 'y', which decode\(\)"):
        predicted(Decoded, root, tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("city,first,y\nbern,much,1\n")
    with pytest.raises(data.DataError, match=r"'first' of .* holds what is no number"):
        predicted(Decoded, root, tmp_path / "a.csv")


def test_rows_have_what_the_networks_take(root, tmp_path):
    arrays = tasks.examples()["valid"]["x"]
    (tmp_path / "a.jsonl").write_text(
        "".join(
            json.dumps({"x": float(one[0]), "pair": one[:2].tolist()}) + "\n"
            for one in arrays
        )
    )
    np.savez(tmp_path / "a.npz", x=arrays[:, 0], pair=arrays[:, :2])
    from_lines = predicted(Column, root, tmp_path / "a.jsonl")["said"]
    from_arrays = predicted(Column, root, tmp_path / "a.npz")["said"]
    np.testing.assert_array_equal(from_lines, from_arrays)
    with pytest.raises(data.DataError, match="own examples are no folder of images"):
        predicted(Column, root, tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", "", "is empty. Expected one JSON object per line"),
        ("a.jsonl", '{"x": 1', "line 1 of .* is no JSON"),
        ("a.jsonl", "[1]\n", "line 1 of .* is a list. Expected one object per line"),
        ("a.jsonl", '{"x": 1}\n{"y": 1}\n', "line 2 of .* has y; others have x"),
        ("a.jsonl", '{"x": 1}\n', "has no column 'pair'; it has x. Expected x, pair"),
        ("a.jsonl", '{"x": 1, "pair": [1]}\n', r"'pair' has shape \(1, 1\)"),
        (
            "a.jsonl",
            '{"x": 1, "pair": [1, 2]}\n{"x": 1, "pair": [1]}\n',
            "'pair' can't be read as float32",
        ),
        ("a.csv", "x,pair\n", "has no rows. Expected the names of the columns"),
        ("a.csv", "x,pair\n1\n", "row 2 of .* has 1 fields; its first line names 2"),
        ("a.csv", "x,pair\na,b\n", "'x' can't be read as float32"),
        ("b.csv", None, "there is no file .*b.csv. Expected rows in a file"),
    ],
)
def test_what_does_not_fit_is_refused(root, tmp_path, name, text, told):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(data.DataError, match=told):
        predicted(Column, root, tmp_path / name)


def test_a_csv_needs_no_package(tmp_path):
    (tmp_path / "a.csv").write_text('x,word\n1,"a, b"\n,c\n')
    columns = rows.read(tmp_path / "a.csv")
    assert columns == {"x": ["1", ""], "word": ["a, b", "c"]}
    path = pathlib.Path("a.csv")
    spec = tf.TensorSpec([None], tf.float32)
    np.testing.assert_array_equal(
        rows.fitting(path, "x", columns["x"], spec), [1, np.nan]
    )
    spec = tf.TensorSpec([None], tf.string)
    words = rows.fitting(path, "word", columns["word"], spec)
    assert words.tolist() == [b"a, b", b"c"]


class Wordy(tasks.Plain):
    """Its source says how its rows are read, in a great many words."""

    def sources(self):
        given = tasks.examples()
        return {"train": given["train"], "valid": Recipe(given["valid"])}


class Recipe(dict):
    recipe: ClassVar = {"kind": "table", "words": ["a"]}


def test_a_recipe_of_too_many_words_is_not_recorded(tmp_path, monkeypatch):
    tasks.train(tmp_path / "few", Wordy(), task="test_own_examples:Wordy", steps=1)
    config = RunDirectory(tmp_path / "few").config
    assert run_record.read(config).recipe == Recipe.recipe
    monkeypatch.setattr(Recipe, "recipe", {"words": ["a"] * 250_000})
    with tasks.logged() as lines:
        tasks.train(tmp_path / "run", Wordy(), task="test_own_examples:Wordy", steps=1)
    assert run_record.read(RunDirectory(tmp_path / "run").config).recipe is None
    assert (
        "the categories of the data are too many to be recorded (1250011 bytes of "
        in ("\n".join(lines))
    )


# Output.

SAID = [
    {"word": np.array([b"a, b", b"c"]), "two": np.float32([[1, 2], [3, np.nan]])},
    {"word": np.array(["\u00e4".encode()]), "two": np.float32([[0.1, 6]])},
]


def test_predictions_as_csv(tmp_path):
    assert prediction_files.write(tmp_path / "a.tmp", "a.csv", SAID) == 3
    with (tmp_path / "a.tmp").open(encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["index", "word", "two.0", "two.1"],
            ["0", "a, b", "1.0", "2.0"],
            ["1", "c", "3.0", "nan"],
            ["2", "ä", "0.1", "6.0"],
        ]
    with pytest.raises(TaskError, match=r"a.csv can't hold 'box', of shape \(2, 2\)"):
        prediction_files.write(tmp_path / "a", "a.csv", [{"box": np.zeros([1, 2, 2])}])


def test_a_csv_has_the_columns_of_the_widest_batch(tmp_path):
    batches = [{"said": np.float32([[1, 2, 3]])}, {"said": np.float32([[4, 5]])}]
    for given in (batches, batches[::-1]):
        assert prediction_files.write(tmp_path / "a.tmp", "a.csv", given) == 2
        with (tmp_path / "a.tmp").open(encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        assert header == ["index", "said.0", "said.1", "said.2"]
        assert sorted(one[1:] for one in lines) == [
            ["1.0", "2.0", "3.0"],
            ["4.0", "5.0", "0.0"],
        ]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl"])
def test_the_number_of_an_example_has_a_name_of_its_own(tmp_path, name):
    if name == "a.parquet":
        pytest.importorskip("pyarrow", reason="the extra `data` has it")
    told = (
        r"^predictions\(\) returns 'index', which is what the number of an example is "
        r"called beside them\. Expected another name\. Rename it, or write an \.npz"
    )
    with pytest.raises(TaskError, match=told):
        prediction_files.write(tmp_path / "a", name, [{"index": np.zeros(2)}])
    assert prediction_files.write(tmp_path / "a", "a.npz", [{"index": np.ones(2)}]) == 2


def test_predictions_as_parquet(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra `data` has it")
    from pyarrow import parquet

    assert prediction_files.write(tmp_path / "a.tmp", "a.parquet", SAID) == 3
    found = parquet.read_table(tmp_path / "a.tmp")
    assert found.column("word").to_pylist() == ["a, b", "c", "ä"]
    assert found.column("two").to_pylist()[0] == [1.0, 2.0]


def test_without_pyarrow_parquet_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("keepstep[data]")):
        prediction_files.write(tmp_path / "a.tmp", "a.parquet", SAID)


def test_the_command_reads_a_folder_and_writes_a_table(root, tmp_path):
    output = tmp_path / "said.csv"
    done = processes.call(
        "predict",
        "--task=test_own_examples:Photos",
        f"--run_dir={root / 'Photos'}",
        "--checkpoint=latest",
        f"--data={root / 'gone/valid/images'}",
        f"--output={output}",
    )
    assert done.code == 0, done.stderr
    header, *lines = output.read_text().splitlines()
    assert header == "index,file,y,both.0,both.1"
    assert len(lines) == 11
    assert lines[0].startswith("0,cat/")
