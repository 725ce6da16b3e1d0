"""What clients are measured against."""

from .registry import BACKLOG, HOST, server


@server('for-clients', 'clients', 'support', 'for the clients')
def for_clients(port):
    """Echo at ``/echo``; at ``/stream`` 64-byte messages without an end.

    The stream is made of frames that are built once, so that any client is
    slower than this server; the echo costs the same whoever asks.
    """
    import socket
    import threading

    with socket.create_server((HOST, port), backlog=BACKLOG) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_serve_client, args=(sock,), daemon=True).start()


def _serve_client(sock):
    import base64
    import hashlib
    import socket

    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = b''
    while b'\r\n\r\n' not in head:
        data = sock.recv(4096)
        if not data:
            return  # only looked whether we listen
        head += data
    fields = dict(line.split(': ', 1) for line in head.decode().split('\r\n')[1:-2])
    fields = {name.lower(): value.strip() for name, value in fields.items()}
    key = fields['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    sock.sendall(
        f'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
        f'Sec-WebSocket-Accept: {accept}\r\n\r\n'.encode()
    )
    try:
        if head.startswith(b'GET /stream'):
            frames = (b'\x81\x40' + b'x' * 64) * 1000
            while True:
                sock.sendall(frames)
        _echo_small(sock)
    except OSError:
        pass  # the client is done
    finally:
        sock.close()


def _echo_small(sock):
    """Echo messages of at most 125 bytes, one at a time."""
    while True:
        data = sock.recv(4096)
        if len(data) < 6 or data[0] & 0x0F == 8:
            sock.sendall(b'\x88\x00')
            return
        size = data[1] & 0x7F
        while len(data) < 6 + size:
            data += sock.recv(4096)
        mask = int.from_bytes((data[2:6] * (size // 4 + 1))[:size], 'big')
        payload = int.from_bytes(data[6:], 'big') ^ mask
        sock.sendall(bytes((data[0], size)) + payload.to_bytes(size, 'big'))
