"""Echo on asyncio, as an ASGI application; here on uvicorn.

    pip install simple-websocket uvicorn wsproto
    uvicorn --port 8000 echo_asgi:app       ws://127.0.0.1:8000/
    PORT=9000 python echo_asgi.py           the same, at another port

uvicorn itself needs a WebSocket library: wsproto, which is here already.
"""

import os

from simple_websocket import AioServer


async def app(scope, receive, send):
    if scope['type'] == 'http':  # a plain request: there is a WebSocket only
        await send({'type': 'http.response.start', 'status': 404})
        await send({'type': 'http.response.body'})
    if scope['type'] != 'websocket':
        return
    connection = scope, receive, send
    async with await AioServer.accept(asgi=connection, max_message_size=2**20) as ws:
        async for message in ws:
            await ws.send(message)


if __name__ == '__main__':
    import uvicorn

    port = int(os.environ.get('PORT', 8000))
    uvicorn.run(app, host='127.0.0.1', port=port, ws='wsproto', lifespan='off')
