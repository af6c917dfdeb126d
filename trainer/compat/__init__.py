"""Every private name of TensorFlow, Keras and TensorBoard that Keepstep uses.

One file per subject, one function or constant per name. Each says why the name is
needed, what may go wrong, and why the public alternative isn't enough; each has a test
in `tests/test_compat.py` that fails by that name. No other file uses a private name.
"""
