"""The exceptions: their place in the hierarchy, attributes and words (CONTRACT)."""

from __future__ import annotations

import builtins
import copy
import pickle

import pytest

import simple_websocket
from simple_websocket import errors
from simple_websocket.errors import ConnectionClosed, ConnectionError, SimpleWebsocketError


def test_every_error_is_a_simple_websocket_error_and_a_runtime_error():
    for error in (ConnectionError, ConnectionClosed):
        assert issubclass(error, SimpleWebsocketError)
    assert issubclass(SimpleWebsocketError, RuntimeError)


def test_no_error_is_an_os_error():
    # `except OSError` around a connection is for TCP and DNS.
    for error in (SimpleWebsocketError, ConnectionError, ConnectionClosed):
        assert not issubclass(error, (OSError, builtins.ConnectionError))


def test_the_package_exports_them():
    for name in ('SimpleWebsocketError', 'ConnectionError', 'ConnectionClosed'):
        assert getattr(simple_websocket, name) is getattr(errors, name)
        assert name in simple_websocket.__all__


@pytest.mark.parametrize(
    ('arguments', 'reason', 'message', 'words'),
    [
        ((), 1005, None, 'Connection closed: 1005'),
        ((None,), 1005, None, 'Connection closed: 1005'),
        ((1000,), 1000, None, 'Connection closed: 1000'),
        ((1000, 'bye'), 1000, 'bye', 'Connection closed: 1000 bye'),
        ((4000, ''), 4000, '', 'Connection closed: 4000'),
    ],
)
def test_connection_closed_has_reason_and_message(arguments, reason, message, words):
    error = ConnectionClosed(*arguments)
    assert (error.reason, error.message, str(error)) == (reason, message, words)
    assert type(error.reason) is int


@pytest.mark.parametrize(
    ('arguments', 'status_code', 'words'),
    [
        ((), None, 'Connection error'),
        ((404,), 404, 'Connection error: 404'),
        ((403, 'not you'), 403, 'Connection error: 403 not you'),
        ((None, 'it hung up'), None, 'Connection error: it hung up'),
    ],
)
def test_connection_error_has_a_status_code(arguments, status_code, words):
    error = ConnectionError(*arguments)
    assert (error.status_code, str(error)) == (status_code, words)


def test_connection_error_has_what_the_server_said():
    error = ConnectionError(403, 'no', (('X-Why', 'y'),), b'since')
    assert (error.headers, error.body) == ([('X-Why', 'y')], b'since')
    without = ConnectionError(403, 'no')
    assert (str(error), repr(error)) == (str(without), repr(without))
    assert (ConnectionError().headers, ConnectionError().body) == ([], b'')


def test_they_take_their_arguments_by_name():
    assert ConnectionClosed(reason=1001, message='x').reason == 1001
    assert ConnectionError(status_code=500, message='x').status_code == 500


@pytest.mark.parametrize(
    'error',
    [
        ConnectionClosed(4000, 'bye'),
        ConnectionError(403, 'no'),
        ConnectionError(403, 'no', [('X-Why', 'y')], b'since'),
        ConnectionClosed(),
    ],
)
@pytest.mark.parametrize('again', [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_they_survive_copies_and_pickles(error, again):
    # Process pools and task queues carry them.
    twin = again(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.__dict__ == error.__dict__
