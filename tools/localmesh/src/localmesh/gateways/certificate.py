"""A certificate for a gateway on this machine, of an authority that nobody trusts until its file is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("localhost", "127.0.0.1", "::1")
CERT, KEY, AUTHORITY = "cert.pem", "key.pem", "ca.pem"


def make(folder: Path, *hosts: str) -> None:
    """Writes a certificate, its key and its authority into a folder, if none for these names is there yet.

    They stay the same from start to start, so that a browser asks only once. The authority's key is not kept.
    """
    if all((folder / name).is_file() for name in (CERT, KEY, AUTHORITY)) and _names(folder / CERT).issuperset(hosts):
        return
    import trustme  # noqa: PLC0415 - only for a gateway

    folder.mkdir(mode=0o700, exist_ok=True)
    authority = trustme.CA()
    issued = authority.issue_cert(*NAMES, *hosts)
    (folder / KEY).touch(mode=0o600)
    issued.private_key_pem.write_to_path(str(folder / KEY))
    issued.cert_chain_pems[0].write_to_path(str(folder / CERT))
    authority.cert_pem.write_to_path(str(folder / AUTHORITY))


def _names(cert: Path) -> set[str]:
    """The host names of a certificate."""
    from cryptography import x509  # noqa: PLC0415 - only for a gateway

    names = x509.load_pem_x509_certificate(cert.read_bytes()).extensions
    return set(names.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName))
