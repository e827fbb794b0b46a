"""Page tokens: opaque, URL-safe text that says after which SKU the next page begins.

A token is base64url, unpadded, of a format byte, a CRC-32 and the SKU. The checksum is no secret: it tells tokens of
ours from text that merely looks like one. Only the one spelling that we give is read back.
"""

from __future__ import annotations

import base64
import binascii
from zlib import crc32

from inventory.domain import InvalidPageToken

_FORMAT = b"\x01"
_CHECKSUM_BYTES = 4
_LONGEST = 400


def write_token(after: str) -> str:
    """The token of the page after a SKU."""
    sku = after.encode()
    payload = _FORMAT + crc32(_FORMAT + sku).to_bytes(_CHECKSUM_BYTES) + sku
    return base64.urlsafe_b64encode(payload).decode().rstrip("=")


def read_token(token: str) -> str:
    """The SKU that a token's page comes after.

    Raises:
        InvalidPageToken: `write_token` did not make it.
    """
    try:
        padding = "=" * (-len(token) % 4)
        payload = base64.b64decode(token + padding, altchars=b"-_", validate=True) if len(token) <= _LONGEST else b""
        after = payload[len(_FORMAT) + _CHECKSUM_BYTES :].decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidPageToken from error
    if not (after and after.isprintable()) or write_token(after) != token:  # no SKU: PostgreSQL cannot hold U+0000
        raise InvalidPageToken
    return after
