"""A client on asyncio: sends its arguments and prints what comes back.

    pip install simple-websocket
    python aio_client.py ws://127.0.0.1:8000/echo one two three
"""

import asyncio
import sys

from simple_websocket import AioClient, ConnectionClosed


async def main(url='ws://127.0.0.1:8000/echo', *words):
    async with AioClient(url, max_message_size=2**20) as ws:
        try:
            for word in words or ('hello',):
                await ws.send(word)
                answer = await ws.receive(timeout=10)
                if answer is None:
                    sys.exit('no answer in 10 seconds')
                print(answer)
        except ConnectionClosed as closed:
            sys.exit(str(closed))


if __name__ == '__main__':
    asyncio.run(main(*sys.argv[1:]))
