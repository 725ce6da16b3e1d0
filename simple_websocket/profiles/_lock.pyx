# cython: language_level=3
"""A reentrant lock for steps that are short, and seldom disturbed.

It says what ``_thread.RLock`` says, for the steps of ``locked.py``.  Each message
takes it three times, nearly always when it is free; then this is a few
instructions, where the other's methods are called by name and parse arguments.

Who has the GIL may look at it and change it, and nothing here lets go of the GIL
but a wait.  Who waits does so on a real lock, the gate, which is shut but for
once after the lock became free.  Whoever comes first has it then, so who comes
through the gate looks again.  Who has come in vain too often has it kept for the next
who comes through: others that have the GIL would take it for ever.
"""

cimport cython

from .originals import builtin

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()


cdef enum:
    PATIENCE = 2  # times to come through the gate in vain


@cython.no_gc
cdef class StepLock:
    """A lock that the thread that has it can take again."""

    def acquire(self):
        """Wait until nobody else has it, and take it; a signal handler that raises
        ends the wait."""
        self.take()

    def release(self):
        """Give back what was taken last.

        :raises RuntimeError: in a thread that does not have it.
        """
        self.give_back()

    def __enter__(self):
        self.take()

    def __exit__(self, *error):
        self.give_back()

    # What ``threading.Condition`` asks of a reentrant lock.

    def _is_owned(self):
        return self.depth > 0 and self.owner == PyThread_get_thread_ident()

    def _release_save(self):
        cdef Py_ssize_t depth = self.depth
        self.depth = 1
        self.give_back()
        return depth

    def _acquire_restore(self, Py_ssize_t depth):
        interruption = None
        while True:
            try:
                self.take()
                break
            except BaseException as error:  # a signal handler's: who waited has it first
                interruption = error
        self.depth = depth
        if interruption is not None:
            raise interruption

    cdef int take(self) except -1:
        cdef unsigned long me = PyThread_get_thread_ident()
        if (self.depth or self.reserved) and self.owner != me:
            self.wait()
        self.owner = me
        self.depth += 1

    cdef int give_back(self) except -1:
        if not self.depth or self.owner != PyThread_get_thread_ident():
            raise RuntimeError('this thread does not have the lock')
        self.depth -= 1
        if self.waiters and not self.depth:
            self.owner = 0
            self.reserved = self.hungry
            self.set_free()

    cdef int wait(self) except -1:
        """Wait until nobody has it."""
        if self.gate is None:
            gate = builtin('_thread', 'allocate_lock')()
            gate.acquire()
            if self.gate is None:
                self.gate = gate
        cdef int came = 0
        cdef bint through = False
        while self.depth or (self.reserved and not through):
            self.hungry = self.hungry or came >= PATIENCE
            through = False
            self.waiters += 1
            try:
                self.gate.acquire()
                self.open = False
                through = True
                came += 1
            finally:
                self.waiters -= 1
                if not through and not self.waiters:  # interrupted, and nobody else comes
                    self.hungry = self.reserved = False
        self.hungry = self.reserved = False

    cdef int set_free(self) except -1:
        """Let one through the gate, unless one is on the way already."""
        if not self.open:
            self.open = True
            self.gate.release()
