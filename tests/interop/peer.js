// The package `ws` as a peer.
//
//     node peer.js server FD     serves; the paths are those of conversation.py
//     node peer.js client        runs cases, a line of JSON each, from stdin
'use strict'

const http = require('http')
const readline = require('readline')
const WebSocket = require('ws')

const NAMES = {
  server_max_window_bits: 'serverMaxWindowBits',
  client_max_window_bits: 'clientMaxWindowBits',
  server_no_context_takeover: 'serverNoContextTakeover',
  client_no_context_takeover: 'clientNoContextTakeover'
}

// Options of `ws` out of those of RFC 7692; none is no compression.
function deflate (options) {
  if (!options) return false
  const result = { threshold: 0 }
  for (const [name, value] of Object.entries(options)) result[NAMES[name]] = value
  return result
}

const fromJSON = (data) => typeof data === 'string' ? data : Buffer.from(data.base64, 'base64')
const toJSON = (data, isBinary) =>
  isBinary ? { base64: data.toString('base64') } : data.toString()

// Messages, pongs and the close, to be waited for in their order.
class Inbox {
  constructor (ws) {
    this.messages = []
    this.pongs = []
    this.close = null
    this.error = null
    this.wake = () => {}
    ws.on('open', () => this.wake())
    ws.on('message', (data, isBinary) => this.add(this.messages, [data, isBinary]))
    ws.on('pong', (data) => this.add(this.pongs, data.toString()))
    ws.on('error', (error) => { this.error = error; this.wake() })
    ws.on('close', (code, reason) => { this.close = [code, reason.toString()]; this.wake() })
  }

  add (list, item) {
    list.push(item)
    this.wake()
  }

  async until (condition) {
    while (!condition()) await new Promise((resolve) => { this.wake = resolve })
  }

  async take (list) {
    await this.until(() => list.length || this.close)
    return list.shift()
  }
}

function fragments (ws, binary, parts, ping) {
  parts.forEach((part, index) => {
    ws.send(part, { binary, fin: index === parts.length - 1, compress: true })
    if (ping && index === 0) ws.ping('between')
  })
}

// The server

const seen = []
const server = http.createServer((request, response) => response.end())

async function serve (ws, request, url) {
  const inbox = new Inbox(ws)
  const [kind, ...args] = url.pathname.replace('/unseen', '').slice(1).split('/').map(decodeURIComponent)
  if (kind === 'last') {
    while (!seen.length) await new Promise((resolve) => setTimeout(resolve, 5))
    ws.send(JSON.stringify(seen.shift()))
    return ws.close()
  }
  if (kind === 'headers') {
    ws.send(JSON.stringify({ 'x-test': request.headers['x-test'], subprotocol: ws.protocol }))
  } else if (kind === 'close') {
    await inbox.take(inbox.messages)
    if (args[0] === 'none') ws.close()
    else ws.close(Number(args[0]), args[1])
  } else if (kind === 'ping') {
    ws.ping('from the server')
    await inbox.take(inbox.pongs)
    ws.send('pong')
  } else if (kind === 'fragments') {
    fragments(ws, false, ['fr\u00e4g', '', 'ment\u20ac'], true)
    fragments(ws, true, [Buffer.from('bi'), Buffer.from('na'), Buffer.from('ry')], true)
  } else {
    let message
    while ((message = await inbox.take(inbox.messages))) {
      ws.send(message[0], { binary: message[1] })
    }
  }
  await inbox.until(() => inbox.close)
  if (!url.pathname.startsWith('/unseen')) seen.push(inbox.close)
}

server.on('upgrade', (request, socket, head) => {
  const url = new URL(request.url, 'http://localhost')
  if (url.pathname === '/refuse') {
    return socket.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
  }
  const options = url.searchParams.get('deflate')
  const endpoint = new WebSocket.WebSocketServer({
    noServer: true,
    perMessageDeflate: deflate(options === null ? {} : JSON.parse(options)),
    handleProtocols: (offered) =>
      [...offered].find((name) => ['chat', 'superchat'].includes(name)) || false
  })
  endpoint.handleUpgrade(request, socket, head, (ws) => serve(ws, request, url))
})

// The client

async function run (test) {
  const ws = new WebSocket(test.url, test.subprotocols || [], {
    headers: test.headers || {},
    perMessageDeflate: deflate(test.deflate === undefined ? {} : test.deflate)
  })
  const inbox = new Inbox(ws)
  const got = []
  const report = { got }
  ws.on('upgrade', (response) => { report.headers = response.headers })
  ws.on('unexpected-response', (request, response) => {
    report.refused = response.statusCode
    request.destroy()
    inbox.close = []
    inbox.wake()
  })
  await inbox.until(() => ws.readyState !== WebSocket.CONNECTING || inbox.close || inbox.error)
  if ('refused' in report) return report
  if (inbox.error) return { error: String(inbox.error) }
  report.subprotocol = ws.protocol
  for (const [verb, ...args] of test.steps) {
    if (verb === 'send') {
      ws.send(fromJSON(args[0]))
    } else if (verb === 'receive') {
      const message = await inbox.take(inbox.messages)
      if (message) got.push(toJSON(...message))
    } else if (verb === 'ping') {
      ws.ping(args[0])
      got.push(await inbox.take(inbox.pongs))
    } else if (verb === 'fragments') {
      const parts = args[0].map(fromJSON)
      fragments(ws, typeof parts[0] !== 'string', parts, args[1])
    } else {
      ws.close(...args)
    }
  }
  await inbox.until(() => inbox.close)
  report.close = inbox.close
  if (inbox.error) report.error = String(inbox.error)
  return report
}

async function main () {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(JSON.stringify(await run(JSON.parse(line))) + '\n')
  }
}

if (process.argv[2] === 'server') server.listen({ fd: Number(process.argv[3]) })
else main()
