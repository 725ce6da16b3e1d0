# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""See ``readers.py``: its ``OneByOne``, on Linux, by one epoll for all.

The poll is an epoll, which is itself readable when a descriptor in it is.  Of the
connections that it tells to be readable those that come next are fetched into the
caches while one is read and its receiver runs: with thousands of them that is a good
part of what a message costs.
"""

from .._codec cimport CompiledDecoder
from ._express cimport (
    DECODER, FILENO, OUT, PROTOCOL, RECEIVER, WIRE, HubLink, is_a, on_readable,
)
from ._fetch cimport fetch, prefetch
from ._slots cimport SLOT

import os

from greenlet import greenlet

from ..protocol import Protocol
from .link import Link
from .wire import Wire

from cpython.exc cimport PyErr_SetFromErrno
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.errno cimport EBADF, EEXIST, errno
from libc.string cimport memset
from posix.unistd cimport close

cdef extern from "Python.h":
    bint PyCFunction_CheckExact(object) noexcept
    PyObject *PyCFunction_GET_SELF(object) noexcept

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        unsigned long long u64
    cdef struct epoll_event:
        unsigned int events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)
    enum: EPOLLIN, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD

cdef extern from *:
    """
    #include <stdint.h>

    /* A greenlet, as greenlet.h has it: behind ``state`` is what it is resumed with,
       its stack and its frames, in an order that differs between versions. */
    typedef struct {
        PyObject_HEAD
        PyObject *weakreflist, *dict;
        void **state;
    } Resumable;

    #define STATE_WORDS 24

    static void fetch_state(PyObject *greenlet)
    {
        char *state = (char *)((Resumable *)greenlet)->state;
        for (size_t at = 0; state && at < STATE_WORDS * sizeof(void *); at += 64)
            prefetch(state + at);
    }

    /* Whatever its words point at, if they do: a prefetch can't fault, and nothing
       else is done with them.  The state may be shorter, so no page is left. */
    static void fetch_what_state_has(PyObject *greenlet)
    {
        void **state = ((Resumable *)greenlet)->state;
        void **page_end = (void **)(((uintptr_t)state | 4095) + 1);
        for (int i = 0; state && i < STATE_WORDS && state + i < page_end; i++) {
            prefetch(state[i]);
            prefetch((char *)state[i] + 64);
        }
    }
    """
    void fetch_state(PyObject *) noexcept
    void fetch_what_state_has(PyObject *) noexcept

cdef enum:
    #: Connections that are read before the hub looks after others.
    TURN = 64
    #: Of fewer everything is in the caches anyway.
    MANY = 500
    #: How far ahead one is begun to be fetched, see ``look_ahead``.
    AHEAD = 4


cdef class SharedPoll:
    """One epoll for the links of a hub; ``readers.Readers`` has the hub watch it."""

    cdef int _fd  # of the epoll; -1 as long as there are no links
    cdef bint _watched
    cdef set _users  # the links, by id; also those that do not read just now
    # By descriptor number: who reads there, and which registration of that number it
    # is.  A socket that was closed elsewhere is told by epoll as long as another
    # process has it, though its number is another's by now.
    cdef list _links
    cdef unsigned int *_serials
    cdef unsigned int _serial
    # Of one turn; here, as each switch copies what the hub has on its stack.
    cdef epoll_event _events[TURN]

    def __cinit__(self):
        self._fd = -1
        self._users = set()
        self._links = []

    def __dealloc__(self):
        PyMem_Free(self._serials)
        if self._fd >= 0:
            close(self._fd)

    def watch(self, int fd):
        """Have the hub call ``ready`` when the epoll is readable."""
        raise NotImplementedError

    def unwatch(self):
        """Stop that; also of a ``watch`` that was interrupted."""
        raise NotImplementedError

    def add(self, int fd, link):
        """Call the link's ``_on_readable`` when its descriptor is readable.

        :returns: the link that had this number, if it was not removed: somebody else
                  has closed its descriptor.
        :raises OSError: for a descriptor that can't be watched, or when there are no
                         more for the epoll itself.
        """
        if not is_a(link, HubLink):
            raise TypeError(f'no link of a hub: {link!r}')
        if fd < 0:
            raise OSError(EBADF, os.strerror(EBADF))
        self._make_room(fd)
        before = self._links[fd] if self._links[fd] is not link else None
        self._users.add(id(link))
        self._serial = self._serial + 1 or 1
        self._serials[fd] = self._serial
        self._links[fd] = link
        if self._fd < 0:
            self._fd = epoll_create1(EPOLL_CLOEXEC)
        if self._fd < 0 or self._register(self._fd, fd) < 0:
            PyErr_SetFromErrno(OSError)
        if not self._watched:
            self.watch(self._fd)
            self._watched = True
        return before

    def remove(self, int fd, link):
        """Call it no more, for now; nothing happens where it is not called."""
        cdef epoll_event event
        if self._forget(fd, link):
            epoll_ctl(self._fd, EPOLL_CTL_DEL, fd, &event)  # if nobody has closed it

    def drop(self, int fd, link):
        """Call it no more, for good; after the last one nothing is left.

        Its descriptor is about to be closed, which takes it out of the epoll.
        """
        self._forget(fd, link)
        self._users.discard(id(link))
        if not self._users and self._fd >= 0:
            self.unwatch()
            self.leave()

    def leave(self):
        """Give the epoll back, in a forked child too: there it is the parent's, and
        nothing of it must be changed."""
        self._users.clear()
        self._links.clear()
        self._watched = False
        if self._fd >= 0:
            close(self._fd)
            self._fd = -1

    def ready(self, *_):
        """Have the links read whose descriptors are readable."""
        cdef int count = epoll_wait(self._fd, self._events, TURN, 0), index
        cdef bint many = len(self._users) >= MANY
        cdef list links
        if count <= 0:
            return
        links = self._told(count)
        for index in range(-AHEAD if many else 0, count):
            if many:
                look_ahead(links, index)
            if index >= 0 and self._reads(number(self._events[index]), links[index]):
                on_readable(links[index])

    cdef list _told(self, int count):
        """Who is meant, before any of them is called and may change who is there."""
        cdef list links = [None] * count
        cdef int index, fd
        cdef bint strange = False
        for index in range(count):
            fd = number(self._events[index])
            if fd < len(self._links) and self._serials[fd] == self._events[index].data.u64 >> 32:
                links[index] = self._links[fd]
            else:
                strange = True
        if strange:
            self._renew()
        return links

    cdef bint _forget(self, int fd, link):
        if not 0 <= fd < len(self._links) or self._links[fd] is not link:
            return False
        self._links[fd] = None
        self._serials[fd] = 0
        return True

    cdef bint _reads(self, int fd, link) noexcept:
        return fd < len(self._links) and link is not None and self._links[fd] is link

    cdef int _make_room(self, int fd) except -1:
        cdef Py_ssize_t had = len(self._links), room = max(fd + 1, 2 * had)
        if fd < had:
            return 0
        serials = <unsigned int *>PyMem_Realloc(self._serials, room * sizeof(unsigned int))
        if serials is NULL:
            raise MemoryError
        self._serials = serials
        memset(serials + had, 0, (room - had) * sizeof(unsigned int))
        self._links += [None] * (room - had)

    cdef int _register(self, int epoll, int fd) noexcept:
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = <unsigned long long>self._serials[fd] << 32 | <unsigned int>fd
        if not epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event):
            return 0
        return epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) if errno == EEXIST else -1

    cdef int _renew(self) except -1:
        """Begin with another epoll: of this one a socket that has no number any more
        can't be taken out."""
        cdef int epoll = epoll_create1(EPOLL_CLOEXEC), old = self._fd
        cdef int fd
        if epoll < 0:
            return 0  # and again in the next turn
        for fd in range(len(self._links)):
            if self._links[fd] is not None:
                self._register(epoll, fd)
        self._fd, self._watched = epoll, False
        self.unwatch()
        close(old)
        self.watch(epoll)
        self._watched = True


