import dataclasses
import json
import os
import re

import pytest

from trainer.checkpoint.layout import RunDirectory
from trainer.config import completion, flagfiles, flags, options, run_record, settings
from trainer.storage import checked_json

SETTINGS = {"width": 64, "rate": 0.001, "on": True, "decay": None, "sizes": (1, 2)}
FACTS = {"train_data": "100 examples"}


def choose(run_dir, **choices):
    return options.RunOptions(**({"task": "digits", "run_dir": str(run_dir)} | choices))


def start(run_dir, settings=SETTINGS, facts=FACTS, *, allow_change=(), **choices):
    noted = run_record.settle(
        choose(run_dir, **choices), settings, facts, allowed=allow_change
    )
    run_record.write(RunDirectory(run_dir), noted)
    return noted


def refused(text):
    return pytest.raises(options.ConfigError, match=f"(?s){text}")


def test_a_new_directory_leaves_a_command_as_it_is(tmp_path):
    choices = choose(tmp_path / "new", steps=5)
    trusted = dataclasses.replace(choices, trust=True)  # for it names the task
    assert completion.complete(choices, {"task", "run_dir", "steps"}) == trusted
    assert completion.complete(choices, {"run_dir", "steps"}) == choices
    assert run_record.settle(choices, SETTINGS, FACTS).changes == ()
    assert not (tmp_path / "new").exists()


def test_a_command_without_a_directory_is_left_to_say_so_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert completion.complete(options.RunOptions(), set()) == options.RunOptions()


def test_the_path_of_a_checkpoint_says_which_run(tmp_path):
    start(tmp_path, steps=5)
    path = str(tmp_path / "best" / "loss" / "ckpt-5")
    whole = completion.complete(options.RunOptions(), {"checkpoint"}, checkpoint=path)
    assert (whole.run_dir, whole.task, whole.steps) == (str(tmp_path), "digits", 5)


def test_a_path_through_no_run_says_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("best", "step:5", "ckpt-5", str(tmp_path / "ckpt-5")):
        choices = options.RunOptions()
        given = {"checkpoint"}
        assert completion.complete(choices, given, checkpoint=path) == choices


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (("accuracy:max",), ("accuracy:min",)),
        (("accuracy:max",), ("loss:min",)),
        (("accuracy:max", "loss:min"), ("loss:min", "accuracy:max")),
        (("accuracy:max", "loss:min"), ("accuracy:max",)),
    ],
)
def test_another_ranking_is_refused_unless_it_is_meant(tmp_path, there, here):
    start(tmp_path, best=there)
    text = re.escape(f"best: {list(there)} there, {list(here)} here")
    with refused(f"{text}.*--allow_change=best"):
        start(tmp_path, best=here)
    noted = start(tmp_path, best=here, allow_change=("best",))
    assert noted.choices["best"] == list(here)


@pytest.mark.parametrize("here", [("a:max:3",), ("a:max", "b:min"), ("a:max:1",)])
def test_more_of_the_best_is_no_other_ranking(tmp_path, here):
    start(tmp_path, best=("a:max",))
    assert start(tmp_path, best=here).choices["best"] == list(here)


def test_a_bare_metric_means_what_the_run_says_of_it(tmp_path):
    start(tmp_path, best=("accuracy:max:3", "loss:min"))
    asked = options.RunOptions(run_dir=str(tmp_path), best=("loss", "accuracy"))
    whole = completion.complete(asked, {"run_dir", "best"})
    assert whole.best == ("loss:min", "accuracy:max:3")
    asked = options.RunOptions(run_dir=str(tmp_path), best=("speed",))
    with refused("--best: 'speed' does not say what is best"):
        completion.complete(asked, {"run_dir", "best"}).rules()


def test_a_configuration_of_absurd_size_is_not_read(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with refused("is not the configuration of a run.*it is larger than 16777216 bytes"):
        run_record.read(path)


def test_what_was_written_is_read_back(tmp_path):
    noted = start(tmp_path, steps=5, best=("loss:min",))
    assert run_record.read(tmp_path / "config.json") == noted
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "run.flags"}


