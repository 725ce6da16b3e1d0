# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The way of ``express.py`` in C, for a message that goes to many."""

from ._express cimport OUT, PROTOCOL, WIRE, fileno_of, may_put
from ._fetch cimport fetch, prefetch
from ._pump cimport LONG, send_frame
from ._slots cimport SLOT, get, is_set, set_slot, slot

from ..protocol import Protocol
from .link import Link
from .wire import Wire

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.object cimport PyObject

cdef:
    Py_ssize_t HOME = slot(Link, '_home')
    Py_ssize_t UNSENT = slot(Link, '_unsent')
    Py_ssize_t CLIENT = slot(Protocol, 'client')

cdef enum:
    # How many connections ahead what belongs to one is fetched: its link, what that
    # refers to, what that does.
    LINK_AHEAD = 6
    PARTS_AHEAD = 4
    ENDS_AHEAD = 2


def put_to_many(list connections, bytes frame not None, Py_ssize_t size, ident):
    """See ``express.put_to_many``."""
    cdef Py_ssize_t index, count = len(connections)
    cdef list marks = [None] * count, links = []
    cdef unsigned long thread = ident
    if PyBytes_GET_SIZE(frame) >= LONG:
        return marks
    for index in range(-LINK_AHEAD, count):
        if index + LINK_AHEAD < count:
            link = connections[index + LINK_AHEAD]._link
            if not isinstance(link, Link):
                return marks
            links.append(link)
            fetch(<PyObject *>link, Link)
        if 0 <= index + PARTS_AHEAD < count:
            fetch_parts(links[index + PARTS_AHEAD])
        if 0 <= index + ENDS_AHEAD < count:
            fetch_ends(links[index + ENDS_AHEAD])
        if index >= 0:
            marks[index] = put_to_one(links[index], frame, size, thread)
    return marks


cdef inline int fetch_parts(object link) except -1:
    fetch(SLOT(link, PROTOCOL), Protocol)
    fetch(SLOT(link, WIRE), Wire)


cdef inline int fetch_ends(object link) except -1:
    protocol, fileno = get(link, PROTOCOL), fileno_of(link)
    prefetch(<PyObject *>fileno)
    if type(protocol) is Protocol:
        prefetch(SLOT(protocol, OUT))


cdef object put_to_one(object link, bytes frame, Py_ssize_t size, unsigned long thread):
    cdef Py_ssize_t sent
    if not may_put(link, size):
        return None
    home = get(link, HOME)
    if is_set(get(link, PROTOCOL), CLIENT) or (home is not None and home != thread):
        return None
    sent = send_frame(fileno_of(link)(), frame)
    if sent == PyBytes_GET_SIZE(frame):
        return 0
    if sent <= 0:
        return None  # whoever offers it again sees why
    set_slot(link, UNSENT, frame[sent:])
    return -1
