"""A client on asyncio: sends its arguments and prints what comes back.

    pip install simple-websocket
    python aio_client.py ws://127.0.0.1:5000/echo one two three
"""

import asyncio
import sys

from simple_websocket import AioClient, ConnectionClosed


async def main(url='ws://127.0.0.1:5000/echo', *words):
    ws = await AioClient.connect(url, max_message_size=2**20)
    try:
        for word in words or ('hello',):
            await ws.send(word)
            print(await asyncio.wait_for(ws.receive(), 10))
        await ws.close(1000, 'done')
    except ConnectionClosed as closed:
        sys.exit(str(closed))


if __name__ == '__main__':
    asyncio.run(main(*sys.argv[1:]))
