import re

import making
import pytest

from trainer.checkpoint import catalog, manifest, selection
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.retention import Best

RULES = [Best("accuracy", "max", 2), Best("loss", "min")]


@pytest.fixture
def run(tmp_path):
    """Recent: 30, 40, 50. The best by accuracy: 20, then 30; by loss: 40."""
    for step, accuracy, loss in [(30, 0.8, 0.3), (40, 0.7, 0.1), (50, 0.6, 0.2)]:
        metrics = {"accuracy": accuracy, "loss": loss}
        making.checkpoint(tmp_path / "recent", step, metrics)
    best = tmp_path / "best"
    making.checkpoint(best / "accuracy", 20, {"accuracy": 0.9, "loss": 0.5})
    making.checkpoint(best / "accuracy", 30, {"accuracy": 0.8, "loss": 0.3})
    making.checkpoint(best / "loss", 40, {"accuracy": 0.7, "loss": 0.1})
    return RunDirectory(tmp_path)


def places(run, entries):
    return [entry.prefix.relative_to(run.root).as_posix() for entry in entries]


def missing(*texts):
    expected = ".*".join(map(re.escape, texts))
    return pytest.raises(selection.NoCheckpointError, match=f"(?s){expected}")


def test_every_checkpoint_is_found_newest_first_and_recent_before_best(run):
    expected = ["recent/ckpt-50", "recent/ckpt-40", "best/loss/ckpt-40"]
    expected += ["recent/ckpt-30", "best/accuracy/ckpt-30", "best/accuracy/ckpt-20"]
    assert places(run, catalog.scan(run).entries) == expected


def test_what_was_never_committed_is_not_found(run):
    (run.recent / "ckpt-60.index").touch()
    (run.recent / "ckpt-60.json.tmp").write_text("{}")
    (run.recent / "ckpt-40.json").unlink()
    assert catalog.scan(run).steps(run.recent) == [30, 50]


def test_a_broken_manifest_is_found_with_what_is_wrong(run):
    making.spoil(run.recent, 50)
    entry = catalog.scan(run).entries[0]
    assert (entry.step, entry.manifest) == (50, None)
    assert "ckpt-50.json is not a manifest of format 1" in entry.problem


def test_what_goes_while_it_is_read_is_passed_over(run):
    """A link to nothing: listed, and gone when it is opened."""
    (run.recent / "ckpt-60.json").symlink_to(run.root / "pruned")
    assert catalog.scan(run).entries[0].step == 50


def test_a_file_among_the_best_is_no_metric(run):
    (run.root / "best" / "notes.txt").touch()
    assert [path.name for path in run.bests()] == ["accuracy", "loss"]


@pytest.mark.parametrize("name", ["empty", "not there"])
def test_a_directory_without_a_run_holds_nothing(tmp_path, name):
    (tmp_path / "empty").mkdir()
    run = RunDirectory(tmp_path / name)
    assert catalog.scan(run).entries == ()
    assert run.bests() == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("latest", "recent/ckpt-50"),
        ("best", "best/accuracy/ckpt-20"),
        ("best:accuracy", "best/accuracy/ckpt-20"),
        ("best:loss", "best/loss/ckpt-40"),
        ("step:50", "recent/ckpt-50"),
        ("step:40", "recent/ckpt-40"),
        ("step:020", "best/accuracy/ckpt-20"),
    ],
)
def test_a_checkpoint_is_selected_by_what_it_is(run, text, place):
    entry = selection.select(run, text, RULES)
    assert places(run, [entry]) == [place]
    assert entry.manifest == manifest.read(entry.directory, entry.step)


@pytest.mark.parametrize("end", ["", ".index", ".json"])
def test_a_checkpoint_is_selected_by_its_path_from_any_run(run, tmp_path_factory, end):
    other = tmp_path_factory.mktemp("other")
    path = run.best("loss") / f"ckpt-40{end}"
    entry = selection.select(RunDirectory(other), str(path), [])
    assert places(run, [entry]) == ["best/loss/ckpt-40"]


def test_a_relative_path_is_taken_from_where_the_user_is(run, monkeypatch):
    monkeypatch.chdir(run.recent)
    entry = selection.select(run, "ckpt-30", RULES)
    assert entry.manifest.metrics["accuracy"] == 0.8


def test_what_cannot_be_read_is_not_selected(run):
    making.spoil(run.recent, 50)
    making.spoil(run.recent, 40)
    making.spoil(run.best("accuracy"), 20)
    found = [selection.select(run, text, RULES) for text in ("latest", "best")]
    assert places(run, found) == ["best/loss/ckpt-40", "best/accuracy/ckpt-30"]
    have = "has checkpoints at the steps: 30, 40."
    with missing("there is no checkpoint of step 50", have):
        selection.select(run, "step:50", RULES)


def test_a_path_to_a_broken_manifest_says_what_is_wrong(run):
    making.spoil(run.recent, 50)
    entry = selection.select(run, str(run.recent / "ckpt-50"), RULES)
    text = r"recent/ckpt-50 is damaged: \S+ckpt-50.json is not a manifest of format 1: "
    with pytest.raises(selection.DamagedCheckpointError, match=text):
        selection.verified(entry)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_the_best_is_never_one_without_a_number(run, value):
    metrics = {} if value is None else {"accuracy": value}
    making.checkpoint(run.best("accuracy"), 60, metrics)
    assert selection.select(run, "best", RULES).step == 20


def test_all_of_the_best_are_ranked_whatever_the_rule_would_keep(run):
    rule = Best("accuracy", "max", 1)
    ranked = catalog.scan(run).ranked(run.best("accuracy"), rule)
    assert [entry.step for entry in ranked] == [20, 30]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("best:f1", "there is no checkpoint 'best:f1'; this run keeps the best by "),
        ("step:45", "there is no checkpoint of step 45."),
        ("newest", "there is no checkpoint 'newest'. Expected latest, best, best:met"),
        ("step:-1", "there is no checkpoint 'step:-1'. Expected latest"),
        ("step:", "there is no checkpoint 'step:'. Expected latest"),
        ("", "there is no checkpoint ''. Expected latest"),
        ("recent/ckpt-99", "there is no checkpoint 'recent/ckpt-99'. Expected latest"),
        ("ckpt-" + "9" * 5000, "or the path of a committed one, such as"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_not_there_is_told_with_what_is(run, monkeypatch, text, told):
    monkeypatch.chdir(run.root)
    with missing(told, f"{run.root} has checkpoints at the steps: 20, 30, 40, 50."):
        selection.select(run, text, RULES)


def test_an_unknown_metric_is_told_with_those_there_are(run):
    with missing("keeps the best by accuracy, loss."):
        selection.select(run, "best:f1", RULES)
    with missing("there is no checkpoint 'best'; this run keeps the best by no metric"):
        selection.select(run, "best", [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("latest", "there is no checkpoint yet."),
        ("best", "keeps the best by accuracy, loss."),
        ("step:0", "of step 0."),
        ("recent/ckpt-0", "Expected latest, best, best:metric, step:N or the path"),
    ],
)
def test_a_run_without_checkpoints_says_so(tmp_path, text, told):
    with missing(told, f"{tmp_path} has checkpoints at the steps: none."):
        selection.select(RunDirectory(tmp_path), text, RULES)
