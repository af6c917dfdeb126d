"""A step of one's own: what it applies is kept, watched and resumed as usual."""

import shutil

import keras
import numpy as np
import own_steps
import processes
import pytest
import tasks
import tensorflow as tf
from own_steps import EVERY, Adversarial, Layerwise, Meta, Sharp, Tempered

import trainer
from trainer import task
from trainer.checkpoint.layout import RunDirectory
from trainer.model.steps import NonFiniteError, TrainLoop


def loop(given, seed=0):
    current = tasks.built(given, seed=seed)
    return current, TrainLoop(given, current, tasks.inputs(given, seed))


@pytest.mark.parametrize("cls", EVERY)
def test_it_goes_on_as_if_it_had_not_been_cut_off(cls, tmp_path):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    named = {"task": f"own_steps:{cls.__name__}", "steps": 9, "report_every_steps": 4}
    tasks.train(straight, cls(), **named)
    tasks.cut_back(straight, resumed, 5)
    tasks.train(resumed, cls(), **named)
    tasks.assert_same_run(straight, resumed)
    best = tasks.only(resumed / "best" / "loss")
    reported = tasks.manifest(best)["metrics"]
    assert trainer.evaluate(resumed, "best", task=cls()) == reported
    tags = tasks.scalars(resumed)
    rates = {tag for tag in tags if tag.startswith("train/learning_rate")}
    norms = {tag.replace("gradient_norm", "learning_rate") for tag in tags}
    assert rates
    assert rates <= norms, "each optimizer has both curves"


