"""The line of progress: what it says at each width, and that it never wraps."""

import io
import re

import pytest
import rich.console
import terminal
from processes import PROJECT
from rich.cells import cell_len

from trainer.reporting.progress_bar import Line, ProgressBar

VALUES = {"loss": 0.0312, "accuracy": 0.991}
BEST = {"accuracy": (0.9911, 570), "loss": (0.03, 20)}
RUNS = {
    "digits": Line(600, 1200, 25.0, VALUES, BEST),
    "long": Line(1_999_999, 2_000_000, 12345.0, VALUES, BEST),
    "slow": Line(3, 1200, 0.01, VALUES, BEST),
}


def drawn(line, columns, encoding="utf-8"):
    """What rich draws of a line on a terminal of this width."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    console = rich.console.Console(
        file=file, width=columns, force_terminal=True, color_system=None
    )
    bar = ProgressBar(line.total, step=line.step, console=console)
    bar._line = line
    console.print(bar)
    file.flush()
    return file.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("name", RUNS)
def test_position_rate_time_to_go_and_the_best_are_there(name, columns):
    line, text = RUNS[name], drawn(RUNS[name], columns)
    assert "\n" not in text.strip("\n")
    assert cell_len(text.strip("\n")) <= columns
    for part in (f"{line.step}/{line.total}", "best accuracy 0.9911"):
        assert part in text
    assert re.search(r"\d(/s| steps/s| s/step)  ", text)
    assert re.search(r"  \d+:\d\d:\d\d", text)
    assert "…" not in text


def test_the_wider_the_more_is_said():
    texts = {columns: drawn(RUNS["digits"], columns) for columns in (40, 60, 80, 160)}
    assert texts[40] == " 600/1200  25/s  0:00:24  best 0.9911"
    said = " 600/1200  25 steps/s  0:00:24 to go  best accuracy 0.9911"
    assert texts[60] == said
    assert texts[80] == f"━━━━━─────  {said}"
    assert "loss 0.0312, accuracy 0.9910" in texts[160]
    assert "0.9911 at step 570; best loss 0.0300 at step 20" in texts[160]


@pytest.mark.parametrize("columns", [1, 5, 9, 20, 33])
@pytest.mark.parametrize("name", RUNS)
def test_no_terminal_is_too_narrow(name, columns):
    assert 0 < cell_len(RUNS[name].fitted(columns)) <= columns


def test_a_terminal_without_unicode_is_drawn_on_too():
    line = Line(600, 1200, 25.0, {}, {"höhe": (1.0, 5)})
    text = drawn(line, 100, encoding="ascii")
    assert text.startswith("############------------   600/1200")
    assert "best h?he 1.0000" in text


def test_a_name_does_not_speak_to_the_terminal():
    line = Line(6, 12, 1.0, {"[red]a\x1b[2J": 1.0}, {"\x07[/]": (1.0, 5)})
    text = drawn(line, 120)
    assert "[red]a\\x1b[2J 1.0000" in text
    assert "best \\x07[/] 1.0000" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def bar(clock, step=0):
    console = rich.console.Console(file=io.StringIO(), width=80)
    return ProgressBar(1000, step=step, clock=clock, console=console)


def test_the_rate_is_that_of_the_last_half_minute():
    clock = Clock()
    line = bar(clock, step=10)
    for secs, step in ((1, 20), (1, 30)):
        clock.now += secs
        line.advance(step)
    assert line._line.steps_per_sec == 10
    for _ in range(40):
        clock.now += 1
        line.advance(line._line.step + 1)
    assert line._line.steps_per_sec == 1
    assert line._line.fitted(80).endswith("  70/1000  1.0 steps/s  0:15:30 to go")


def test_what_was_no_training_does_not_count():
    clock = Clock()
    line = bar(clock)
    clock.now += 60
    line.advance(1)
    line.restart_clock(1)
    clock.now += 2
    line.advance(11)
    assert line._line.steps_per_sec == 5


def test_before_the_first_step_there_is_no_rate():
    assert bar(Clock())._line.fitted(80).endswith("   0/1000  -:--:-- to go")


def test_a_run_on_a_terminal_of_80_columns_draws_lines_of_80_columns(tmp_path):
    flags = f"--flagfile={PROJECT / 'models' / 'digits.flags'}"
    screen = terminal.run(flags, "--steps=114", "--run_dir=run", cwd=tmp_path)
    assert screen.code == 0, screen.raw
    lines = [line for line in screen.lines if "/114" in line]
    assert max(map(cell_len, lines)) <= 80
    last = r"━+  114/114  \d+ steps/s  0:00:00 to go  best accuracy 0\.\d{4}( at .+)?"
    assert any(re.fullmatch(last, line) for line in lines), lines
    assert "complete at step 114 of 114." in screen.lines