def test_what_is_left_unsaid_is_taken_from_the_run(tmp_path):
    start(tmp_path, steps=5, batch_size=8, best=("loss:min",), deterministic=False)
    whole = completion.complete(options.RunOptions(run_dir=str(tmp_path)), {"run_dir"})
    assert (whole.task, whole.steps, whole.batch_size) == ("digits", 5, 8)
    assert (whole.best, whole.deterministic) == (("loss:min",), False)
    texts = ("width:=64", "rate:=0.001", "on:=true", "decay:=null", "sizes:=[1, 2]")
    assert whole.set == texts


def test_what_is_said_counts_more_than_the_run_even_if_it_is_the_default(tmp_path):
    start(tmp_path, batch_size=8, keep_recent=9)
    whole = completion.complete(
        choose(tmp_path, batch_size=64), {"run_dir", "batch_size"}
    )
    assert (whole.batch_size, whole.keep_recent) == (64, 9)


def test_a_setting_of_the_command_comes_after_those_of_the_run(tmp_path):
    start(tmp_path)
    whole = completion.complete(choose(tmp_path, set=("width=9",)), {"run_dir", "set"})
    assert whole.set[-1] == "width=9"
    assert "rate:=0.001" in whole.set


@pytest.mark.parametrize(
    ("before", "said"), [("steps", "epochs"), ("epochs", "steps"), ("steps", "steps")]
)
def test_a_new_length_replaces_the_old_however_it_is_said(tmp_path, before, said):
    start(tmp_path, **{before: 5})
    whole = completion.complete(choose(tmp_path, **{said: 7}), {"run_dir", said})
    lengths = {"steps": 0, "epochs": 0.0} | {said: 7}
    assert {"steps": whole.steps, "epochs": whole.epochs} == lengths


def test_a_directory_of_another_task_is_refused(tmp_path):
    start(tmp_path)
    with refused("holds a run of the task 'digits', not 'mnist'. Give another --run"):
        completion.complete(choose(tmp_path, task="mnist"), {"run_dir", "task"})


def test_the_same_choices_again_change_nothing(tmp_path):
    noted = start(tmp_path, steps=5, best=("loss:min",))
    assert start(tmp_path, steps=5, best=("loss:min",)) == noted


def test_a_choice_that_the_numbers_depend_on_is_refused_with_both_values(tmp_path):
    start(tmp_path, seed=1)
    before = (tmp_path / "config.json").read_bytes()
    lines = "  batch_size: 64 there, 32 here\n  seed: 1 there, 2 here\n"
    lines += "  train_data: '100 examples' there, '99 examples' here\n"
    lines += "  width: 64 there, 65 here\n"
    names = ["batch_size", "seed", "train_data", "width"]
    allow = " ".join(f"--allow_change={name}" for name in names)
    text = f"holds a run that was started with other choices:\n{lines}.*--run_dir.*"
    other = (SETTINGS | {"width": 65}, {"train_data": "99 examples"})
    with refused(f"{text}{allow}$"):
        start(tmp_path, *other, seed=2, batch_size=32)
    with refused("choices:\n  width: 64 there, 65 here\n.*: --allow_change=width$"):
        start(tmp_path, *other, seed=2, batch_size=32, allow_change=tuple(names[:3]))
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("name", ["seed", "train_data"])
def test_a_hyperparameter_called_like_something_else_is_told_apart(tmp_path, name):
    start(tmp_path, {name: 1})
    with refused(rf"  set\.{name}: 1 there, 2 here\n"):
        start(tmp_path, {name: 2})
    with refused("  train_data: '100 examples' there, '99 examples' here"):
        start(tmp_path, {name: 1}, {"train_data": "99 examples"})


@pytest.mark.parametrize(
    ("there", "here", "text"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, "b: None there, 2 here"),
        ({"a": 1, "b": 2}, {"a": 1}, "b: 2 there, None here"),
        ({"a": 1}, {"a": "1"}, "a: 1 there, '1' here"),
        ({"a": (1, 2)}, {"a": (2, 1)}, r"a: \[1, 2\] there, \[2, 1\] here"),
    ],
)
def test_a_task_that_has_changed_is_noticed(tmp_path, there, here, text):
    start(tmp_path, there)
    with refused(text):
        start(tmp_path, here)


