"""The certificate and the key of a TLS server, in PEM files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class TlsFiles:
    """The files of a server.

    Attributes:
        certificate: its certificate, and those between it and the root.
        key: its private key, not encrypted.
    """

    certificate: Path
    key: Path

    def context(self, *protocols: str) -> ssl.SSLContext:
        """The context of a server that offers these protocols (ALPN), for TLS 1.2 and newer."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        context.set_alpn_protocols(protocols)
        return context


def check_certificate(path: str) -> None:
    """Raises ValueError unless the file has certificates."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError("the file has no certificate in PEM") from None
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None


def check_key(path: str, certificate: str) -> None:
    """Raises ValueError unless the file has the key of the certificate in another file, which is a valid one."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, path, _refuse_encrypted_key)
    except ssl.SSLError:
        raise ValueError("the file has no private key in PEM that belongs to the certificate") from None
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None


def _refuse_encrypted_key() -> str:
    raise ValueError("the private key is encrypted, which is not supported")
