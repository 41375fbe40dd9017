"""What other threads hand to the engine's thread arrives, and nobody waits longer than was said."""

import multiprocessing
import threading
from contextlib import contextmanager

import pytest

from orchestra.runtime.mailbox import Mailbox


def burn():
    while True:
        pass


@contextmanager
def busy_processors(processes=6):
    burning = [
        multiprocessing.get_context("spawn").Process(target=burn, daemon=True)
        for _ in range(processes)
    ]
    for process in burning:
        process.start()
    try:
        yield
    finally:
        for process in burning:
            process.kill()
        for process in burning:
            process.join()


def test_items_come_out_in_their_order_and_once():
    mailbox = Mailbox()
    for number in range(3):
        mailbox.put(number)
    mailbox.wait(60)  # returns at once: something is there
    assert mailbox.take() == [0, 1, 2]
    assert mailbox.take() == []


def test_whoever_waits_is_woken_by_an_item():
    mailbox, taken = Mailbox(), []

    def receive():
        while not taken:
            mailbox.wait(60)
            taken.extend(mailbox.take())

    thread = threading.Thread(target=receive)
    thread.start()
    mailbox.put("news")
    thread.join(30)
    assert taken == ["news"]


def test_nothing_is_lost_between_many_senders_and_one_receiver():
    mailbox, taken = Mailbox(), []
    senders = [
        threading.Thread(target=lambda of=of: [mailbox.put((of, n)) for n in range(2000)])
        for of in range(4)
    ]
    for sender in senders:
        sender.start()
    while len(taken) < 8000:
        mailbox.wait(30)
        taken.extend(mailbox.take())
    for sender in senders:
        sender.join()
    assert [[n for of, n in taken if of == wanted] for wanted in range(4)] == [
        list(range(2000))
    ] * 4


@pytest.mark.slow
def test_a_short_wait_ends_although_the_thread_loses_its_processor():
    """``queue.SimpleQueue`` hangs here on CPython 3.11 after some ten thousand rounds: no timer
    would fire.
    """
    mailbox, rounds = Mailbox(), []

    def wait_shortly():
        for _ in range(40_000):
            mailbox.put(1)
            mailbox.take()
            mailbox.wait(2e-6)
        rounds.append("done")

    with busy_processors():
        thread = threading.Thread(target=wait_shortly, daemon=True)
        thread.start()
        thread.join(60)
    assert rounds == ["done"]
