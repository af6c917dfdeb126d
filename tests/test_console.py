"""What a person sees: tables that fit, numbers that can be read, and no escapes."""

import json
import re

import making
import processes
import pytest
import tensorflow as tf
import terminal
from rich.cells import cell_len

from trainer.checkpoint import manifest
from trainer.commands import console, tables
from trainer.reporting.plain_text import plain

ROW = {
    "step": "1200",
    "path": "runs/a/best/accuracy/ckpt-1200",
    "loss": "0.0312",
    "size": "1.83 MB",
    "marks": "latest, best accuracy, 2. best loss",
}
ROWS = [ROW, {**ROW, "step": "5", "size": "950 kB", "marks": ""}]


# Tables.


@pytest.mark.parametrize("columns", [200, 120, 80, 60, 45])
def test_a_table_fits_and_no_word_is_folded(columns):
    lines = tables.render(ROWS, width=columns)
    assert max(map(cell_len, lines)) <= columns
    words = " ".join(lines).split()
    for row in ROWS:
        for word in " ".join(row.values()).split():
            assert word in words


def test_a_path_that_does_not_fit_has_a_line_of_its_own():
    assert tables.render(ROWS, width=45) == [
        "step    loss     size  marks",
        "  path",
        "1200  0.0312  1.83 MB  latest, best accuracy,",
        "                       2. best loss",
        "  runs/a/best/accuracy/ckpt-1200",
        "   5  0.0312   950 kB",
        "  runs/a/best/accuracy/ckpt-1200",
    ]


def test_numbers_are_aligned_to_the_right_for_people_only():
    wide = tables.render(ROWS, width=200)
    assert wide[2].startswith("   5  runs/a/best/accuracy/ckpt-1200  0.0312   950 kB")
    piped = tables.render(ROWS, width=None)
    assert piped[2] == "5     runs/a/best/accuracy/ckpt-1200  0.0312  950 kB"
    assert tables.render([], width=80) == ["none"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1827088, "1.83 MB"),
        (12_300, "12.3 kB"),
        (456_000_000, "456 MB"),
        (7e12, "7.00 TB"),
    ],
)
def test_a_size_has_three_digits(count, text):
    assert tables.size(count) == text


@pytest.mark.parametrize(
    ("secs", "text"),
    [(-3, "0 s"), (59, "59 s"), (180, "3 min"), (7200, "2 h"), (86400 * 3, "3 d")],
)
def test_an_age_has_one_unit(secs, text):
    assert tables.age(secs) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0000"), (0.99114, "0.9911"), (3e-7, "3.000e-07"), (-2e9, "-2.000e+09")],
)
def test_a_metric_is_rounded(value, text):
    assert tables.number(value) == text


def test_an_unusual_number_is_told_too():
    assert [tables.number(float(x)) for x in ("nan", "inf")] == ["nan", "inf"]


# Plain text.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kernel_1 [red]ü→", "kernel_1 [red]ü→"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb\x08\x7f\x9b2J", "a\\x0db\\x08\\x7f\\x9b2J"),
        ("\u202eabc\u2028", "\\u202eabc\\u2028"),
        ("\ud800", "\\ud800"),
        ("one\ntwo\tthree", "one\ntwo\\x09three"),
    ],
)
def test_what_is_no_text_is_written_out(text, shown):
    assert plain(text) == shown


def test_what_a_stream_cannot_hold_is_written_out(capsys, monkeypatch):
    with open("/dev/null", "w", encoding="ascii") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        console.say("Größe → ✓")


# Hostile names.

EVIL = "\x1b[2J[bold]\x1b]0;owned\x07[/bold]\u202e\r"
SEEN = "\\x1b[2J[bold]\\x1b]0;owned\\x07[/bold]\\u202e\\x0d"
_COMMANDS = {
    "list": ["list"],
    "show": ["show", "--checkpoint=step:5"],
    "verify": ["verify"],
    "diff": ["diff", "--checkpoint=step:5", "--against=step:6"],
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run directory whose every name speaks to the terminal."""
    run_dir = tmp_path_factory.mktemp("hostile") / "run"
    recent = run_dir / "recent"
    recent.mkdir(parents=True)
    for step in (5, 6):
        tree = tf.train.Checkpoint(**{EVIL.replace("/", ""): tf.Variable(float(step))})
        tree.write(str(recent / f"ckpt-{step}"))
        making.checkpoint(
            recent,
            step,
            {EVIL: 0.5},
            write_files=False,
            files=manifest.measure(recent, step),
            variables=(manifest.Variable(f"model/{EVIL}", (2,), f"float{EVIL}"),),
            versions={EVIL: EVIL},
            inexact=(EVIL,),
        )
    making.checkpoint(recent, 7)
    making.spoil(recent, 7, json.dumps({"format": EVIL}))
    return run_dir


def assert_plain(text):
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


@pytest.mark.parametrize("name", _COMMANDS)
def test_a_hostile_name_is_only_text(hostile, name):
    command = [*_COMMANDS[name], f"--run_dir={hostile}"]
    answered = processes.call(*command)
    assert answered.code in (0, 1), answered
    assert_plain(answered.stdout + answered.stderr)
    if name != "verify":
        assert SEEN.replace("/", "") in answered.stdout.replace("/", "")
    document = processes.call(*command, "--format=json")
    json.loads(document.stdout)
    assert_plain(document.stdout)


def test_on_a_terminal_only_the_colours_of_nobody_are_shown(hostile):
    screen = terminal.run(
        "show", f"--run_dir={hostile}", "--checkpoint=step:5", cwd="/"
    )
    assert screen.code == 0
    assert_plain(screen.raw.replace("\r\n", "\n"))
    assert SEEN in screen.raw


@pytest.mark.parametrize(
    "command",
    [
        ["list", f"--run_dir=/tmp/{EVIL}"],
        ["show", "--run_dir=/", f"--checkpoint={EVIL}"],
        [f"li{EVIL}"],
        ["list", f"--{EVIL}"],
        ["list", f"--flagfile={EVIL}", "--debug"],
    ],
)
def test_a_message_is_only_text(command):
    refused = processes.call(*command)
    assert refused.code in (1, 2)
    assert_plain(refused.stdout + refused.stderr)
    assert "\\x1b[2J[bold]" in refused.stderr


def test_a_line_of_the_log_is_only_text(capsys):
    from absl import logging

    console.begin("run.py")
    logging.warning("removing %s", EVIL)
    assert SEEN in capsys.readouterr().err
