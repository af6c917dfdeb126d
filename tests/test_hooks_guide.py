"""Each snippet of docs/hooks.md listens to a run: with the real library where it is."""

import re
import sys
import types

import guides
import pytest
import tasks

import trainer
from trainer.config import chosen_hooks
from trainer.reporting import hook

TEXT = guides.text("hooks.md")
SNIPPETS = guides.snippets("hooks.md")
CHOICES = {"steps": 4, "report_every_steps": 2, "evaluate_every_steps": 2}


def listening(name):
    """The hook of a snippet."""
    exec(SNIPPETS[name], found := {})
    (cls,) = [
        one
        for one in found.values()
        if isinstance(one, type) and issubclass(one, trainer.Hook)
    ]
    return cls()


def train(run_dir, name):
    """Two starts, the second with more to do; nothing that the hook does may fail."""
    for steps in (4, 6):
        hooks = chosen_hooks.made((), [listening(name)])
        with tasks.logged() as lines:
            choices = CHOICES | {"steps": steps}
            tasks.train(run_dir, tasks.Plain(), hooks=hooks, **choices)
        assert not [line for line in lines if "the hook" in line and "failed" in line]


def test_the_own_hook_of_the_guide_tells_the_bests(tmp_path, capsys):
    train(tmp_path / "run", "own")
    assert re.search(
        r"loss is \d+\.\d{4} at step 2: .*best/loss/ckpt-2", capsys.readouterr().out
    )


class Calls(types.ModuleType):
    """Stands in for a library: writes down what is called."""

    def __init__(self, name, run=None):
        super().__init__(name)
        self.calls, self.run = [], run

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments, **keywords):
            self.calls.append((name, arguments, keywords))
            info = types.SimpleNamespace(run_id="a1")
            return None if name == "active_run" else types.SimpleNamespace(info=info)

        return call

    def of(self, name):
        return [one[1:] for one in self.calls if one[0] == name]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_is_called_with_every_curve(tmp_path, monkeypatch, name):
    calls = Calls(name)
    monkeypatch.setitem(sys.modules, name, calls)
    train(tmp_path / "run", name)
    logged = calls.of("log" if name == "wandb" else "log_metrics")
    steps = [k["step"] if k else a[0]["step"] for a, k in logged]
    assert steps == [2, 2, 4, 4, 6, 6]
    assert {"train/loss", "train/learning_rate"} <= logged[0][0][0].keys()
    assert {"eval/loss"} == logged[1][0][0].keys() - {"step"}
    begun = calls.of("init" if name == "wandb" else "start_run")
    assert len(begun) == 2
    again = begun[1][1]["id"] if name == "wandb" else begun[1][0][0]
    assert again == ("run" if name == "wandb" else "a1")
    assert len(calls.of("finish" if name == "wandb" else "end_run")) == 2


def test_wandb_keeps_it_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    train(tmp_path / "run", "wandb")
    assert wandb.run is None
    assert list(tmp_path.glob("wandb/offline-run-*-run/*.wandb"))


def test_mlflow_keeps_it_in_files(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    train(tmp_path / "run", "mlflow")
    (run,) = mlflow.search_runs(output_format="list")
    client = mlflow.MlflowClient()
    shown = client.get_metric_history(run.info.run_id, "eval/loss")
    assert [one.step for one in shown] == [2, 4, 6]


def test_the_guide_names_every_method():
    assert set(re.findall(r"^\| `(\w+)\(", TEXT, re.M)) == hook.METHODS.keys()
    for name, cls in chosen_hooks.hooks.READY.items():
        assert f"`{name}" in TEXT, cls
