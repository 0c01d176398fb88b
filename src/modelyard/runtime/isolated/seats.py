"""The processes of one model as an event loop speaks to them: questions go out as they come, answers come back as they are ready.

Hides non-blocking sockets, what is in flight, who is replaced and after which pause. A process that ends costs the question that it was at; those
behind it go to the next one. One that is at a question past its time is ended only when the run is also long for this model: a caller in a hurry says
nothing of it, and must not cost others the process. It must not block and must not judge: what happened is handed to `record`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from modelyard.errors import DeadlineExceeded, ModelFailed, ModelyardError, Unavailable
from modelyard.retries import Budget
from modelyard.runtime.base import Done
from modelyard.runtime.isolated import codec
from modelyard.runtime.isolated.process import Ended, Process, Raised, failed

if TYPE_CHECKING:
    from modelyard.types import Array

DEPTH = 2
"""Questions that a process has at once: it need not wait for the next while its answer travels."""

LONGEST_WAIT_S = 1.0
"""Above this pause questions are refused at once rather than kept."""

PATIENCE_S = 1.0
USUAL = 2.0
"""A run is long when it took PATIENCE_S, about what the next process needs to start, and USUAL times the longest that was answered."""

REAP_S = 0.005
STATUS_S = 0.25
BURY_S = 30.0
KNOWN = ("hang", "oom", "garbled")
"""Ends of which the reason is known without the process's status."""


class Question:
    """One batch on its way."""

    __slots__ = ("deadline_s", "done", "ident", "inputs")

    def __init__(self, inputs: Mapping[str, Array], done: Done, deadline_s: float) -> None:
        self.inputs = inputs
        self.done = done
        self.deadline_s = deadline_s
        self.ident = 0