cdef inline int number(epoll_event event) noexcept:
    return <int>(event.data.u64 & 0xffffffff)


cdef inline void look_ahead(list links, int index) noexcept:
    """Fetch what those behind that index need, each time one step further: what is
    read here was fetched by the step before."""
    fetch_link(at(links, index + 4))
    fetch_parts(at(links, index + 3))
    fetch_ends(at(links, index + 2))
    fetch_resumed(at(links, index + 1))


cdef inline PyObject *at(list links, int index) noexcept:
    if 0 <= index < len(links) and links[index] is not None:
        return <PyObject *>links[index]
    return NULL


cdef inline void fetch_link(PyObject *link) noexcept:
    if link is not NULL:
        fetch(link, Link)
        prefetch(<char *>link + RECEIVER)


cdef inline void fetch_parts(PyObject *link) noexcept:
    if link is not NULL:
        fetch(SLOT(<object>link, PROTOCOL), Protocol)
        fetch(SLOT(<object>link, WIRE), Wire)
        fetch(SLOT(<object>link, RECEIVER), greenlet)


cdef inline void fetch_ends(PyObject *link) noexcept:
    if link is NULL:
        return
    protocol, wire = <object>SLOT(<object>link, PROTOCOL), <object>SLOT(<object>link, WIRE)
    if type(protocol) is Protocol:
        prefetch(SLOT(protocol, OUT))
        fetch(SLOT(protocol, DECODER), CompiledDecoder)
    if type(wire) is Wire:
        prefetch(SLOT(wire, FILENO))
    if <object>SLOT(<object>link, RECEIVER) is not None:
        fetch_state(SLOT(<object>link, RECEIVER))


cdef inline void fetch_resumed(PyObject *link) noexcept:
    if link is NULL:
        return
    wire = <object>SLOT(<object>link, WIRE)
    if type(wire) is Wire:
        fileno = <object>SLOT(wire, FILENO)
        if PyCFunction_CheckExact(fileno):
            prefetch(PyCFunction_GET_SELF(fileno))
    if <object>SLOT(<object>link, RECEIVER) is not None:
        fetch_what_state_has(SLOT(<object>link, RECEIVER))
