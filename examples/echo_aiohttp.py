"""Echo on asyncio, inside an aiohttp application.

    pip install simple-websocket aiohttp
    python echo_aiohttp.py              ws://127.0.0.1:8000/echo
    PORT=9000 python echo_aiohttp.py    another port
"""

import os

from aiohttp import web

from simple_websocket import AioServer


async def echo(request):
    async with await AioServer.accept(aiohttp=request, max_message_size=2**20) as ws:
        async for message in ws:
            await ws.send(message)
    return web.Response()  # aiohttp wants one; it is not sent


app = web.Application()
app.add_routes([web.get('/echo', echo)])

if __name__ == '__main__':
    web.run_app(app, host='127.0.0.1', port=int(os.environ.get('PORT', 8000)))
