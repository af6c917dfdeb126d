import dataclasses
import math
import pathlib
import re

import pytest

from trainer.config import flagfiles, flags, options
from trainer.config.start import StartOptions

KINDS = [options.RunOptions, StartOptions]


def parse(*words, kind=options.RunOptions):
    return flags.parsed(flagfiles.opened(words).every, KINDS).make(kind)


def test_no_flags_are_the_defaults():
    assert parse() == options.RunOptions()


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--steps=1200"], "steps", 1200),
        (["--epochs=2.5"], "epochs", 2.5),
        (["--nodeterministic"], "deterministic", False),
        (["--deterministic=false"], "deterministic", False),
        (["--set=a=1", "--set=b=x=y,z"], "set", ("a=1", "b=x=y,z")),
        (["--best=loss:min", "--best=acc:max:3"], "best", ("loss:min", "acc:max:3")),
        (["-batch_size", "8"], "batch_size", 8),
        (["--task", "a", "--", "--steps=7"], "task", "a"),
        (["--run_dir=runs/ä b"], "run_dir", "runs/ä b"),
        (["--seed=2147483647"], "seed", 2**31 - 1),
        (["--save_every_secs=0.5"], "save_every_secs", 0.5),
        (["--steps=5", "--steps=0", "--epochs=1"], "epochs", 1.0),
    ],
)
def test_a_flag_sets_its_field_and_no_other(words, field, value):
    choices = parse(*words)
    assert getattr(choices, field) == value
    assert dataclasses.replace(options.RunOptions(), **{field: value}) == choices


def test_a_start_has_options_of_its_own():
    chosen = parse("--allow_change", "seed", "--steps=3", kind=StartOptions)
    assert chosen == StartOptions(allow_change=("seed",))
    assert parse("--resume=never", kind=StartOptions).resume == "never"


def test_the_arguments_of_a_run_give_its_choices_again_and_no_others():
    kept = {"task": "digits", "set": ("a=1", "b=x y"), "deterministic": False}
    kept |= {"epochs": 0.1, "seed": 7, "best": ("loss:min", "acc:max:3")}
    arguments = flags.as_arguments(options.RunOptions(**kept, run_dir="here"))
    assert parse(*arguments) == options.RunOptions(**kept)
    assert flags.as_arguments(options.RunOptions()) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--steps=many"], "--steps=many: expected a whole number."),
        (["--steps=1.5"], "--steps=1.5: expected a whole number."),
        (["--epochs", "x"], "--epochs=x: expected a number."),
        (["--deterministic=maybe"], "--deterministic=maybe: expected true or false."),
        (["--nodeterministic=3"], "--nodeterministic=3 does not take an argument."),
        (["--resume=requir"], "expected auto, never, require. Did you mean 'require'?"),
        (["--resume=zzz"], "--resume=zzz: expected auto, never, require."),
        (["--steps"], "Missing value for flag --steps."),
        (["--flagfile"], "expected --flagfile=FILE."),
        (["--flagfile=no.flags"], "--flagfile=no.flags cannot be read: [Errno 2] No "),
    ],
)
def test_a_flag_that_cannot_be_read_is_told(words, text):
    with pytest.raises(options.ConfigError, match=re.escape(text)):
        parse(*words)