def test_changes_are_kept_with_their_time_and_both_values(tmp_path):
    start(tmp_path, steps=5)
    for _ in range(2):
        start(tmp_path, steps=7)
    start(tmp_path, steps=7, seed=3, keep_recent=1, allow_change=("seed",))
    first, second = run_record.read(tmp_path / "config.json").changes
    assert first.pop("time") <= second.pop("time")
    assert first == {"steps": [5, 7]}
    assert second == {"keep_recent": [3, 1], "seed": [0, 3]}


def test_each_time_a_run_goes_back_is_kept_beside_its_changes(tmp_path):
    noted = start(tmp_path, steps=5).gone_back("step:3", 3).gone_back("best", 2)
    run_record.write(RunDirectory(tmp_path), noted)
    start(tmp_path, steps=7)
    after = run_record.read(tmp_path / "config.json")
    went = [(entry["asked"], entry["step"]) for entry in after.lineages]
    assert went == [("step:3", 3), ("best", 2)]
    assert after.changes[0]["steps"] == [5, 7]


def test_the_digest_is_of_what_the_numbers_depend_on(tmp_path):
    def digest(settings=SETTINGS, facts=FACTS, **choices):
        return run_record.settle(choose(tmp_path, **choices), settings, facts).digest

    turned = dict(reversed(SETTINGS.items()))
    assert digest() == digest(turned, steps=9, keep_recent=1)
    others = {digest(seed=1), digest(SETTINGS | {"width": 1}), digest(facts={})}
    assert len(others | {digest()}) == 4


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a=b",
            "two words",
            "#1",
            '"quoted"',
            "ü",
            "",
            "--steps=3",
            " a ",
            "a\n--b=c",
        ),
        *("a\n--b=c", "none", "a,b", "\\", "$x", "'", "\x00", "\ud800", "//", "\u2028"),
    ],
)
def test_the_flagfile_repeats_the_run(tmp_path, text):
    rules = ("loss:min", "accuracy:max:3")
    choices = {"epochs": 2.5, "seed": 7, "best": rules, "deterministic": False}
    start(tmp_path, {"text": text, "width": 3}, **choices)
    line = [f"--flagfile={tmp_path / 'run.flags'}", "--run_dir=elsewhere"]
    given = flags.parsed(flagfiles.opened(line).every, [options.RunOptions])
    found = given.make(options.RunOptions)
    kinds = {"text": str, "width": int}
    assert settings.chosen("", found.set, kinds) == {"text": text, "width": 3}
    choices["threads"] = len(os.sched_getaffinity(0))
    expected = choose("elsewhere", set=found.set, **choices)
    assert found == expected


@pytest.mark.parametrize("name", ["run_dir", "output", "checkpoint", "allow_change"])
def test_an_option_of_a_command_is_never_taken_from_a_run(tmp_path, name):
    """The directory may come from a stranger."""
    start(tmp_path)
    body = json.loads((tmp_path / "config.json").read_text())
    body["choices"][name] = ["seed"] if name == "allow_change" else "/elsewhere"
    del body[checked_json.DIGEST]
    checked_json.write(tmp_path / "config.json", body)
    with refused("is not the configuration of a run .*it has unknown choices"):
        completion.complete(choose(tmp_path), {"run_dir"})


def test_a_digest_is_as_the_first_release_had_it(tmp_path):
    """Also that of a task with a hyperparameter called like an option of a command."""
    given = {"data": "a", "width": 3, "split": 1}
    choices = options.RunOptions(task="t", run_dir=str(tmp_path), seed=2)
    found = run_record.settle(choices, given, FACTS)
    assert found.digest == "67e358f2bc765b636f8d1db510acb325"


BODY = {
    "choices": {"task": "a", "set": {}, "facts": {}},
    "changes": [],
    "lineages": [],
}
WHOLE = checked_json.text(BODY).encode()


def with_choices(**choices):
    return checked_json.text(
        {**BODY, "choices": {**BODY["choices"], **choices}}
    ).encode()


