"""The chat of `examples/chat` in a real browser, on each of the three backends."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
from support.example import ROOT, free_port, running

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
ARGUMENTS = (
    '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
    '--disable-component-update --disable-sync'
).split()
SHOTS = ROOT / '.build' / 'chat'
WAIT = 10_000  # ms

pytestmark = [pytest.mark.timeout(120), pytest.mark.browser]


@pytest.fixture(scope='module')
def browser():
    if CHROMIUM is None:
        pytest.fail(
            'no chromium in PATH: the chat is tested in a real browser. On Debian and Ubuntu: '
            'apt-get install chromium; elsewhere put a Chromium there under this name.'
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def window(browser):
    """A window whose tabs are closed after the test; nothing but loopback loads."""
    window = browser.new_context(viewport={'width': 1200, 'height': 800}, reduced_motion='reduce')
    window.set_default_timeout(WAIT)
    window.requests = []
    window.on('request', lambda request: window.requests.append(request.url))
    yield window
    window.close()


@pytest.fixture(params=['gevent', 'threads', 'eventlet'])
def backend(request):
    return request.param


class Tab:
    """One tab with the chat, and what its console says."""

    def __init__(self, window, url, name):
        self.complaints = []
        self.page = window.new_page()
        self.page.on('console', self._on_console)
        self.page.on('pageerror', lambda error: self.complaints.append(str(error)))
        self.page.goto(url)
        self.page.get_by_label('Your name').fill(name)
        self.page.keyboard.press('Enter')
        self.wait_for_state('connected')

    def _on_console(self, message):
        if message.type in ('error', 'warning'):
            self.complaints.append(message.text)

    def say(self, text):
        self.page.get_by_label('Message', exact=True).fill(text)
        self.page.keyboard.press('Enter')

    def wait_for_state(self, state):
        self.page.locator(f'body[data-state={state}]').wait_for()

    def wait_for_line(self, text):
        self.page.get_by_role('log').get_by_role('listitem').filter(has_text=text).last.wait_for()

    def wait_for_names(self, *names):
        self.page.wait_for_function(
            """(names) => {
                const shown = [...document.querySelectorAll('#who bdi')].map((e) => e.textContent);
                return JSON.stringify(shown) === JSON.stringify(names);
            }""",
            arg=list(names),
        )

    @property
    def lines(self):
        """What is in the log: (name or None, text)."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('#log li')].map((e) => e.matches('.said')
                ? [e.querySelector('bdi').textContent, e.querySelector('.text').textContent]
                : [null, e.querySelector('span').textContent])"""
        )

    def milliseconds(self, selector):
        self.page.wait_for_function(
            "(s) => / ms/.test(document.querySelector(s)?.textContent ?? '')", arg=selector
        )
        return float(re.match(r'[\d.]+', self.page.locator(selector).text_content()).group())


def started(program):
    found = program.wait_for(lambda: re.search(r'http://\S+', program.stdout), 'says where')
    return found.group()


def shoot(tab: Tab, name: str) -> Path:
    SHOTS.mkdir(parents=True, exist_ok=True)
    path = SHOTS / f'{name}.png'
    tab.page.screenshot(path=path)
    return path


def test_two_tabs_chat_and_one_goes_away(backend, window):
    with running('chat/app.py', backend, '--port', '0') as program:
        url = started(program)
        ada, grace = Tab(window, url, 'Ada'), Tab(window, url, 'Grace')
        for tab in (ada, grace):
            tab.wait_for_names('Ada', 'Grace')

        ada.say('Good morning!')
        grace.wait_for_line('Good morning!')
        grace.say('<img src="x" onerror="alert(1)"> & good morning')
        for tab in (ada, grace):
            tab.wait_for_line('& good morning')
        assert ada.lines == [
            [None, 'Ada joined'],
            [None, 'Grace joined'],
            ['Ada', 'Good morning!'],
            ['Grace', '<img src="x" onerror="alert(1)"> & good morning'],
        ]
        assert grace.lines == ada.lines
        assert ada.page.locator('#log img').count() == 0
        # Own messages are on the right.
        own, other = (
            ada.page.locator(f'.said:has-text("{text}") .text').bounding_box()
            for text in ('Good morning!', '& good morning')
        )
        assert own['x'] > other['x'] + 300

        # The round trip as the page measures it, the other's as the server does.
        assert 0 < ada.milliseconds('#rtt') < 1000
        assert 0 < ada.milliseconds('[data-name=Ada] .ms') < 1000
        assert 0 < ada.milliseconds('[data-name=Grace] .ms') < 1000
        shoot(ada, backend)

        grace.page.close()
        ada.wait_for_line('Grace left')
        ada.wait_for_names('Ada')

        grace_again = Tab(window, url, 'Grace')
        for tab in (ada, grace_again):
            tab.wait_for_names('Ada', 'Grace')
        # Who comes later sees what was said before.
        assert grace_again.lines == ada.lines

        assert ada.complaints == grace.complaints == grace_again.complaints == []
        assert all(re.match(r'\w+://127\.0\.0\.1:', address) for address in window.requests)
        assert program.interrupt() == 0
        assert program.stderr == ''


def test_a_reload_is_a_member_who_comes_back(backend, window):
    with running('chat/app.py', backend, '--port', '0') as program:
        url = started(program)
        ada, grace = Tab(window, url, 'Ada'), Tab(window, url, 'Grace')
        ada.page.reload()
        ada.wait_for_state('connected')
        grace.wait_for_line('Ada is back')
        # Whether the old connection's end or the new page's hello comes first is open.
        assert [text for _, text in grace.lines] in (
            ['Ada joined', 'Grace joined', 'Ada left', 'Ada is back'],
            ['Ada joined', 'Grace joined', 'Ada is back'],
        )
        grace.wait_for_names('Ada', 'Grace')
        assert ada.complaints == grace.complaints == []


def test_two_tabs_of_the_same_name_are_told_apart(backend, window):
    with running('chat/app.py', backend, '--port', '0') as program:
        url = started(program)
        one, two = Tab(window, url, 'Ada'), Tab(window, url, 'Ada')
        one.wait_for_names('Ada', 'Ada 2')
        two.say('Which of us is me?')
        for tab in (one, two):
            tab.wait_for_line('Which of us is me?')
        assert one.lines[-1] == ['Ada 2', 'Which of us is me?']
        assert one.page.locator('.said.mine').count() == 0
        assert two.page.locator('.said.mine').count() == 1


def test_the_page_reconnects_to_a_server_that_was_restarted(backend, window):
    port = str(free_port())
    with running('chat/app.py', backend, '--port', port) as program:
        url = started(program)
        ada, grace = Tab(window, url, 'Ada'), Tab(window, url, 'Grace')
        grace.say('See you')
        for tab in (ada, grace):  # the server has a queue for each
            tab.wait_for_line('See you')
        program.process.kill()
        for tab in (ada, grace):
            tab.wait_for_state('connecting')
            tab.wait_for_line('The connection is lost.')
            assert 'reconnecting' in tab.page.locator('#status').text_content()
            assert tab.page.get_by_role('button', name='Send').is_disabled()
        # What is written meanwhile stays; it is not sent into the void.
        ada.say('Anybody here?')
        time.sleep(0.3)
        shoot(ada, f'{backend}-reconnecting')

    with running('chat/app.py', backend, '--port', port) as program:
        for tab in (ada, grace):
            tab.page.locator('body[data-state=connected]').wait_for(timeout=25_000)
            tab.wait_for_line('Connected again.')
        for tab in (ada, grace):
            tab.wait_for_names('Ada', 'Grace')
        assert ada.page.get_by_label('Message', exact=True).input_value() == 'Anybody here?'
        ada.page.get_by_label('Message', exact=True).press('Enter')
        grace.wait_for_line('Anybody here?')
        assert grace.lines.count(['Ada', 'Anybody here?']) == 1
        assert grace.lines.count(['Grace', 'See you']) == 1
        # The browser itself notes each attempt that finds no server.
        for tab in (ada, grace):
            assert not [each for each in tab.complaints if 'ERR_CONNECTION_REFUSED' not in each]
        assert program.interrupt() == 0
        assert program.stderr == ''


def test_ctrl_c_while_two_tabs_are_open(backend, window):
    with running('chat/app.py', backend, '--port', '0') as program:
        url = started(program)
        tabs = [Tab(window, url, name) for name in ('Ada', 'Grace')]
        begun = time.monotonic()
        assert program.interrupt() == 0
        assert time.monotonic() - begun < 3
        assert program.stderr == ''
        for tab in tabs:
            tab.wait_for_state('connecting')


def test_it_looks_as_meant_in_the_dark_and_on_a_phone(browser):
    with running('chat/app.py', '--port', '0') as program:
        url = started(program)
        phone = browser.new_context(
            viewport={'width': 390, 'height': 720}, color_scheme='dark', has_touch=True
        )
        tab = Tab(phone, url, 'Ada')
        tab.say('a' * 500)
        tab.wait_for_line('aaa')
        tab.milliseconds('#rtt')
        shoot(tab, 'phone')
        sizes = tab.page.evaluate(
            """() => [document.documentElement.scrollWidth, innerWidth,
                     document.documentElement.scrollHeight, innerHeight]"""
        )
        assert sizes[0] <= sizes[1] and sizes[2] <= sizes[3]  # nothing is cut off
        dark = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark == 'rgb(15, 17, 24)'
        phone.close()