def test_a_file_of_bytes_is_no_flagfile(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    text = f"--flagfile={tmp_path}/a is no text file of flags .*expected --flagfile=FIL"
    with pytest.raises(options.ConfigError, match=text):
        parse(f"--flagfile={tmp_path}/a")


def test_flagfiles_stand_where_they_are_named(tmp_path):
    (tmp_path / "outer").write_text(f"--steps=1\n// no\n--flagfile={tmp_path}/inner\n")
    (tmp_path / "inner").write_text("# no\n--steps=2\n\n--batch_size=8\n")
    words = flagfiles.opened(
        ["--seed=1", "-flagfile", f"{tmp_path}/outer", "--", "--flagfile=x"]
    )
    assert words.own == ("--seed=1", "--", "--flagfile=x")
    inner = ("--steps=1", "--steps=2", "--batch_size=8")
    assert words.every == ("--seed=1", *inner, "--", "--flagfile=x")


def test_a_scan_tells_flags_from_words_without_their_values():
    line = ["list", "-steps=x", "--lr=3", "--width", "8", "--fast", "train", "--", "-q"]
    found = flags.scan(line, KINDS, more=["help"], commands=["list", "train"])
    assert found.given == {"steps"}
    assert found.unknown == (("--lr", "3"), ("--width", "8"), ("--fast", None))
    assert found.words == ("list", "train", "-q")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("steps", -1, "0 or more"),
        ("epochs", -0.1, "0 or more"),
        ("epochs", math.nan, "0 or more"),
        ("batch_size", 0, "1 or more"),
        ("eval_batch_size", 0, "1 or more"),
        ("seed", -1, "0 to 2147483647"),
        ("seed", 2**31, "0 to 2147483647"),
        ("report_every_steps", 0, "1 or more"),
        ("evaluate_every_steps", -5, "0 or more"),
        ("save_every_steps", -5, "0 or more"),
        ("save_every_secs", -1.0, "0 or more"),
        ("save_every_secs", math.nan, "0 or more"),
        ("keep_recent", 0, "1 or more"),
        ("keep_every_steps", -1, "0 or more"),
        ("early_stop_patience", -1, "0 or more"),
        ("early_stop_min_delta", math.nan, "0 or more"),
        ("max_rewinds", -1, "0 or more"),
        # "0 or more" would be no answer to someone who wrote inf.
        ("epochs", math.inf, "finite"),
        ("save_every_secs", math.inf, "finite"),
    ],
)
def test_a_value_out_of_range_is_told_with_the_range(field, value, expected):
    text = f"--{field}={re.escape(str(value))} is out of range: expected .*{expected}"
    with pytest.raises(options.ConfigError, match=text):
        options.RunOptions(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("epochs", 1e-9), ("batch_size", 1), ("seed", 2**31 - 1)],
)
def test_the_ends_of_a_range_belong_to_it(field, value):
    assert getattr(options.RunOptions(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("on_nonfinite", "rewnd", "halt, rewind. Did you mean 'rewind'"),
        ("on_save_error", "", "stop, continue"),
    ],
)
def test_a_word_that_is_no_choice_is_refused_from_python_too(field, value, known):
    """A configuration comes from a file as well, which no flag parser has seen."""
    with pytest.raises(options.ConfigError, match=f"--{field}={value}.*{known}"):
        options.RunOptions(**{field: value})


def test_steps_and_epochs_are_one_too_many():
    expected = "--steps=10 and --epochs=2.5 both say how long.*give one of them.*=0"
    with pytest.raises(options.ConfigError, match=expected):
        parse("--steps=10", "--epochs=2.5")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((f"runs/lr{one}1", r"has a .* in it: TensorFlow takes") for one in "[]*?"),
        ("runs\\\\a", r"has a '\\\\' in it.*Choose a name without \[ \] \* \? \\"),
        ("gs://bucket/a", "begins with 'gs://', and runs are kept on local or mounted"),
        ("s3://bucket", "begins with 's3://'.*Give the path of a directory"),
        ("runs/a\nb", "has characters that can't be printed"),
        ("runs/\x1b[2J", "has a '\\[' in it"),
        ("runs/\udcff", "has characters .*locale or TensorFlow.*plain characters"),
    ],
)
def test_a_run_dir_that_could_not_be_read_back_is_refused(name, text):
    expected = f"--run_dir: {re.escape(repr(name))} {text}"
    with pytest.raises(options.ConfigError, match=expected):
        options.RunOptions(run_dir=name)


def test_a_best_that_is_no_rule_is_told_by_its_flag():
    expected = "--best: 'accuracy' does not say what is best. Expected name:min"
    with pytest.raises(options.ConfigError, match=expected):
        parse("--best=loss:min", "--best=accuracy")


def test_a_rewind_asks_for_a_schedule():
    expected = "--on_nonfinite=rewind goes back to where --save_every_steps saved"
    with pytest.raises(options.ConfigError, match=expected):
        parse("--on_nonfinite=rewind")
    assert parse("--on_nonfinite=rewind", "--save_every_steps=5").save_every_steps == 5


def test_choices_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.RunOptions().steps = 5


@pytest.mark.parametrize(
    ("choices", "directory"),
    [
        ({"task": "digits"}, "runs/digits"),
        ({"task": "digits", "run_dir": "/data/a"}, "/data/a"),
        ({"task": "my.shop:Prices"}, "runs/Prices"),
        ({"run_dir": "a"}, "a"),
    ],
)
def test_the_run_directory_is_the_given_one_or_the_tasks_own(choices, directory):
    assert options.RunOptions(**choices).directory() == pathlib.Path(directory)


def test_a_command_that_names_neither_task_nor_directory_is_told_what_to_give():
    expected = "nothing says what to train.*give --task=NAME, .* or --run_dir=DIRECTORY"
    with pytest.raises(options.ConfigError, match=expected):
        options.RunOptions().directory()


@pytest.mark.parametrize(
    ("word", "known", "text"),
    [
        ("digit", ["mnist", "digits"], " Did you mean 'digits'?"),
        ("zzz", ["b", "a"], " Known: a, b."),
        ("", ["b", "a"], " Known: a, b."),
        ("x", [], ""),  # rather than "Known: ."
    ],
)
def test_a_suggestion_is_the_closest_word_or_all_of_them(word, known, text):
    assert options.suggest(word, iter(known)) == text