class Seat:
    """One place for a process, and what is asked of it. Lives in the event loop."""

    def __init__(self, seats: Seats, process: Process | None) -> None:
        self._seats = seats
        self._loop = seats.loop
        self.process: Process | None = None
        self.flying: deque[Question] = deque()
        self._stray: deque[Question] = deque()
        """Questions that the process never got: it had ended, and the loop had not heard of it."""
        self.is_ready = False
        self.closed_until_s = 0.0
        self._count = 0
        self._unsent: deque[memoryview] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._begun_s = 0.0
        if process is not None:
            self._take(process)
            self.is_ready = True

    @property
    def has_room(self) -> bool:
        """Whether it takes a question now; one whose process has ended does not, though the loop has not heard of it."""
        return self.is_ready and not self._stray and len(self.flying) < DEPTH

    def _take(self, process: Process) -> None:
        self.process = process
        process.socket.setblocking(False)
        self._unsent.clear()
        self._count = 0
        self._loop.add_reader(process.socket, self._on_readable)

    def ask(self, question: Question) -> None:
        """Send it. Raises ModelFailed for arrays that do not travel, Unavailable without a process."""
        process = self.process
        if process is None:
            raise Unavailable("the model's process has just ended; try again")
        self._count = ident = self._count + 1 & 0xFFFFFFFF
        question.ident = ident
        try:
            buffers = process.writer.tensors(codec.ASK, ident, question.inputs)
        except (TypeError, ValueError) as error:
            raise ModelFailed("the model failed on an input that its schema accepts") from error
        self.flying.append(question)
        if len(self.flying) == 1:
            self._begin(question)
        if not self._unsent:
            try:
                if len(buffers) == 1:
                    (data,) = buffers
                    sent = process.socket.send(data)
                    if sent == len(data):
                        return
                else:
                    sent = process.socket.sendmsg(buffers)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._stray.append(self.flying.pop())  # the reader finds out, and this question goes to the next
                return
            self._keep(buffers, sent)
            if self._unsent:
                self._loop.add_writer(process.socket, self._on_writable)
        else:
            self._keep(buffers, 0)

    def _keep(self, buffers: list[codec.Buffer], sent: int) -> None:
        for buffer in buffers:
            view = memoryview(buffer)
            if sent >= len(view):
                sent -= len(view)
            else:
                self._unsent.append(view[sent:])
                sent = 0

    def _on_writable(self) -> None:
        process = self.process
        if process is None:
            return
        try:
            while self._unsent:
                view = self._unsent[0]
                sent = process.socket.send(view)
                if sent < len(view):
                    self._unsent[0] = view[sent:]
                    return
                self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        self._loop.remove_writer(process.socket)

    def _on_readable(self) -> None:
        process = self.process
        if process is None:
            return
        reader = process.reader
        try:
            count = process.socket.recv_into(reader.room())
            if not count:
                self._lost(Ended("exit"))
                return
            reader.filled(count)
            while self.process is process and (frame := reader.next()) is not None:
                self._on_frame(process, frame)
        except BlockingIOError:
            return
        except codec.Garbled as error:
            self._lost(error)
        except OSError:
            self._lost(Ended("exit"))

    def _on_frame(self, process: Process, frame: codec.Frame) -> None:
        if not self.is_ready:
            self._greeted(process, frame)
            return
        flying = self.flying
        if not flying or flying[0].ident != frame.ident:
            raise codec.Garbled("an answer to no question")
        if frame.kind == codec.ANSWER:
            outputs = process.reader.tensors(frame)
            question = self._ended_well()
            seconds = frame.micros / 1e6
            self._seats.longest_s = max(self._seats.longest_s, seconds)
            question.done(outputs, None, seconds)
            return
        facts = codec.facts(frame)
        if frame.kind != codec.FAILED:
            raise codec.Garbled("an answer of an unknown kind")
        if facts.get("out_of_memory"):
            self._lost(Ended("oom"))
            return
        question = self._ended_well()
        failure = ModelFailed("the model failed on an input that its schema accepts")
        failure.__cause__ = Raised(facts)
        question.done(None, failure, 0.0)

    def _ended_well(self) -> Question:
        """The question that the process is done with; it goes on with the next."""
        question = self.flying.popleft()
        if self.flying:
            self._begin(self.flying[0])
        self._seats.next(self)
        return question

    def _greeted(self, process: Process, frame: codec.Frame) -> None:
        try:
            process.greeted(frame)
        except ModelyardError as error:
            self._lost(Ended("exit", error.message))
            return
        self.is_ready = True
        self._disarm()
        self._seats.next(self)

    # Time.

    def _begin(self, question: Question) -> None:
        """The process comes to `question` now."""
        self._begun_s = monotonic()
        due_s = self._due_s(question)
        if self._alarm is None or due_s < self._alarm_at:
            self._watch(due_s)

    def _due_s(self, question: Question) -> float:
        """When the process that is at `question` is taken to hang."""
        patience_s = max(PATIENCE_S, USUAL * self._seats.longest_s)
        if self.process is not None:
            patience_s = min(patience_s, self.process.isolation.answer_timeout_s)
        return max(question.deadline_s, self._begun_s + patience_s)

    def _watch(self, deadline_s: float) -> None:
        self._disarm()
        self._alarm_at = deadline_s
        self._alarm = self._loop.call_later(max(0.0, deadline_s - monotonic()), self._ring)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        now = monotonic()
        if self.process is None:
            self._start()
        elif not self.is_ready:
            self._lost(Ended("hang", "it did not get ready"))
        elif self.flying:
            due_s = self._due_s(self.flying[0])
            if due_s <= now:
                self._lost(Ended("hang"))
            else:
                self._watch(due_s)

    # Its end, and the next one.

    def _lost(self, error: Ended | codec.Garbled) -> None:
        """The process is gone or must go: its question fails, those behind it are asked again, and another takes the seat."""
        process, self.process = self.process, None
        if process is None:
            return
        was_ready, self.is_ready = self.is_ready, False
        self._loop.remove_reader(process.socket)
        self._loop.remove_writer(process.socket)
        self._unsent.clear()
        self._disarm()
        flying, self.flying = self.flying, deque()
        question = flying.popleft() if flying else None
        flying += self._stray
        self._stray.clear()
        ended = Ended("garbled", str(error)) if isinstance(error, codec.Garbled) else error
        self._seats.dead.add(process)
        self._seats.again(flying)  # before a pause begins, in which none of them waits
        if ended.reason in KNOWN:
            self._ended(ended, question, was_ready)
            self._bury(process, monotonic())
        else:
            self._find_out(process, question, monotonic(), was_ready)

    def _find_out(self, process: Process, question: Question | None, since_s: float, was_ready: bool) -> None:
        """Once its status is there: why it ended. One that only closed its socket has none."""
        if process.reap() or monotonic() - since_s > STATUS_S:
            self._ended(process.status(), question, was_ready)
            self._bury(process, monotonic())
        else:
            self._loop.call_later(REAP_S, self._find_out, process, question, since_s, was_ready)

    def _ended(self, ended: Ended, question: Question | None, was_ready: bool) -> None:
        pause_s = self._seats.record(ended, was_ready)
        if question is not None:
            failure: ModelyardError = failed(ended)
            if ended.reason == "hang":
                failure = DeadlineExceeded("the time given passed while the model ran")
            failure.__cause__ = ended
            question.done(None, failure, 0.0)
        if self._seats.is_open:
            self.closed_until_s = monotonic() + pause_s
            if pause_s:
                self._watch(self.closed_until_s)
                self._seats.refuse()
            else:
                self._start()

    def _bury(self, process: Process, since_s: float) -> None:
        """See to it that it is dead, without waiting here: one that held much memory takes its time."""
        process.kill()
        if process.reap() or monotonic() - since_s > BURY_S:
            self._seats.dead.discard(process)
            process.close()
        else:
            self._loop.call_later(REAP_S, self._bury, process, since_s)

    def _start(self) -> None:
        try:
            process = self._seats.start()
        except ModelyardError as error:
            pause_s = self._seats.record(Ended("exit", error.message), False)
            self.closed_until_s = monotonic() + pause_s
            self._watch(self.closed_until_s + 0.05)
            self._seats.refuse()
            return
        self._take(process)
        self._watch(monotonic() + process.isolation.start_timeout_s)

    def close(self) -> None:
        """End the process; nothing may be in flight."""
        self._disarm()
        process, self.process = self.process, None
        if process is not None:
            self._loop.remove_reader(process.socket)
            self._loop.remove_writer(process.socket)
            process.close()


