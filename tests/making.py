from trainer.checkpoint import layout, manifest


def checkpoint(directory, step, metrics=None, *, write_files=True, **changes):
    """A committed checkpoint with small files; what it says is also returned."""
    directory.mkdir(parents=True, exist_ok=True)
    if write_files:
        (directory / f"ckpt-{step}.index").write_bytes(f"index {step}".encode())
        data = directory / f"ckpt-{step}.data-00000-of-00001"
        data.write_bytes(f"numbers {step} ".encode() * 50)
    fields = {
        "step": step,
        "metrics": metrics or {},
        "files": manifest.measure(directory, step),
        "variables": (manifest.Variable("model/dense/kernel", (8, 2), "float32"),),
        "records": {},
        "config_digest": "c0ffee",
        "events": {"train/events.out.tfevents.1": 88},
        "created": 1700000000.25 + step,
        "versions": {"keepstep": "0.1.0"},
    }
    mark = manifest.Manifest(**(fields | changes))
    manifest.write(directory, mark)
    return mark


def spoil(directory, step, content='{"format": 1, "st'):
    """What is left of the manifest is not JSON."""
    layout.manifest_path(directory, step).write_text(content)
