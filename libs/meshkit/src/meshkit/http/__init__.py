"""HTTP/1.1 for any ASGI app, on uvicorn: `pip install 'meshkit[http]'`.

server       serves under `meshkit.lifecycle`: drains, and loses no request
protocol     one connection: parsing, pipelining, cancellation, and what is refused before an app sees it
framing      cuts the bytes of a connection into requests, and measures their heads
exchange     one request while its app runs
flow         when reading pauses, and how a response is written
connections  the cap on connections, and their time limits
limits       the numbers
refusals     the responses to requests that are refused for their bytes
servers      selects another server: on_hypercorn and on_granian, each of an extra of its own
in_flight    what an app does itself on these: cancellation, and the last requests of a stop
"""

from __future__ import annotations

from meshkit.extras import require

require("http")
