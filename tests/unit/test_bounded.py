"""A conversation that ends in time, whatever the other side does."""

from __future__ import annotations

import socket

from modelyard.bounded import Bound, bounded, hang_up


def test_a_reader_is_hung_up_on() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, bounded(0.05) as bound:
        bound.watch(ours)
        assert ours.recv(1) == b"", "it would wait for ever"
        assert bound.is_over


def test_a_socket_that_comes_late_is_hung_up_on_at_once() -> None:
    bound = Bound()
    bound.end()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bound.watch(ours)
        assert ours.recv(1) == b""
    bound.close()


def test_whoever_stops_hangs_up_on_all() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, bounded(30.0) as bound:
        bound.watch(ours)
        hang_up()
        assert ours.recv(1) == b"" and bound.is_over
    hang_up()


def test_what_ends_in_time_is_left_alone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with bounded(30.0) as bound:
            bound.watch(ours)
        assert not bound.is_over
        theirs.send(b"x")
        assert ours.recv(1) == b"x"


def test_a_connection_that_was_put_under_another_name_is_hung_up_on_all_the_same() -> None:
    ours, theirs = socket.socketpair()
    bound = Bound()
    bound.watch(ours)
    wrapped = socket.socket(fileno=ours.detach())
    with wrapped, theirs:
        bound.end()
        assert wrapped.recv(1) == b""
    bound.close()


def test_the_end_of_what_is_closed_is_no_failure() -> None:
    ours, theirs = socket.socketpair()
    bound = Bound()
    bound.watch(ours)
    theirs.close()
    ours.close()
    bound.end()
    bound.close()
    bound.close()
    bound.end()
