"""The JSON services behind the HTTP rivals, in aiohttp.web. `http_backends.py stock|price PORT FILE`."""

import sqlite3

import uvloop
from aiohttp import web

from bench.rivals import shop
from bench.rivals.edge import arguments


async def get_stock(request: web.Request) -> web.Response:
    """The stock of a SKU."""
    found = shop.stock(request.app[DATABASE], request.match_info["sku"])
    return web.json_response(found, status=200 if found else 404)


async def get_price(request: web.Request) -> web.Response:
    """The price of some units of a SKU."""
    query = request.query
    cost = shop.price(request.app[DATABASE], request.match_info["sku"], int(query["quantity"]), query["currency"])
    return web.json_response(cost, status=200 if cost else 404)


DATABASE = web.AppKey("database", sqlite3.Connection)
HANDLERS = {"stock": get_stock, "price": get_price}


def main() -> None:
    """Serves one of the two, until SIGTERM."""
    role, port, (file,) = arguments()
    app = web.Application()
    app[DATABASE] = shop.connect(file)
    app.router.add_get(f"/{role}/{{sku}}", HANDLERS[role])
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