class Seats:
    """All seats of one model in one event loop, and the questions that wait for one."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        processes: list[Process],
        *,
        count: int,
        start: Callable[[], Process],
        record: Callable[[Ended, bool], float],
    ) -> None:
        self.loop = loop
        self.start = start
        self.record = record
        self.is_open = True
        self.dead: set[Process] = set()
        """Processes that ended, or must, and are not yet gone."""
        self.longest_s = max((process.longest_s for process in processes), default=0.0)
        self._budget = Budget()
        self._waiting: deque[Question] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self.seats = [Seat(self, process) for process in processes]
        for _ in range(count - len(processes)):
            seat = Seat(self, None)
            self.seats.append(seat)
            seat._start()

    def ask(self, question: Question) -> None:
        """Send it to the process that has least to do, or keep it until one is there. Raises Unavailable while none will be soon."""
        self._budget.asked()
        best: Seat | None = None
        for seat in self.seats:
            if seat.has_room and (best is None or len(seat.flying) < len(best.flying)):
                best = seat
        if best is not None:
            best.ask(question)
            return
        if not self._may_wait:
            raise _paused()
        self._waiting.append(question)
        self._watch(question.deadline_s)

    @property
    def _may_wait(self) -> bool:
        """Whether a process is there, or soon will be."""
        return any(seat.process is not None or seat.closed_until_s - monotonic() < LONGEST_WAIT_S for seat in self.seats)

    def refuse(self) -> None:
        """Let what waits wait no longer than what is asked now: each of it may be what ends the next process, and the one after that, and where
        none can be started nothing comes."""
        if self._waiting and not self._may_wait:
            waiting, self._waiting = self._waiting, deque()
            for question in waiting:
                question.done(None, _paused(), 0.0)

    def again(self, questions: deque[Question]) -> None:
        """Ask these, which were behind one that ended its process, before all others, as far as the budget of tries again allows."""
        spared = [self._budget.take() for _ in questions]
        for question, is_spared in zip(questions, spared, strict=True):
            if not is_spared:
                question.done(None, Unavailable("the model's process ended before it came to this request; try again"), 0.0)
        questions = deque(question for question, is_spared in zip(questions, spared, strict=True) if is_spared)
        self._waiting.extendleft(reversed(questions))
        if questions:
            self._watch(min(question.deadline_s for question in questions))
            for seat in self.seats:
                self.next(seat)

    def next(self, seat: Seat) -> None:
        """`seat` has room: give it what waits."""
        while self._waiting and seat.has_room:
            question = self._waiting.popleft()
            if question.deadline_s < monotonic():
                question.done(None, _late(), 0.0)
                continue
            try:
                seat.ask(question)
            except ModelyardError as error:
                question.done(None, error, 0.0)

    def _watch(self, deadline_s: float) -> None:
        if self._alarm is None:
            self._alarm = self.loop.call_later(max(0.001, deadline_s - monotonic()), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = monotonic()
        late = [question for question in self._waiting if question.deadline_s <= now]
        self._waiting = deque(question for question in self._waiting if question.deadline_s > now)
        if self._waiting:
            self._watch(min(question.deadline_s for question in self._waiting))
        for question in late:
            question.done(None, _late(), 0.0)

    def close(self) -> None:
        """End all processes."""
        self.is_open = False
        if self._alarm is not None:
            self._alarm.cancel()
        for seat in self.seats:
            seat.close()
        for process in self.dead:
            process.close()


def _paused() -> Unavailable:
    return Unavailable("the model's process has ended several times and is started again after a pause; try again")


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the time given passed before the model could run")
