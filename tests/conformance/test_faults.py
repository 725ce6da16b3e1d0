"""The suite is believed when it finds fault, and a run that fails is no success."""

from __future__ import annotations

import sys

import pytest
from support import modes

from conformance import autobahn, environment
from conformance.results import Run

RUN = Run('server', 'threads', modes.current().codec)

SERVER = """
from werkzeug.serving import make_server
from simple_websocket import websocket_app

@websocket_app
def app(ws):
    {body}

server = make_server('127.0.0.1', 0, app, threaded=True)
print(server.port, flush=True)
server.serve_forever()
"""


def faults(tmp_path, program, cases=('1.1.1', '7.1.1')):
    class Faulty(autobahn.Job):
        def _agent(self, stack, *arguments):
            return self._start(stack, 'agent', (sys.executable, '-c', program))

    return Faulty(RUN, cases, environment.prepare(), tmp_path / 'run')().faults


@pytest.mark.timeout(120)
def test_a_server_that_answers_wrongly_has_faults(tmp_path):
    found = faults(tmp_path, SERVER.format(body='ws.send(ws.receive() + "?")'))
    assert '1.1.1: FAILED, close FAILED' in found
    assert len(found) == 2


def test_a_server_that_raises_has_a_fault(tmp_path):
    body = 'ws.send(ws.receive()); next(iter(ws), None); raise ValueError("a bug")'
    (fault,) = faults(tmp_path, SERVER.format(body=body), ('1.1.1',))
    assert fault.startswith('a traceback: see ')


def test_a_server_that_does_not_start_has_run_nothing(tmp_path):
    found = faults(tmp_path, 'raise SystemExit("no")')
    assert found == ['the server did not start', '1.1.1: did not run', '7.1.1: did not run']


def test_a_server_that_dies_fails_the_rest(tmp_path):
    body = 'import os; ws.send(ws.receive()); os._exit(1)'
    found = faults(tmp_path, SERVER.format(body=body))
    assert [fault.partition(': ')[0] for fault in found] == ['1.1.1', '7.1.1']
