"""Checkpoints of a run: saved, committed, pruned, promoted to best, restored.

    keeper = checkpoints.Keeper(run_dir, keep_recent=3, best=rules)
    keeper.prepare()                       # clean what a killed save left
    found = keeper.restore(state)          # the newest good one, or None
    keeper.save(state.tree, draft)         # commit, then promote, then prune

`tf.train.CheckpointManager` writes the files; the manifests are the truth about which
of them count. TensorFlow's own list, the file `checkpoint`, is derived from them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import final

import tensorflow as tf
from absl import logging

from trainer import catalog, faults, manifest, retention, state, storage

_OURS = re.compile(r"ckpt-(\d+)(\.index|\.data-.*|\.json\.tmp|_temp|\..*tempstate.*)")
_TEMPORARY = re.compile(r"checkpoint\.tmp.*|.*\.tmp")
_DAMAGED = ".damaged"


class SaveError(RuntimeError):
    """A checkpoint could not be written."""


class NoUsableCheckpointError(RuntimeError):
    """Checkpoints exist, and every one of them is damaged."""


class DamagedCheckpointError(RuntimeError):
    """The files of a checkpoint are not what was committed."""


@final
class Keeper:
    """The checkpoints of one run directory. Only the holder of its lock may use it."""

    def __init__(
        self,
        run_dir: pathlib.Path,
        *,
        keep_recent: int,
        best: Sequence[retention.Best],
    ) -> None:
        self._run_dir = run_dir
        self._recent = run_dir / catalog.RECENT
        # A step that is committed already is written here first: see `save`.
        self._staging = self._recent / "staging"
        self._keep_recent = keep_recent
        self._best = tuple(best)

    def prepare(self) -> None:
        """Makes the directory whole again after a kill at any instant."""
        storage.make_directory(self._recent)
        for directory in (self._recent, *catalog.best_directories(self._run_dir)):
            _remove_debris(directory)
        self._adopt_staged()

    def restore(self, current: state.State) -> manifest.Manifest | None:
        """Restores the newest checkpoint whose every byte is right.

        What is damaged is renamed `*.damaged`, loudly, and never deleted.

        Returns:
          The manifest of what was restored, or None if there never was a checkpoint.

        Raises:
          NoUsableCheckpointError: there were some, and all are damaged.
          state.IncompatibleCheckpointError: the newest good one doesn't fit.
        """
        for entry in catalog.scan(self._run_dir):
            problem = entry.problem
            if entry.manifest is not None:
                problem = manifest.damage(entry.directory, entry.manifest)
            if entry.manifest is None or problem:
                _set_aside(entry, problem or "unreadable")
                continue
            _check_compatible(entry, current, entry.manifest)
            current.restore(str(entry.prefix))
            self._settle()
            return entry.manifest
        directories = [self._recent, *catalog.best_directories(self._run_dir)]
        if any(path for one in directories for path in one.glob(f"*{_DAMAGED}")):
            raise NoUsableCheckpointError(
                f"every checkpoint in {self._run_dir} is damaged; nothing was restored "
                f"and nothing is lost: they are the files *{_DAMAGED}. Give another "
                "--run_dir to train from scratch, or bring back a good copy."
            )
        return None

    def go_back(self, entry: catalog.Entry, current: state.State, number: int) -> None:
        """Makes `entry` the newest checkpoint; later ones go to `abandoned/<number>`.

        Nothing is deleted: each is linked to its new place before it leaves the old
        one, so a kill in between leaves more than needed, and doing it again is fine.

        Raises:
          DamagedCheckpointError: its files are not what was committed.
          state.IncompatibleCheckpointError: it doesn't fit; nothing was moved.
        """
        mark = _verified(entry)
        _check_compatible(entry, current, mark)
        own = self._run_dir.absolute() in entry.directory.absolute().parents
        aside = self._run_dir / "abandoned" / str(number)
        for later in catalog.scan(self._run_dir):
            if later.manifest is None or (own and later.step <= entry.step):
                continue
            home = aside / later.directory.relative_to(self._run_dir)
            storage.make_directory(home)
            _link(later.manifest, later.directory, home)
            _remove(later.directory, later.step)
        if entry.directory != self._recent:
            _link(mark, entry.directory, self._recent)
        _record_state(self._recent, manifest.steps(self._recent))

    def is_best(
        self,
        step: int,
        metrics: Mapping[str, float],
        pending: manifest.Manifest | None = None,
    ) -> bool:
        """Whether a checkpoint with these metrics would be among the best.

        Args:
          step: of that checkpoint.
          metrics: of its evaluation.
          pending: a checkpoint that is being saved, which counts as saved.
        """
        for rule in self._best:
            directory = self._directory(rule)
            entries = catalog.ranked(directory, rule)
            if pending is not None:
                entries.append(catalog.Entry(directory, pending.step, pending))
            values = _values(entries, rule)
            if rule.metric in metrics and step not in values:
                values[step] = metrics[rule.metric]
                if step in rule.top(values):
                    return True
        return False

    def save(self, tree: tf.train.Checkpoint, draft: manifest.Manifest) -> int:
        """Saves and commits a tree, then promotes, then prunes.

        A step that is committed already is never written over, for a kill would lose
        it: the new files are made beside it and take its place when they are whole.

        Args:
          tree: what is saved: the live one, or its shadow.
          draft: the manifest, but for the files.

        Returns:
          The size of the checkpoint in bytes.

        Raises:
          SaveError: it could not be written; says the path and the cause. What was
            committed before is as it was, and the step can be saved again.
        """
        step = draft.step
        again = step in manifest.steps(self._recent)
        directory = self._staging if again else self._recent
        try:
            storage.make_directory(directory)
            self._check_space(directory)
            _write(tree, directory, draft)
        except (OSError, tf.errors.OpError) as error:
            with contextlib.suppress(OSError):
                _remove_debris(directory)
            raise SaveError(
                f"{directory / manifest.PREFIX}-{step} could not be saved: {error}. "
                "Every earlier checkpoint is as it was."
            ) from error
        self._settle()
        return manifest.read(self._recent, step).bytes

    def _check_space(self, directory: pathlib.Path) -> None:
        """Whether the newest checkpoint would fit once more."""
        steps = manifest.steps(self._recent)
        needed = manifest.read(self._recent, steps[-1]).bytes if steps else 0
        free = storage.free_bytes(directory)
        if free < needed:
            raise OSError(
                f"it needs {needed} bytes and {free} are free: {needed - free} short"
            )

    def _settle(self) -> None:
        """Brings the directories to what the manifests call for.

        Doing so twice is fine, so a kill in between is mended by the next start.
        """
        self._adopt_staged()
        recent = [e for e in catalog.scan(self._run_dir) if e.directory == self._recent]
        for rule in self._best:
            self._promote(rule, recent)
        steps = manifest.steps(self._recent)
        kept = retention.recent(steps, keep_recent=self._keep_recent)
        _record_state(self._recent, kept)
        for step in steps:
            if step not in kept:
                _remove(self._recent, step)

    def _adopt_staged(self) -> None:
        """Lets what was saved a second time take the place of the first."""
        for step in manifest.steps(self._staging):
            _remove(self._recent, step)
            _link(manifest.read(self._staging, step), self._staging, self._recent)
        storage.delete(self._staging)

    def _promote(self, rule: retention.Best, recent: Sequence[catalog.Entry]) -> None:
        """Links those of `recent` that are among the best, then lets the worst go."""
        directory = self._directory(rule)
        entries = {e.step: e for e in recent}
        entries |= {e.step: e for e in catalog.ranked(directory, rule)}
        top = rule.top(_values(entries.values(), rule))
        if not top:
            return
        storage.make_directory(directory)
        for step in top:
            entry = entries[step]
            if entry.directory != directory and entry.manifest is not None:
                faults.point("promotion")
                _link(entry.manifest, entry.directory, directory)
        _record_state(directory, top[::-1])
        for step in manifest.steps(directory):
            if step not in top:
                _remove(directory, step)

    def _directory(self, rule: retention.Best) -> pathlib.Path:
        return self._run_dir / catalog.BEST / rule.metric


def _write(
    tree: tf.train.Checkpoint, directory: pathlib.Path, draft: manifest.Manifest
) -> None:
    """Writes the files of a checkpoint and commits them."""

    def commit(prefix: str) -> None:
        # In place, and not yet recorded by the manager: now they become durable.
        faults.point("save")
        for path in directory.glob(f"{pathlib.Path(prefix).name}.*"):
            storage.sync(path)
        files = manifest.measure(directory, draft.step)
        manifest.write(directory, dataclasses.replace(draft, files=files))

    # Made anew each time: its list is then what the manifests say.
    manager = tf.train.CheckpointManager(
        tree, str(directory), max_to_keep=None, checkpoint_name=manifest.PREFIX
    )
    options = tf.train.CheckpointOptions(experimental_write_callbacks=[commit])
    manager.save(checkpoint_number=draft.step, options=options)


def load_networks(entry: catalog.Entry, current: state.State) -> None:
    """Verifies a checkpoint and restores its networks alone. Changes no file.

    Raises:
      DamagedCheckpointError: the files are not what was committed.
      state.IncompatibleCheckpointError: the networks are not those of the checkpoint.
    """
    _check_compatible(entry, current, _verified(entry), networks_only=True)
    current.restore_networks(str(entry.prefix))


def load_weights(entry: catalog.Entry, current: state.State) -> state.Match:
    """Verifies a checkpoint and takes from it the weights that fit, by path and shape.

    Raises:
      DamagedCheckpointError: the files are not what was committed.
    """
    return current.take_weights(str(entry.prefix), _verified(entry).variables)


def _verified(entry: catalog.Entry) -> manifest.Manifest:
    problem = entry.problem
    if entry.manifest is not None:
        problem = manifest.damage(entry.directory, entry.manifest)
    if entry.manifest is None or problem:
        raise DamagedCheckpointError(
            f"{entry.prefix} is damaged: {problem}. Choose another one; `list` shows "
            "which there are."
        )
    return entry.manifest


def _check_compatible(
    entry: catalog.Entry,
    current: state.State,
    mark: manifest.Manifest,
    *,
    networks_only: bool = False,
) -> None:
    state.check_compatible(
        current,
        mark.variables,
        source=str(entry.prefix),
        advice="The task builds another state than the one that was saved: start with "
        "the same flags (config.json in the run directory) and the same code, or give "
        "another --run_dir.",
        networks_only=networks_only,
    )


def _values(entries: Iterable[catalog.Entry], rule: retention.Best) -> dict[int, float]:
    """The metric of a rule by step, where the evaluation gave it."""
    return {
        entry.step: entry.manifest.metrics[rule.metric]
        for entry in entries
        if entry.manifest is not None and rule.metric in entry.manifest.metrics
    }


def _link(mark: manifest.Manifest, source: pathlib.Path, target: pathlib.Path) -> None:
    """Gives a checkpoint a second home, its manifest last."""
    for name in mark.files:
        storage.link(source / name, target / name)
    storage.sync(target)
    path = manifest.path_of(source, mark.step)
    storage.link(path, target / path.name)
    storage.sync(target)


def _remove(directory: pathlib.Path, step: int) -> None:
    """Deletes a checkpoint, its manifest first: what is left is debris at worst."""
    storage.delete(manifest.path_of(directory, step))
    storage.sync(directory)
    for path in directory.glob(f"ckpt-{step}.*"):
        if not path.name.endswith(_DAMAGED):
            storage.delete(path)


def _set_aside(entry: catalog.Entry, problem: str) -> None:
    logging.error(
        "damaged checkpoint %s: %s. It is renamed *%s, and an older one is used.",
        entry.prefix,
        problem,
        _DAMAGED,
    )
    mark = manifest.path_of(entry.directory, entry.step)
    files = sorted(
        entry.directory.glob(f"ckpt-{entry.step}.*"), key=lambda p: p != mark
    )
    for path in files:
        if not path.name.endswith(_DAMAGED):
            storage.replace(path, path.with_name(path.name + _DAMAGED))


def _remove_debris(directory: pathlib.Path) -> None:
    """Deletes what a killed save left: files of ours that no manifest speaks for."""
    committed = set(manifest.steps(directory))
    for path in directory.iterdir():
        if path.name.endswith(_DAMAGED):
            continue
        match = _OURS.fullmatch(path.name)
        if (match and int(match[1]) not in committed) or (
            _TEMPORARY.fullmatch(path.name)
        ):
            logging.info("removing what an interrupted save left: %s", path)
            storage.delete(path)


def _record_state(directory: pathlib.Path, steps: Sequence[int]) -> None:
    """Writes TensorFlow's own list; the last of `steps` is what it calls the latest.

    A CheckpointState proto as text, with names relative to the directory, so that the
    run can be moved.
    """
    if not steps:
        return
    lines = [f'model_checkpoint_path: "{manifest.PREFIX}-{steps[-1]}"']
    lines += [
        f'all_model_checkpoint_paths: "{manifest.PREFIX}-{step}"' for step in steps
    ]
    storage.write_atomically(directory / "checkpoint", "\n".join(lines) + "\n")