DAMAGED = {
    "empty": b"",
    "truncated": WHOLE[:30],
    "not UTF-8": b"\xff\xfe",
    "list": b"[]",
    "number": b"3",
    "one bit": WHOLE.replace(b'"a"', b'"e"'),
    "no digest": WHOLE.replace(b"xxh3_128", b"xxh3_129"),
    "no choices": checked_json.text({"changes": [], "lineages": []}).encode(),
    "choices are a list": checked_json.text({**BODY, "choices": []}).encode(),
    "unknown choice": with_choices(depth=3),
    "an option of a command": with_choices(output="/etc/passwd"),
    "a name that is none": with_choices(set={"a\n--output": 1}),
    "a mark that is none": with_choices(set={"a": {"$list": 3}}),
    "no changes": checked_json.text(
        {"choices": BODY["choices"], "lineages": []}
    ).encode(),
    "no task": with_choices(task=None),
    "settings are a list": with_choices(set=[]),
    "very deep": b"[" * 200_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_configuration_is_told_with_its_path(tmp_path, content):
    (tmp_path / "config.json").write_bytes(WHOLE)
    assert run_record.read(tmp_path / "config.json").choices["task"] == "a"
    (tmp_path / "config.json").write_bytes(content)
    place = re.escape(str(tmp_path / "config.json"))
    expected = f"{place} is not the configuration of a run .*Bring back the file, or"
    with refused(expected):
        completion.complete(choose(tmp_path), {"run_dir"})
    with refused(expected):
        run_record.settle(choose(tmp_path), SETTINGS, FACTS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", "many"),
        ("batch_size", None),
        ("best", [5]),
        ("batch_size", 32.5),
        ("deterministic", "no"),
        ("on_nonfinite", "rewnd"),
    ],
)
def test_a_value_that_no_flag_could_have_is_not_taken(tmp_path, name, value):
    start(tmp_path)
    body = json.loads((tmp_path / "config.json").read_text())
    body["choices"][name] = value
    del body[checked_json.DIGEST]
    checked_json.write(tmp_path / "config.json", body)
    with refused(rf"config\.json|--{name}"):
        completion.complete(choose(tmp_path), {"run_dir"})


@pytest.mark.parametrize(
    "name", ["output", "checkpoint", "allow_change", "trust", "run_dir", "data"]
)
def test_what_only_a_command_may_say_is_not_taken_from_a_run(tmp_path, name):
    (tmp_path / "config.json").write_bytes(with_choices(**{name: "x"}))
    with refused(f"it has unknown choices: {name}"):
        completion.complete(choose(tmp_path, task=""), {"run_dir"})


@pytest.mark.parametrize("text", ["a\nb", "a "])
def test_an_option_that_no_flagfile_can_hold_is_refused(tmp_path, text):
    with refused(rf"--init_from={re.escape(repr(text))} has a line break in it, or"):
        start(tmp_path, init_from=text)


@pytest.mark.parametrize(
    "value",
    [{1}, b"a", 1j, object(), range(3), 1 << 14_000],
    ids=lambda one: type(one).__name__,
)
def test_a_hyperparameter_that_json_has_not_is_refused(tmp_path, value):
    with refused("the hyperparameter 'x' can't be recorded: .*Declare it as one, such"):
        start(tmp_path, {"x": value})


def test_a_list_of_an_older_release_is_no_other_value(tmp_path):
    """It wrote lists as it wrote tuples."""
    start(tmp_path, {"sizes": (1, 2)})
    assert start(tmp_path, {"sizes": [1, 2]}).changes == ()
    with refused(r"sizes: \[1, 2\] there, \[1, 3\] here"):
        start(tmp_path, {"sizes": [1, 3]})


@pytest.mark.parametrize(
    ("there", "here"), [(1, True), (0, False), ("1", 1), (None, "None"), ("", None)]
)
def test_values_that_look_alike_are_told_apart(tmp_path, there, here):
    start(tmp_path, {"x": there})
    with refused(f"x: {there!r} there, {here!r} here"):
        start(tmp_path, {"x": here})


def test_a_file_that_was_moved_is_the_same_task(tmp_path):
    digest = start(tmp_path, task="/a/rings.py:Rings").digest
    for name in ("/b/rings.py:Rings", "rings.py:Rings", "my.rings:Rings"):
        whole = completion.complete(choose(tmp_path, task=name), {"task", "run_dir"})
        assert whole.trust
    noted = start(tmp_path, task="/b/rings.py:Rings")
    assert noted.changes[0]["task"] == ["/a/rings.py:Rings", "/b/rings.py:Rings"]
    assert noted.digest == digest
    for name in ("/b/rings.py:Squares", "/b/square.py:Rings", "rings"):
        with refused("holds a run of the task '/b/rings.py:Rings', not '"):
            completion.complete(choose(tmp_path, task=name), {"task", "run_dir"})