@pytest.mark.parametrize("name", ["Adversarial", "Alternating", "Layerwise"])
def test_it_survives_real_kills(name, tmp_path):
    for module in (own_steps, tasks):
        shutil.copy(module.__file__, tmp_path)
    line = [f"--task=own_steps:{name}", "--kills=3", "--steps=9", "--batch_size=8"]
    done = processes.prove(*line, "--save_every_steps=1", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "exact" in done.stdout


def moved(given, steps=1):
    """By name, by how much the variables of the networks and of the task moved."""
    current, train = loop(given)
    before = {name: v.numpy() for name, v in current.variables().items()}
    train.run(steps)
    return {
        name: float(np.abs(v.numpy() - before[name]).max())
        for name, v in current.variables().items()
        if current.of_network(name) or name.startswith("task/")
    }


def test_an_optimizer_trains_what_stands_beside_it():
    found = moved(Layerwise(), 5)
    assert [value > 0 for value in found.values()] == [False, False, True, True]
    assert all(value > 0 for value in moved(Layerwise(), 6).values())
    assert all(value > 0 for value in moved(Tempered()).values())
    assert "task/temperature" in moved(Tempered())


def test_what_a_step_assigns_follows():
    assert all(value > 0 for value in moved(own_steps.Followed()).values())


def test_the_usual_step_is_the_one_that_stands_in_the_class():
    class Written(tasks.Plain):
        def step(self, networks, batch, optimize):
            with tf.GradientTape() as tape:
                values = optimize.values(batch)
                loss = optimize.loss(values["loss"])
            optimize.apply(optimize.gradients(tape, loss))
            return values

    states = [loop(cls()) for cls in (tasks.Plain, Written)]
    for _, train in states:
        train.run(5)
    one, other = (current.variables() for current, _ in states)
    for name, variable in one.items():
        assert variable.numpy() == pytest.approx(other[name].numpy(), abs=0), name


def test_loss_scaling_by_a_power_of_two_leaves_the_weights_as_they_are():
    plain, scaled = (loop(cls()) for cls in (Sharp, own_steps.Scaled))
    for current, train in (plain, scaled):
        train.run(5)
        assert set(train.take_norms()) == {"gradient_norm"}
        del current
    for one, other in zip(
        plain[0].networks.variables, scaled[0].networks.variables, strict=True
    ):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_clipping_and_accumulation_are_the_optimizer_s_own():
    class Clipped(own_steps.Surgery):
        def optimizers(self):
            return keras.optimizers.SGD(
                1.0, clipnorm=1e-3, gradient_accumulation_steps=2
            )

    assert max(moved(Clipped(), 1).values()) == 0
    assert 0 < max(moved(Clipped(), 2).values()) < 1.001e-3


def test_the_norm_is_the_mean_of_all_that_was_applied():
    given = own_steps.Looping()
    current, train = loop(given)
    train.run(4)
    assert current.norms.variables["optimizer/count"].numpy() == 6
    assert train.take_norms()["gradient_norm"] > 0
    assert train.take_norms() == {}


def test_a_penalty_and_the_outer_gradient_reach_through_the_inner_one():
    still = [name for name, far in moved(Adversarial()).items() if not far]
    assert len(still) == 1, "a critic's last bias is in both of what it compares"
    _, train = loop(Meta())
    train.run(1)
    first = train.take_means()["loss"]
    train.run(200)
    assert train.take_means()["loss"] < first / 10


class Exploding(own_steps.Alternating):
    """Of the generator, that is trained inside of a condition."""

    def step(self, networks, batch, optimize):
        critic, generator = networks["critic"], networks["generator"]
        critic(batch["x"])
        with tf.GradientTape(persistent=True) as tape:
            loss = optimize.loss(critic(batch["x"])[:, 0])
            made = optimize.loss(generator(batch["x"][:, :2])[:, 0] * np.float32("nan"))
        optimize.apply(optimize.gradients(tape, loss, "critic"), "critic")
        if self.step_number == 3:
            optimize.apply(optimize.gradients(tape, made, "generator"), "generator")
        return {"critic_loss": loss}


def test_a_gradient_that_is_not_finite_ends_the_run_inside_of_a_condition(tmp_path):
    told = r"the gradient of generator_loss became NaN or infinite at step 4\. Nothing"
    with pytest.raises(NonFiniteError, match=told):
        tasks.train(
            tmp_path / "run", Exploding(), task="test_own_step:Exploding", steps=6
        )
    assert tasks.steps(RunDirectory(tmp_path / "run").recent) == [1, 2, 3]


def own(step=None, **methods):
    return type("Own", (tasks.Plain,), {**methods, **({"step": step} if step else {})})


def told(**changes):
    """A step with one mistake."""

    def step(self, networks, batch, optimize):
        with tf.GradientTape() as tape:
            values = optimize.values(batch)
            loss = optimize.loss(values["loss"])
            loss = changes.get("loss", lambda one, values: one)(loss, values["loss"])
        names = changes.get("names", ())
        gradients = optimize.gradients(tape, loss, *names)
        gradients = changes.get("gradients", lambda one: one)(gradients)
        if changes.get("applies", True):
            optimize.apply(gradients, *names)
        return changes.get("returns", lambda values: values)(values)

    return own(step)


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (
            told(names=["critic"]),
            r"asks for the optimizer 'critic'; optimizers\(\) gives optimizer\.",
        ),
        (
            told(names=["critic"], applies=False),
            r"asks for the optimizer 'critic'; optimizers\(\) gives optimizer\.",
        ),
        (
            told(applies=False),
            r"applies nothing to the optimizer 'optimizer'\. Expected that each is "
            r"used: optimize\.apply\(gradients, 'optimizer'\)\. Or leave it out",
        ),
        (
            told(gradients=lambda one: one[:1]),
            r"applies 1 gradients; the optimizer 'optimizer' trains 2 variables\.",
        ),
        (
            told(gradients=lambda one: [None, None]),
            r"depends on none of the variables that the optimizer 'optimizer' trains",
        ),
        (
            told(loss=lambda one, value: value.total),
            r"step\(\) takes the gradients of \(8,\); expected one number, the mean",
        ),
        (
            told(returns=lambda values: None),
            r"^Own\.step\(\) returns NoneType; expected losses and metrics by name",
        ),
        (
            told(returns=lambda values: {"loss": tf.zeros([3])}),
            r"^Own\.step\(\) returns 'loss' with shape \(3,\); expected one number an",
        ),
        (
            own(
                lambda self, *given: super(type(self), self).step(*given),
                optimizers=lambda self: {"model": keras.optimizers.SGD()},
            ),
            r"gives no 'model_loss', which the optimizer 'model' minimises; it gives l",
        ),
        (own(metrics="auc"), r"^Own has a field 'metrics', which is the name of a m"),
        (own(step=3), r"^Own has a field 'step', which is the name of a meth"),
        (
            own(optimizers=lambda self: "adam"),
            r"gives 'optimizer' as 'adam'; expected an optimizer of Keras.*Make one",
        ),
        (
            own(optimizers=lambda self: {"x": keras.optimizers.SGD()}),
            r"gives no 'x_loss', which the optimizer 'x' minimises",
        ),
        (
            own(
                optimizers=lambda self: {"optimizer": (keras.optimizers.SGD(), "body")}
            ),
            r"'optimizer' shall train 'body'; there are the networks model\. Expected",
        ),
        (
            own(optimizers=lambda self: {"optimizer": (keras.optimizers.SGD(), 3)}),
            r"'optimizer' shall train int; expected networks, layers, variables,",
        ),
        (
            own(optimizers=lambda self: {"optimizer": (keras.optimizers.SGD(), [])}),
            r"the optimizer 'optimizer' has nothing to train: what stands beside",
        ),
        (
            own(values=lambda self, networks, batch, training: networks(batch["x"])),
            r"^Own\.values\(\) returns \w+; expected losses and metrics by name,",
        ),
    ],
)
def test_what_is_no_step_is_told(cls, text):
    with pytest.raises(task.TaskError, match=text):
        loop(cls())[1].run(1)


def test_the_number_of_the_step_is_asked_for_where_there_is_one():
    text = (
        r"^step_number is known in values\(\), step\(\), augment\(\) and decode\(\) o"
    )
    with pytest.raises(task.TaskError, match=text):
        _ = tasks.Plain().step_number


def test_an_evaluation_knows_the_step_that_it_evaluates(tmp_path):
    given = own_steps.Annealed()
    tasks.train(tmp_path, given, task="own_steps:Annealed", steps=6)
    found = dict(tasks.scalars(tmp_path)["eval/number"])
    assert found == {3: 3, 6: 6}
    assert trainer.evaluate(tmp_path, "step:5", task=given)["number"] == 5
