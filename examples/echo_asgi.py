"""Echo on asyncio, as an ASGI application; here on uvicorn.

    pip install simple-websocket uvicorn wsproto
    uvicorn --port 5000 echo_asgi:app       ws://127.0.0.1:5000/
    PORT=8000 python echo_asgi.py           the same, at another port

uvicorn itself needs a WebSocket library: wsproto, which is here already.
"""

import os

from simple_websocket import AioServer, ConnectionClosed


async def app(scope, receive, send):
    if scope['type'] != 'websocket':
        return  # uvicorn answers 500; a framework would route this
    ws = await AioServer.accept(asgi=(scope, receive, send))
    try:
        while True:
            await ws.send(await ws.receive())
    except ConnectionClosed:
        pass


if __name__ == '__main__':
    import uvicorn

    port = int(os.environ.get('PORT', 5000))
    uvicorn.run(app, host='127.0.0.1', port=port, ws='wsproto', lifespan='off')
