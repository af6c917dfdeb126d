import contextlib
import os
import signal
import subprocess
import sys

import processes
import pytest

from trainer.training import preemption

NUMBERS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
TWICE = """
import os, signal, sys
from trainer.training import preemption
with preemption.listening() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    print(stop.signal, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("went on", flush=True)
"""


@pytest.fixture
def heard():
    """What reaches the handlers that were there before."""
    numbers = []

    def hear(number, frame):
        numbers.append(number)

    before = {number: signal.signal(number, hear) for number in NUMBERS}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_is_a_request_and_the_second_acts_as_before(heard, number):
    with preemption.listening() as stop:
        assert not stop()
        assert stop.signal is None
        send(number)
        assert stop()
        assert stop.signal == number.name
        assert heard == []
        send(number)
        assert heard == [number]


def test_the_first_signal_gives_all_of_them_back(heard):
    with preemption.listening() as stop:
        send(signal.SIGUSR1)
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert stop.signal == "SIGUSR1"
        assert heard == [signal.SIGTERM, signal.SIGINT]


def test_the_second_ctrl_c_interrupts(heard):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with preemption.listening() as stop:
        send(signal.SIGINT)
        assert stop.signal == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_a_signal_that_was_ignored_before_is_ignored_again(heard):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with preemption.listening() as stop:
        send(signal.SIGUSR1)
        assert stop()
        send(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    assert heard == []


@pytest.mark.parametrize("number", NUMBERS)
def test_after_the_block_no_signal_is_a_request(heard, number):
    with preemption.listening() as stop:
        pass
    send(number)
    assert heard == [number]
    assert not stop()


@pytest.mark.parametrize("number", NUMBERS)
def test_an_error_gives_the_handlers_back(heard, number):
    with pytest.raises(ZeroDivisionError), preemption.listening():
        raise ZeroDivisionError
    send(number)
    assert heard == [number]


def test_each_block_listens_anew(heard):
    with preemption.listening():
        send(signal.SIGTERM)
    with preemption.listening() as stop:
        assert not stop()
        send(signal.SIGUSR1)
        assert stop.signal == "SIGUSR1"
    assert heard == []


@pytest.mark.parametrize("number", NUMBERS)
def test_where_there_is_nothing_to_save_the_first_signal_stops_at_once(heard, number):
    with preemption.listening() as stop:
        interrupted = pytest.raises(preemption.Interrupted, match=number.name)
        with interrupted, stop.interrupting():
            send(number)
            pytest.fail("went on")
        assert stop.signal == number.name
        send(number)
    assert heard == [number]


def test_a_request_from_before_stops_what_would_begin_now(heard):
    with preemption.listening() as stop:
        send(signal.SIGTERM)
        interrupted = pytest.raises(preemption.Interrupted, match="SIGTERM")
        with interrupted, stop.interrupting():
            pytest.fail("begun")


def test_a_request_waits_again_after_the_block_that_it_could_interrupt(heard):
    with preemption.listening() as stop:
        with stop.interrupting():
            assert not stop()
        send(signal.SIGTERM)
        assert stop()


def test_an_interruption_passes_where_errors_are_caught(heard):
    """As KeyboardInterrupt does: a library that retries must not swallow it."""
    interrupted = pytest.raises(preemption.Interrupted)
    with preemption.listening() as stop, interrupted, stop.interrupting():
        with contextlib.suppress(Exception):
            send(signal.SIGTERM)
        pytest.fail("went on")


def test_two_terminations_end_a_process():
    command = [sys.executable, "-c", TWICE]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=processes.PATIENCE_SECS
    )
    assert done.stdout == "SIGTERM\n", done.stderr
    assert done.returncode == -signal.SIGTERM
