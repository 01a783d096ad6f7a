"""A pod's application: on each port it answers an HTTP request with HTTP and anything else with a line, both with its name.

python -c SOURCE PORT... TOKEN
"""

import asyncio
import os
import signal
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        first = await reader.read(4096)
        body = f"\nname={os.environ['NAME']};\n".encode()
        if first.startswith((b"GET ", b"PRI ")):
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        elif first:
            writer.write(body)
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    for port in sys.argv[1:-1]:
        await asyncio.start_server(serve, "0.0.0.0", int(port))
    await stop.wait()


asyncio.run(main())
