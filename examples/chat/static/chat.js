// The page of the chat: one WebSocket, which comes back when it is lost.
'use strict';

const PING_EVERY = 2000; // ms; a pong that takes twice as long means: lost
const LONGEST_DELAY = 10000; // ms between two attempts to connect
const REPLACED = 4001; // close code: this page is connected elsewhere

const $ = (id) => document.getElementById(id);
const log = $('log');

let ws = null;
let me = null; // the name that the server knows us by
let lastId = 0; // of the last line that is shown
let lastSaid = null; // the line that another of the same member joins on to
let attempts = 0;
let timer = null; // of the next attempt, or of the next ping
let pingSent = null; // when the ping went out that has no pong yet

// By the key the server knows this tab again. A tab that is duplicated copies
// the storage, so the key is there only between two pages of one tab.
const key = sessionStorage.getItem('key') || randomKey();
sessionStorage.removeItem('key');
addEventListener('pagehide', () => sessionStorage.setItem('key', key));
addEventListener('pageshow', (event) => event.persisted && location.reload());

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join('');
}

// ---- the connection

function connect() {
  clearTimeout(timer);
  show('connecting', attempts ? 'reconnecting' : 'connecting');
  const url = new URL('ws', location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  ws = new WebSocket(url);
  ws.onopen = () => send({ type: 'join', key, name: sessionStorage.getItem('name') });
  ws.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    handlers[event.type](event);
  };
  ws.onclose = (event) => lost(event.code);
}

function lost(code) {
  // A dead connection takes its time to close: it is not waited for.
  ws.onopen = ws.onmessage = ws.onclose = null;
  ws.close();
  ws = null;
  clearTimeout(timer);
  pingSent = null;
  $('rtt').hidden = true;
  enable(false);
  if (code === REPLACED) {
    show('away', 'connected elsewhere; reload to come back');
    return;
  }
  if (attempts === 0) {
    note('The connection is lost.');
  }
  // Twice as long each time, and not every page at the same moment.
  const delay = Math.min(LONGEST_DELAY, 500 * 2 ** attempts) * (0.75 + Math.random() / 2);
  attempts += 1;
  const when = Date.now() + delay;
  const tick = () => {
    const left = when - Date.now();
    if (left <= 0) {
      connect();
      return;
    }
    show('connecting', 'reconnecting', left > 1000 ? `in ${Math.ceil(left / 1000)} s` : '');
    timer = setTimeout(tick, Math.min(left, 250));
  };
  tick();
}

function send(event) {
  ws.send(JSON.stringify(event));
}

function ping() {
  if (pingSent !== null) {
    if (performance.now() - pingSent > 2 * PING_EVERY) {
      lost();
      return;
    }
  } else {
    pingSent = performance.now();
    send({ type: 'ping', at: String(pingSent) });
  }
  timer = setTimeout(ping, PING_EVERY);
}

addEventListener('online', () => {
  if (!ws && attempts) {
    connect();
  }
});

// ---- what the server says

const handlers = {
  welcome({ you, lines }) {
    me = you;
    show('connected', `connected as ${me}`);
    if (attempts) {
      note('Connected again.');
    }
    attempts = 0;
    lines.forEach(addLine); // also what was missed meanwhile
    enable(true);
    ping();
  },

  line({ line }) {
    addLine(line);
  },

  who({ names }) {
    $('count').textContent = names.length;
    $('who').replaceChildren(...names.map((name) => {
      const item = element('li', { className: name === me ? 'me' : '' });
      item.dataset.name = name;
      item.append(avatar(name), element('bdi', { textContent: name }));
      if (name === me) {
        item.append(element('em', { textContent: 'you' }));
      }
      item.append(element('span', { className: 'ms' }));
      return item;
    }));
  },

  pong({ at, latencies }) {
    const rtt = performance.now() - Number(at);
    pingSent = null;
    latencies[me] = rtt;
    $('rtt').hidden = false;
    $('rtt').textContent = `${milliseconds(rtt)} round trip`;
    for (const item of $('who').children) {
      const ms = latencies[item.dataset.name];
      item.lastChild.textContent = ms === undefined ? '' : milliseconds(ms);
    }
  },
};

// ---- what is shown (text is only ever set as text, never as HTML)

function element(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}

function show(state, text, countdown = '') {
  document.body.dataset.state = state;
  if ($('state').textContent !== text) { // else it would be read out again
    $('state').textContent = text;
  }
  $('countdown').textContent = countdown;
}

function enable(on) {
  const hadFocus = document.activeElement === $('text');
  $('say').querySelector('button').disabled = !on;
  $('text').disabled = false; // what is written meanwhile stays
  $('text').placeholder = on ? 'Write a message…' : 'Not connected; it can be sent later…';
  if (on || hadFocus) {
    $('text').focus();
  }
}

function milliseconds(ms) {
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

function hue(name) {
  let hash = 0x811c9dc5; // FNV-1a
  for (const letter of name) {
    hash = Math.imul(hash ^ letter.codePointAt(0), 0x01000193);
  }
  return ((hash >>> 16) * 360) / 65536;
}

function avatar(name) {
  const circle = element('span', { className: 'avatar', textContent: [...name][0].toUpperCase() });
  circle.ariaHidden = 'true';
  circle.style.setProperty('--hue', hue(name));
  return circle;
}

function clock(date) {
  const text = date.toLocaleTimeString([], { hour: 'numeric', minute: '2-digit' });
  return element('time', { dateTime: date.toISOString(), textContent: text });
}

// The last line stays in sight, unless the user has scrolled away from it.
let atEnd = true;

log.addEventListener('scroll', () => {
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
});

new ResizeObserver(stayAtEnd).observe(log);

function stayAtEnd() {
  if (atEnd) {
    log.scrollTop = log.scrollHeight;
  }
}

function append(item) {
  log.append(item);
  stayAtEnd();
}

function note(text) {
  lastSaid = null;
  const item = element('li', { className: 'note own-note' });
  item.append(element('span', { textContent: text }), clock(new Date()));
  append(item);
}

function addLine(line) {
  if (line.id <= lastId) {
    return; // known from before the connection was lost
  }
  lastId = line.id;
  const date = new Date(line.at * 1000);
  if (line.kind !== 'said') {
    lastSaid = null;
    const item = element('li', { className: 'note' });
    const words = { joined: ' joined', left: ' left', back: ' is back' }[line.kind];
    const text = element('span');
    text.append(element('bdi', { textContent: line.name }), words);
    item.append(text, clock(date));
    append(item);
    return;
  }
  const item = element('li', { className: 'said' });
  item.classList.toggle('mine', line.name === me);
  const more = lastSaid && lastSaid.name === line.name && line.at - lastSaid.at < 120;
  item.classList.toggle('more', Boolean(more));
  const head = element('p', { className: 'head' });
  head.append(element('bdi', { textContent: line.name }), clock(date));
  item.style.setProperty('--hue', hue(line.name));
  item.append(avatar(line.name), head, element('p', { className: 'text', textContent: line.text, dir: 'auto' }));
  lastSaid = line;
  append(item);
}

// ---- what the user does

$('say').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = $('text').value.trim();
  if (text && ws && ws.readyState === WebSocket.OPEN && attempts === 0) {
    send({ type: 'say', text });
    $('text').value = '';
    atEnd = true;
  }
});

$('join').addEventListener('submit', () => {
  sessionStorage.setItem('name', $('name').value.trim());
  connect();
});

$('door').addEventListener('cancel', (event) => event.preventDefault());

if (sessionStorage.getItem('name')) {
  connect();
} else {
  $('door').showModal();
}
