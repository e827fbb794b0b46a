"""The rules of products and orders, the same for every protocol: limits, checks, and the ids of orders.

A check raises InvalidRequest, which lists all invalid fields of the request by their paths, such as `lines[0].sku`.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import uuid
from typing import TYPE_CHECKING

from api_edge.domain import InvalidIdempotencyKey, InvalidRequest, UnknownCurrency, UnknownOrder
from meshkit.errors import FieldViolation
from meshkit.validation import is_uuid, reject, text_violations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from api_edge.domain import Line

MAX_SKU = 64
"""The maximum length of a SKU, in characters."""

MAX_LINES = 100
"""The maximum number of lines in an order, and of SKUs in one read."""

MAX_QUANTITY = 1_000_000
DEFAULT_QUANTITY = 1
MAX_PAGE, DEFAULT_PAGE = 100, 20
DEFAULT_CURRENCY = "EUR"

READ_SECONDS, ORDER_SECONDS = 2.0, 5.0
"""The time budgets of requests for products and for orders, if the request has none."""

MAX_SECONDS = 30.0
"""The longest time budget of a request."""

MAX_REQUEST_BYTES = 128 * 1024
"""The maximum size of a request, without compression."""

KEY = "[ -~]{1,255}"
"""An idempotency key, as a regular expression."""

KEY_BYTES = 16
"""The random bytes of a generated key."""

CURRENCY = re.compile("[A-Z]{3}")
"""A currency, as ISO 4217 writes it."""

ORDERS = uuid.UUID("6f6d0d1c-5d3b-5a53-8a51-6a6f2f9b7c11")
"""The namespace of order ids (UUIDv5, RFC 9562)."""


def check_product(line: Line, currency: str) -> None:
    """Raises InvalidRequest or UnknownCurrency if the request for this product is invalid."""
    reject(_line_violations("", line), InvalidRequest)
    check_currency(currency)


def check_products(skus: Sequence[str], quantity: int, currency: str) -> None:
    """Raises InvalidRequest or UnknownCurrency if the request for these products is invalid."""
    reject([*_skus_violations(skus), *_range_violations("quantity", quantity, MAX_QUANTITY)], InvalidRequest)
    check_currency(currency)


def check_page(page_size: int, quantity: int, currency: str) -> None:
    """Raises InvalidRequest or UnknownCurrency if the request for this page is invalid."""
    sizes = _range_violations("page_size", page_size, MAX_PAGE)
    reject([*sizes, *_range_violations("quantity", quantity, MAX_QUANTITY)], InvalidRequest)
    check_currency(currency)


def check_order(key: str, lines: Sequence[Line], currency: str) -> None:
    """Raises InvalidIdempotencyKey, InvalidRequest or UnknownCurrency if the order is invalid."""
    check_key(key)
    reject(_lines_violations(lines), InvalidRequest)
    check_currency(currency)


def key_of(values: Sequence[str]) -> str:
    """The key in a request's fields of that name, or a new one without a field. Raises InvalidIdempotencyKey."""
    if len(values) > 1:
        raise InvalidIdempotencyKey
    key = values[0] if values else secrets.token_hex(KEY_BYTES)
    check_key(key)
    return key


def check_key(key: str) -> None:
    """Raises InvalidIdempotencyKey if the key is invalid."""
    if not re.fullmatch(KEY, key):
        raise InvalidIdempotencyKey


def check_currency(currency: str) -> None:
    """Raises UnknownCurrency if this does not have the form of an ISO 4217 code."""
    if not CURRENCY.fullmatch(currency):
        raise UnknownCurrency(currency)


def duplicates(skus: Iterable[str]) -> Iterator[int]:
    """The positions of repeated SKUs: an order has one line for each SKU."""
    seen: set[str] = set()
    for index, sku in enumerate(skus):
        if sku in seen:
            yield index
        seen.add(sku)


def canonical_id(order_id: str) -> str:
    """The order's id as it is stored. Raises UnknownOrder if it is not a UUID, because every id of an order is one."""
    if not is_uuid(order_id):
        raise UnknownOrder(order_id)
    return order_id.lower()


def order_id(key: str) -> str:
    """The id of the order that an idempotency key names."""
    return str(uuid.uuid5(ORDERS, key))


def fingerprint(lines: Sequence[Line], currency: str) -> str:
    """A digest of a whole order. It is equal for equal lines in the same sequence and the same currency."""
    content = json.dumps([currency, [[line.sku, line.quantity] for line in lines]])
    return hashlib.sha256(content.encode()).hexdigest()


def _skus_violations(skus: Sequence[str]) -> Iterator[FieldViolation]:
    if not 1 <= len(skus) <= MAX_LINES:
        yield FieldViolation("skus", f"must have 1 to {MAX_LINES} SKUs, not {len(skus)}")
        return
    for index, sku in enumerate(skus):
        yield from text_violations(f"skus[{index}]", sku, longest=MAX_SKU)


def _lines_violations(lines: Sequence[Line]) -> Iterator[FieldViolation]:
    if not 1 <= len(lines) <= MAX_LINES:
        yield FieldViolation("lines", f"must have 1 to {MAX_LINES} lines, not {len(lines)}")
        return
    for index, line in enumerate(lines):
        yield from _line_violations(f"lines[{index}].", line)
    for index in duplicates(line.sku for line in lines):
        yield FieldViolation(f"lines[{index}].sku", "repeats an earlier line; send one line for each SKU")


def _line_violations(path: str, line: Line) -> Sequence[FieldViolation]:
    return [
        *text_violations(f"{path}sku", line.sku, longest=MAX_SKU),
        *_range_violations(f"{path}quantity", line.quantity, MAX_QUANTITY),
    ]


def _range_violations(field: str, number: int, highest: int) -> Sequence[FieldViolation]:
    return () if 1 <= number <= highest else (FieldViolation(field, f"must be 1 to {highest}"),)
