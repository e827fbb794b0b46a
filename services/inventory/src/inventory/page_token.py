"""Page tokens: opaque, URL-safe text that holds the SKU after which the next page starts.

A token is the unpadded base64url of a format byte, a CRC-32 and the SKU. The checksum is not a secret: it detects text
that only looks like a token. `read_token` accepts only the exact spelling that `write_token` produces.
"""

from __future__ import annotations

import base64
import binascii
from zlib import crc32

from inventory.domain import InvalidPageToken

_FORMAT = b"\x01"
_CHECKSUM_BYTES = 4
_MAX_CHARACTERS = 400


def write_token(after: str) -> str:
    """The token of the page that starts after a SKU."""
    sku = after.encode()
    payload = _FORMAT + crc32(_FORMAT + sku).to_bytes(_CHECKSUM_BYTES) + sku
    return base64.urlsafe_b64encode(payload).decode().rstrip("=")


def read_token(token: str) -> str:
    """The SKU after which the token's page starts.

    Raises:
        InvalidPageToken: `write_token` did not create the token.
    """
    try:
        padding = "=" * (-len(token) % 4)
        payload = (
            base64.b64decode(token + padding, altchars=b"-_", validate=True) if len(token) <= _MAX_CHARACTERS else b""
        )
        after = payload[len(_FORMAT) + _CHECKSUM_BYTES :].decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidPageToken from error
    if not (after and after.isprintable()) or write_token(after) != token:  # no SKU: PostgreSQL cannot hold U+0000
        raise InvalidPageToken
    return after
