"""Tasks that say themselves what a step of training is, as people write them."""

import keras
import tasks
import tensorflow as tf

layers = keras.layers


def dense(*units):
    return keras.Sequential([layers.Dense(n, activation="tanh") for n in units])


class Adversarial(tasks.Plain):
    """A generator and a critic that is trained three times a step, with a penalty."""

    critic_steps = 3

    def networks(self):
        critic = keras.Sequential([layers.Dense(4, "tanh"), layers.Dense(1)])
        generator = keras.Sequential([layers.Dense(4, "tanh"), layers.Dense(4)])
        return {"critic": critic, "generator": generator}

    def optimizers(self):
        rates = {"critic": 1e-2, "generator": 1e-3}
        return {name: keras.optimizers.Adam(rate) for name, rate in rates.items()}

    def step(self, networks, batch, optimize):
        critic, generator = networks["critic"], networks["generator"]
        real = batch["x"]
        for turn in range(self.critic_steps):
            noise = tf.random.stateless_normal([len(real), 2], optimize.seed + turn)
            with tf.GradientTape() as tape:
                made = generator(noise, training=True)
                with tf.GradientTape() as inner:
                    inner.watch(real)
                    slope = critic(real, training=True)
                penalty = (tf.norm(inner.gradient(slope, real), axis=1) - 1) ** 2
                apart = critic(made)[:, 0] - critic(real)[:, 0]
                loss = optimize.loss(apart + penalty)
            optimize.apply(optimize.gradients(tape, loss, "critic"), "critic")
        with tf.GradientTape() as tape:
            made = generator(noise, training=True)
            fooled = optimize.loss(-critic(made)[:, 0])
        optimize.apply(optimize.gradients(tape, fooled, "generator"), "generator")
        return {"critic_loss": loss, "generator_loss": fooled, "apart": apart}

    def values(self, networks, batch, training):
        noise = tf.random.stateless_normal([len(batch["x"]), 2], [1, 2])
        made = networks["generator"](noise)
        return {"loss": tf.reduce_mean((made - batch["x"]) ** 2, 1)}


class Alternating(Adversarial):
    """Now the one, now the other, by the number of the step."""

    def step(self, networks, batch, optimize):
        critic, generator = networks["critic"], networks["generator"]
        noise = tf.random.stateless_normal([len(batch["x"]), 2], optimize.seed)
        with tf.GradientTape(persistent=True) as tape:
            made = critic(generator(noise))[:, 0]
            loss = optimize.loss(made - critic(batch["x"])[:, 0])
            fooled = optimize.loss(-made)
        if self.step_number % 3 == 2:
            slopes = optimize.gradients(tape, fooled, "generator")
            optimize.apply(slopes, "generator")
        else:
            optimize.apply(optimize.gradients(tape, loss, "critic"), "critic")
        return {"critic_loss": loss, "generator_loss": fooled}


class Sharp(tasks.Plain):
    """Sharpness-aware minimisation."""

    def step(self, networks, batch, optimize):
        with tf.GradientTape() as tape:
            loss = optimize.loss(optimize.values(batch)["loss"])
        up = optimize.gradients(tape, loss)
        moves = [0.05 * one / tf.linalg.global_norm(up) for one in up]
        for one, move in zip(optimize.variables(), moves, strict=True):
            one.assign_add(move)
        with tf.GradientTape() as tape:
            values = optimize.values(batch)
            loss = optimize.loss(values["loss"])
        down = optimize.gradients(tape, loss)
        for one, move in zip(optimize.variables(), moves, strict=True):
            one.assign_sub(move)
        optimize.apply(down)
        return values


class Surgery(tasks.Plain):
    """Two aims on one network; what the second one would undo is taken out of it."""

    def step(self, networks, batch, optimize):
        with tf.GradientTape(persistent=True) as tape:
            answers = networks(batch["x"], training=True)[:, 0]
            near = optimize.loss((answers - batch["y"]) ** 2)
            small = optimize.loss((answers**2, tf.abs(batch["y"])))
        one = optimize.gradients(tape, near)
        other = optimize.gradients(tape, small)
        mixed = []
        for first, second in zip(one, other, strict=True):
            dot = tf.reduce_sum(first * second)
            length = tf.reduce_sum(first**2)
            against = tf.minimum(dot, 0.0) / tf.maximum(length, 1e-9)
            mixed.append(first + second - against * first)
        optimize.apply(mixed)
        return {"loss": near, "small": (answers**2, tf.abs(batch["y"]))}


class Meta(tasks.Plain):
    """Two inner steps on half of a batch; the outer gradient passes through them."""

    def step(self, networks, batch, optimize):
        kernel, bias = optimize.variables()
        half = len(batch["x"]) // 2

        def errors(kernel, bias, rows):
            answers = batch["x"][rows] @ kernel + bias
            return (answers[:, 0] - batch["y"][rows]) ** 2

        with tf.GradientTape() as tape:
            fast = [tf.convert_to_tensor(one) for one in (kernel, bias)]
            for _ in range(2):
                with tf.GradientTape() as inner:
                    inner.watch(fast)
                    loss = tf.reduce_mean(errors(*fast, slice(None, half)))
                slopes = inner.gradient(loss, fast)
                fast = [one - 0.1 * g for one, g in zip(fast, slopes, strict=True)]
            outer = optimize.loss(errors(*fast, slice(half, None)))
        networks(batch["x"])
        optimize.apply(optimize.gradients(tape, outer))
        return {"loss": outer, "inner_loss": loss}

    def networks(self):
        return keras.Sequential([layers.Input([tasks.FEATURES]), layers.Dense(1)])


