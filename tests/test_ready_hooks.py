"""The ready hooks: tables that are cut back, and commands after commits."""

import errno
import io
import pathlib
import re

import pytest
import tasks

from trainer import hooks
from trainer.reporting import csv_file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "curve.csv"


def table(path):
    return path.read_text().splitlines()


def filled(path, *steps):
    file = csv_file.CsvFile(path)
    for step in steps:
        file.write(step, {"loss": 1 / step})
    file.close()
    return file


# One table.


def test_later_rows_and_a_torn_one_are_cut_away(path):
    filled(path, 1, 2, 4)
    whole = path.read_bytes()
    path.write_bytes(whole + b"8,0.1")
    file = csv_file.CsvFile(path)
    file.cut(9)
    assert path.read_bytes() == whole
    file.cut(3)
    assert table(path) == ["step,loss", "1,1.0", "2,0.5"]
    file.cut(0)
    assert table(path) == ["step,loss"]
    file.write(1, {"loss": 0.3})
    file.close()
    assert table(path) == ["step,loss", "1,0.3"]


def test_a_step_that_is_told_again_takes_the_place_of_its_row(path):
    filled(path, 1, 2)
    file = csv_file.CsvFile(path)
    file.cut(2)
    for value in (7.0, 8.0):
        file.write(2, {"loss": value})
    file.write(3, {"loss": 9.0})
    file.write(3, {"loss": 10.0, "more": 1.0})
    file.close()
    assert table(path) == ["step,loss,more", "1,1.0,", "2,8.0,", "3,10.0,1.0"]


def test_values_come_back_as_the_very_same(path):
    value = 0.1 + 0.2
    file = csv_file.CsvFile(path)
    file.write(1, {"a,b": value, "c": float("nan")})
    file.close()
    assert table(path) == ['step,"a,b",c', f"1,{value!r},nan"]
    again = csv_file.CsvFile(path)
    again.cut(1)
    again.write(2, {"a,b": 1.0})
    again.close()
    assert table(path)[-1] == "2,1.0,"


@pytest.mark.parametrize("content", ["name,age\nbo,3\n", "step", "precious"])
def test_a_file_of_somebody_else_stays_as_it_is(path, content):
    path.write_text(content)
    file = csv_file.CsvFile(path)
    text = "does not begin with 'step', so it is not a file of this hook, and nothing"
    with pytest.raises(csv_file.CsvFileError, match=text):
        file.cut(5)
    with pytest.raises(csv_file.CsvFileError, match=text):
        file.write(5, {"loss": 1.0})
    assert path.read_text() == content


@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_written_through_a_link(path, tmp_path, there):
    outside = tmp_path / "outside"
    if there:
        outside.write_text("step,loss\n1,1.0\n")
    path.symlink_to(outside)
    file = csv_file.CsvFile(path)
    text = r"curve\.csv is a link; nothing is written through it\. Put it away, or"
    with pytest.raises(csv_file.CsvFileError, match=text):
        file.cut(0)
    with pytest.raises(csv_file.CsvFileError, match=text):
        file.write(1, {"loss": 1.0})
    assert outside.exists() == there
    assert not there or outside.read_text() == "step,loss\n1,1.0\n"


def test_what_a_full_disk_refuses_is_written_with_the_next_row(path, monkeypatch):
    file = csv_file.CsvFile(path)
    file.write(1, {"loss": 1.0})
    write, full = io.FileIO.write, [True]

    class Full(io.FileIO):
        def write(self, data):
            if full[0]:
                write(self, bytes(data)[:3])
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(self, data)

    monkeypatch.setattr(io, "FileIO", Full)
    file.close()
    with pytest.raises(OSError, match="No space left"):
        file.write(2, {"loss": 2.0})
    assert table(path) == ["step,loss", "1,1.0"]
    full[0] = False
    file.write(3, {"loss": 3.0})
    file.close()
    assert table(path) == ["step,loss", "1,1.0", "2,2.0", "3,3.0"]


# In a run.


def test_tables_hold_the_curves_of_tensorboard_each_step_once(tmp_path):
    """Rewinds and all."""
    choices = {"steps": 14, "save_every_steps": 4, "on_nonfinite": "rewind"}
    run_dir = tmp_path / "run"
    tasks.train(run_dir, tasks.Poisoned(), hooks=[hooks.Csv()], **choices, best=())
    curves = tasks.scalars(run_dir)
    for name, kind in (("train.csv", "train"), ("eval.csv", "eval")):
        header, *rows = [line.split(",") for line in table(run_dir / name)]
        column = header.index("loss")
        found = [(int(row[0]), float(row[column])) for row in rows]
        assert [step for step, _ in found] == [s for s, _ in curves[f"{kind}/loss"]]
        for (_, value), (_, shown) in zip(found, curves[f"{kind}/loss"], strict=True):
            assert value == pytest.approx(shown, rel=1e-6)
    assert table(run_dir / "train.csv")[0] == "step,gradient_norm,learning_rate,loss"


def test_tables_go_where_the_argument_says(tmp_path):
    place = tmp_path / "elsewhere"
    tasks.train(tmp_path / "run", tasks.Plain(), hooks=[hooks.Csv(str(place))], steps=2)
    assert sorted(one.name for one in place.iterdir()) == ["eval.csv", "train.csv"]
    assert not (tmp_path / "run" / "train.csv").exists()


# Commands.


def test_a_command_runs_after_each_commit_in_their_order(tmp_path):
    told, run_dir = tmp_path / "told", tmp_path / "a 'run'; rm -r $HOME"
    line = f"echo {{step}} {{path}} {{run_dir}} >> {told}; ls {{path}}.* > /dev/null"
    tasks.train(run_dir, tasks.Plain(), hooks=[hooks.Command(line)], steps=4)
    assert told.read_text().splitlines() == [
        f"{n} {run_dir}/recent/ckpt-{n} {run_dir}" for n in (1, 2, 3, 4)
    ]


def test_commands_that_fail_are_told_and_training_goes_on(tmp_path):
    line = "test {step} -lt 3 || { echo oh no; exit 7; }"
    with tasks.logged() as lines:
        outcome = tasks.train(
            tmp_path / "run", tasks.Plain(), hooks=[hooks.Command(line)], steps=4
        )
    assert outcome.step == 4
    assert (
        "ERROR the command for step 3 ended with exit code 7: oh no. Further failures "
        "are counted, and told at the end." in lines
    )
    (end,) = [line for line in lines if "failed in on_end" in line]
    assert (
        "HookError: 2 of 4 commands failed, the first one for step 3: it ended with "
        "exit code 7: oh no." in end
    )


def test_a_checkpoint_that_is_gone_is_passed_over(tmp_path):
    command = hooks.Command("exit 9")
    command.on_begin(0, tmp_path)
    with tasks.logged() as lines:
        command.on_commit(5, tmp_path / "recent" / "ckpt-5")
        command.on_end(None)
    assert lines == ["INFO step 5 is no longer kept, so no command is run"]


def test_a_command_without_a_line_is_refused():
    with pytest.raises(
        hooks.HookError, match=r"command\(\) has nothing to run\. Expec"
    ):
        hooks.Command(" ")


def test_the_names_of_the_ready_ones_are_in_the_help():
    help = pathlib.Path(hooks.__file__).parents[1] / "config" / "start.py"
    assert all(re.search(rf"\b{name}\b", help.read_text()) for name in hooks.READY)
