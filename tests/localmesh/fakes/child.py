"""A small real program that localmesh runs instead of a service.

It responds to GET /readyz on a port, stops as its arguments say, and writes events to a journal.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

LINE = (
    '{"time": "2026-11-24T09:05:53.337+00:00", "level": "WARNING", "logger": "meshkit.rpc", "message": "Get INTERNAL",'
    ' "service": "pricing", "trace_id": "47010f518938cd685e324014ebc1b521", "duration_ms": 6.5, "peer": "ipv4:x"}'
)
"""The record that it logs for each GET /log."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("port", type=int)
    parser.add_argument("journal", type=Path)
    parser.add_argument("--status", default="200 OK", help="the HTTP status of /readyz")
    parser.add_argument("--stop-seconds", type=float, default=0, help="from the first SIGTERM to the exit")
    parser.add_argument("--deaf", action="store_true", help="ignore SIGTERM")
    parser.add_argument("--refuse", help="print this text and exit at once")
    parser.add_argument("--exit-status", type=int, default=1, help="the status of --refuse")
    arguments = parser.parse_args()
    if arguments.refuse:
        sys.stderr.write(f"{arguments.refuse}\n")
        return int(arguments.exit_status)
    return asyncio.run(serve(arguments))


async def serve(arguments: argparse.Namespace) -> int:
    def note(event: str) -> None:
        with arguments.journal.open("a") as journal:
            journal.write(f"{arguments.name} {event}\n")

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /log "):
            sys.stderr.write(f"{arguments.name} writes plain text\n{LINE}\n")
            sys.stderr.flush()
        writer.write(f"HTTP/1.1 {arguments.status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    def terminate() -> None:
        if not arguments.deaf:
            (hurry if stop.is_set() else stop).set()

    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, note, "saw SIGINT")
    loop.add_signal_handler(signal.SIGTERM, terminate)
    async with await asyncio.start_server(respond, "127.0.0.1", arguments.port):
        sys.stderr.write(f"{arguments.name} serves\n")
        note("serves")
        await stop.wait()
        note("stopping")
        try:
            await asyncio.wait_for(hurry.wait(), arguments.stop_seconds)
            note("hurried")
        except TimeoutError:
            note("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
