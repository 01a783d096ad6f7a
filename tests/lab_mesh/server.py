"""A pod's application: on each port it answers an HTTP request with HTTP and anything else with a line, both with its name.

python -c SOURCE PLACE... TOKEN        PLACE: a port of all addresses, or IP:PORT
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
    for place in sys.argv[1:-1]:
        ip, _, port = place.rpartition(":")
        await asyncio.start_server(serve, ip or "0.0.0.0", int(port))
    await stop.wait()


asyncio.run(main())
