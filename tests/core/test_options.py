"""The options that every connection shares: defaults, checks, what they mean."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from support.frames import TEXT, Frame
from support.lab import Clock, End

from simple_websocket import options
from simple_websocket.deflate import Deflate, PerMessageDeflate
from simple_websocket.options import Options, check_timeout


def test_the_defaults_are_those_of_the_documentation():
    assert dataclasses.asdict(Options(compression=None)) == {
        'receive_bytes': 4096,
        'ping_interval': None,
        'max_message_size': None,
        'ping_timeout': None,
        'open_timeout': 10.0,
        'close_timeout': 5.0,
        'max_queue': 32,
        'max_fragments': 131072,
        'compression': None,
        'logger': logging.getLogger('simple_websocket'),
    }


def test_the_first_three_are_positional_as_in_1x():
    options = Options(1, 2.5, 3)
    assert (options.receive_bytes, options.ping_interval, options.max_message_size) == (1, 2.5, 3)


def test_they_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().max_queue = 1


NUMBERS = ('ping_interval', 'ping_timeout', 'open_timeout', 'close_timeout')
INTEGERS = ('receive_bytes', 'max_message_size', 'max_queue', 'max_fragments')
ZERO = ('ping_interval', 'close_timeout', 'max_message_size')
NONE = ('ping_interval', 'ping_timeout', 'open_timeout', 'max_message_size', 'max_fragments')


@pytest.mark.parametrize('name', NUMBERS + INTEGERS)
def test_a_number_is_checked(name):
    def make(value):
        return getattr(Options(**{name: value}), name)

    assert make(7) == 7
    for wrong in ('7', b'7', [7], True, False, 7j, object()):
        with pytest.raises(TypeError, match=f'^{name} must be'):
            make(wrong)
    for wrong in (-1, -7):
        with pytest.raises(ValueError, match=f'^{name} must be positive'):
            make(wrong)
    if name in NUMBERS:
        assert make(0.5) == 0.5
        with pytest.raises(ValueError, match=f'^{name} must be positive'):
            make(float('nan'))
    else:
        if name == 'max_message_size':  # often written 1e6
            assert repr(make(7.0)) == '7'
        for wrong in (7.5, float('inf')) if name == 'max_message_size' else (7.0,):
            with pytest.raises(TypeError, match=f'^{name} must be an int'):
                make(wrong)
    if name in ZERO:
        assert make(0) == 0
    else:
        with pytest.raises(ValueError, match=f'^{name} must be positive'):
            make(0)
    if name in NONE:
        assert make(None) is None
    else:
        with pytest.raises(TypeError):
            make(None)


@pytest.mark.parametrize(
    ('value', 'compression'),
    [
        (True, Deflate()),
        ('deflate', Deflate()),
        (Deflate(level=1), Deflate(level=1)),
        (None, None),
        (False, None),
    ],
)
def test_compression_is_true_deflate_or_none(value, compression):
    assert Options(compression=value).compression == compression


@pytest.mark.parametrize(('value', 'error'), [('gzip', ValueError), (1, TypeError)])
def test_another_compression_is_an_error(value, error):
    with pytest.raises(error, match='compression'):
        Options(compression=value)


def test_a_logger_is_one_that_logs():
    logger = logging.getLogger('mine')
    assert Options(logger=logger).logger is logger
    adapter = logging.LoggerAdapter(logger, {})
    assert Options(logger=adapter).logger is adapter
    for wrong in ('mine', True, object(), print):
        with pytest.raises(TypeError, match='logger'):
            Options(logger=wrong)


def test_an_unknown_option_is_an_error():
    with pytest.raises(TypeError, match='max_size'):
        Options(max_size=1)


def test_what_is_wrong_is_told_once():
    with pytest.raises(ValueError, match='max_queue') as caught:
        Options.of('Server', 4096, None, None, {'max_queue': 0})
    assert caught.value.__context__ is None
    with pytest.raises(TypeError, match='compression') as caught:
        Options.of('Server', 4096, None, None, {'compression': []})
    assert caught.value.__context__ is None


def test_only_clients_have_an_open_timeout():
    # A server's host has read the request already.
    assert Options.of('Client', 4096, None, None, {'open_timeout': 3}, True).open_timeout == 3
    with pytest.raises(TypeError, match=r"Server\(\) got an unexpected .* 'open_timeout'"):
        Options.of('Server', 4096, None, None, {'open_timeout': 3})


def test_type_checkers_know_of_every_option():
    listed = {'receive_bytes', 'ping_interval', 'max_message_size'}
    fields = Options.__dataclass_fields__.keys()
    assert options.DialKeywords.__annotations__.keys() == fields - listed
    assert options.CommonKeywords.__annotations__.keys() == fields - listed - {'open_timeout'}


@pytest.mark.parametrize('value', [None, 0, 1, 0.5, -1, float('inf')])
def test_a_timeout_is_a_number_or_none(value):
    check_timeout(value)


@pytest.mark.parametrize(
    ('value', 'error'),
    [('1', TypeError), (True, TypeError), ([], TypeError), (float('nan'), ValueError)],
)
def test_another_timeout_is_an_error(value, error):
    with pytest.raises(error, match='timeout'):
        check_timeout(value)


# What they mean to the protocol


def protocol(client=False, **options):
    return Options(**options).protocol(client, Clock(), None)


def end(**options):
    """An end with a protocol of these options."""
    one = End(reading=False)
    one.protocol = Options(**options).protocol(False, one.clock, None)
    return one


def test_a_ping_interval_of_zero_means_none():
    assert protocol(ping_interval=0).deadline is None
    assert protocol(ping_interval=None).deadline is None
    assert protocol(ping_interval=3).deadline == 1003


def test_ping_timeout_is_ping_interval_by_default():
    one = end(ping_interval=3)
    assert one.at(5.9).protocol.close_code == 1005
    assert one.at(6).protocol.close_code == 1011
    one = end(ping_interval=3, ping_timeout=1)
    assert one.at(4).protocol.close_code == 1011


def test_a_message_size_of_zero_means_no_limit():
    for none in (0, None):
        assert end(max_message_size=none).say(Frame(TEXT, b'abc')).take() == 'abc'
    one = end(max_message_size=2).say(Frame(TEXT, b'abc'))
    assert one.protocol.close_code == 1009


def test_the_queue_and_the_fragments_are_limited():
    one = end(max_queue=1).say(*[Frame(TEXT, b'a')] * 2)
    assert one.protocol.paused
    one = end(max_fragments=1).say(Frame(TEXT, b'a', False), Frame(0, b'a'))
    assert one.protocol.close_code == 1009


def test_close_timeout_bounds_the_closing():
    one = end(close_timeout=2)
    one.close()
    assert one.protocol.deadline == 1002
    one = end(close_timeout=0)
    one.close()
    assert one.protocol.deadline == 1000


def test_the_role_and_the_compression_are_passed_on():
    engine = PerMessageDeflate()
    one = Options().protocol(True, Clock(), engine)
    one.send(TEXT, b'abc')
    first, second = one.out[0][:2]
    assert first & 0x40, 'RSV1: compressed'
    assert second & 0x80, 'masked, as a client must'
