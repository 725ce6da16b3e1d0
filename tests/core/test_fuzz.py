"""The fuzz targets without the fuzzer: every committed input passes, on the
codec of this mode. `make fuzz` looks for more."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT))

from fuzz import planted, seeds  # noqa: E402
from fuzz.targets import TARGETS, load  # noqa: E402

INPUTS = sorted(
    path
    for kind in ('corpus', 'regressions')
    for path in (ROOT / 'fuzz' / kind).glob('*/*')
    if path.parent.name in TARGETS
)


@pytest.mark.parametrize(
    'path', INPUTS, ids=[str(path.relative_to(ROOT / 'fuzz')) for path in INPUTS]
)
def test_a_committed_input_finds_nothing(path):
    load(path.parent.name)(path.read_bytes())


def test_every_input_belongs_to_a_target():
    folders = {path.name for path in (ROOT / 'fuzz' / 'regressions').iterdir()}
    assert folders <= set(TARGETS)
    assert {path.name for path in (ROOT / 'fuzz' / 'corpus').iterdir()} == set(TARGETS)


@pytest.mark.parametrize('target', TARGETS)
def test_the_corpus_is_what_the_script_writes(target):
    committed = {
        path.name: path.read_bytes() for path in (ROOT / 'fuzz' / 'corpus' / target).iterdir()
    }
    assert committed == seeds.seeds(target)
    assert len(committed) > 20
    assert max(map(len, committed.values())) < 4096


# A target that cannot fail would find nothing either: faults that each must see.


def broken(monkeypatch, module, name, value):
    monkeypatch.setattr(importlib.import_module(module), name, value)


def test_the_codec_target_sees_codecs_that_differ(monkeypatch):
    target = importlib.import_module('fuzz.targets.codec')

    class Deaf(target.CODECS[0][0]):
        def feed(self, data):
            return super().feed(data)[:1]

    broken(monkeypatch, 'fuzz.targets.codec', 'CODECS', [(Deaf, target.CODECS[0][1])])
    with pytest.raises(AssertionError):
        load('codec')(seeds.seeds('codec')['server-hello'])


def test_the_protocol_target_sees_a_frame_behind_the_close(monkeypatch):
    target = importlib.import_module('fuzz.targets.protocol')

    class Talkative(target.Protocol):
        def _finish_ending(self):
            super()._finish_ending()
            self.out.append(target.frame(10, b'', self.client))

    broken(monkeypatch, 'fuzz.targets.protocol', 'Protocol', Talkative)
    with pytest.raises(AssertionError, match='behind the Close'):
        load('protocol')(seeds.seeds('protocol')['server-hello'])


def test_the_deflate_target_sees_more_than_the_limit(monkeypatch):
    target = importlib.import_module('fuzz.targets.deflate')

    class Boundless(target.PerMessageDeflate):
        def decompress(self, chunk, final, limit=None, ends_fragment=True):
            return super().decompress(chunk, final, None, ends_fragment)

    broken(monkeypatch, 'fuzz.targets.deflate', 'PerMessageDeflate', Boundless)
    with pytest.raises(AssertionError):
        load('deflate')(seeds.seeds('deflate')['inflate-bomb-limit'])


def test_the_server_handshake_target_sees_a_check_that_is_gone(monkeypatch):
    broken(monkeypatch, 'simple_websocket.environ', 'checked_key', lambda headers: 'x')
    with pytest.raises(Exception, match='[Pp]adding|base64'):
        load('server_handshake')(seeds.seeds('server_handshake')['short-key'])


def test_the_client_handshake_target_sees_a_check_that_is_gone(monkeypatch):
    target = importlib.import_module('fuzz.targets.client_handshake')
    judge = target.ClientHandshake._judge

    def gullible(self, headers, leftover):
        others = [pair for pair in headers if pair[0] != 'sec-websocket-accept']
        return judge(self, [*others, ('sec-websocket-accept', target.ACCEPT.decode())], leftover)

    monkeypatch.setattr(target.ClientHandshake, '_judge', gullible)
    with pytest.raises(AssertionError, match='accept token'):
        load('client_handshake')(seeds.seeds('client_handshake')['wrong-token'])


def test_the_planted_faults_are_there():
    assert set(planted.FAULTS) == {b'crash', b'hang', b'memory'}
    with pytest.raises(KeyError):
        planted.check(b'crash')