class Layerwise(tasks.Plain):
    """A rate of its own for the head; the body is frozen until step 5."""

    def networks(self):
        return keras.Sequential([layers.Dense(3, "tanh"), layers.Dense(1)])

    def optimizers(self, networks):
        body, head = networks.layers
        return {
            "body": (keras.optimizers.Adam(1e-3), body),
            "head": (
                keras.optimizers.SGD(1e-2, momentum=0.9),
                [head.kernel, head.bias],
            ),
        }

    def step(self, networks, batch, optimize):
        with tf.GradientTape(persistent=True) as tape:
            values = optimize.values(batch)
            loss = optimize.loss(values["loss"])
        optimize.apply(optimize.gradients(tape, loss, "head"), "head")
        if self.step_number >= 5:
            optimize.apply(optimize.gradients(tape, loss, "body"), "body")
        return values


class Tempered(tasks.Plain):
    """Two networks by one optimizer, and a variable that is in neither."""

    def networks(self):
        scale = tf.Variable(1.0, name="temperature")
        object.__setattr__(self, "_temperature", scale)
        return {"encoder": dense(3), "head": dense(1)}

    def state(self, networks):
        return {"temperature": self._temperature}

    def optimizers(self):
        return {
            "both": (keras.optimizers.Adam(1e-2), ["encoder", "head"]),
            "temperature": (keras.optimizers.SGD(1e-2), "temperature"),
        }

    def values(self, networks, batch, training):
        inner = networks["encoder"](batch["x"], training=training)
        answers = networks["head"](inner)[:, 0] * self._temperature
        errors = (answers - batch["y"]) ** 2
        return {"loss": errors, "both_loss": errors, "temperature_loss": errors}


class Annealed(tasks.Plain):
    """A weight that rises with the steps, and noise that falls."""

    def augment(self, batch, seeds):
        share = 1 / tf.cast(self.step_number + 1, tf.float32)
        return {**batch, "x": batch["x"] * (1 + share)}

    def values(self, networks, batch, training):
        answers = networks(batch["x"], training=training)[:, 0]
        weight = tf.minimum(1.0, tf.cast(self.step_number, tf.float32) / 6)
        penalty = weight * answers**2
        number = tf.cast(self.step_number, tf.float32) * tf.ones_like(answers)
        return {"loss": (answers - batch["y"]) ** 2 + penalty, "number": number}


class Scaled(Sharp):
    """The same with loss scaling: powers of two, so the bits are the same."""

    def optimizers(self):
        return keras.optimizers.LossScaleOptimizer(super().optimizers())


class Looping(tasks.Plain):
    """A loop over tensors around what is applied."""

    def step(self, networks, batch, optimize):
        values = optimize.values(batch)
        for _ in tf.range(1 + self.step_number % 2):
            with tf.GradientTape() as tape:
                loss = optimize.loss(optimize.values(batch)["loss"])
            optimize.apply(optimize.gradients(tape, loss))
        return values


class Followed(tasks.Plain):
    """The usual step, and a target network that follows slowly."""

    def networks(self):
        return {"online": dense(1), "target": dense(1)}

    def optimizers(self):
        return {"online": keras.optimizers.Adam(1e-2)}

    def values(self, networks, batch, training):
        said = networks["online"](batch["x"], training=training)[:, 0]
        aim = networks["target"](batch["x"])[:, 0]
        errors = (said - batch["y"]) ** 2 + (said - tf.stop_gradient(aim)) ** 2
        return {"online_loss": errors, "loss": errors}

    def step(self, networks, batch, optimize):
        values = super().step(networks, batch, optimize)
        pairs = zip(
            networks["target"].variables, networks["online"].variables, strict=True
        )
        for slow, fast in pairs:
            slow.assign(0.9 * slow + 0.1 * fast)
        return values


class Curriculum(tasks.Plain):
    """Decodes its examples the harder the further it is."""

    def sources(self):
        found = super().sources()
        rows = dict(found["train"])
        listed = [{k: v[n] for k, v in rows.items()} for n in range(len(rows["x"]))]
        return {**found, "train": listed}

    def decode(self, example, seed):
        return {**example, "number": self.step_number}

    def values(self, networks, batch, training):
        found = super().values(networks, batch, training)
        number = tf.cast(batch["number"], tf.float32)
        if training:
            tf.debugging.assert_equal(batch["number"][0], self.step_number)
        return {**found, "number": number}


EVERY = (
    *(Adversarial, Alternating, Sharp, Surgery, Meta, Layerwise, Tempered, Annealed),
    *(Scaled, Looping, Followed, Curriculum),
)
