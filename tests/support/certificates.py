"""Certificates of a test's own: of who vouches, of an engine on loopback, and of who may use it."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_CA_USES = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def make_certificates(server: Path, client: Path) -> None:
    """In two folders, by the names that Docker gives them: ca.pem, and server-cert.pem and server-key.pem, or
    cert.pem and key.pem.
    """
    authority = Authority()
    for folder, prefix, use in (
        (server, "server-", ExtendedKeyUsageOID.SERVER_AUTH),
        (client, "", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        folder.mkdir(parents=True)
        (folder / "ca.pem").write_bytes(_written(authority.certificate))
        certificate, key = authority.issue(f"a test's {prefix or 'client'}", use)
        (folder / f"{prefix}cert.pem").write_bytes(certificate)
        (folder / f"{prefix}key.pem").write_bytes(key)
        (folder / f"{prefix}key.pem").chmod(0o600)


class Authority:
    """`certificate` is what those need who trust it."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("a test's authority")
        self.certificate = (
            self._begun(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_CA_USES, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, name: str, use: x509.ObjectIdentifier) -> tuple[bytes, bytes]:
        """A certificate and its key, as the files that hold them."""
        key = ec.generate_private_key(ec.SECP256R1())
        loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            self._begun(_named(name), key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        form, encoding = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
        return _written(certificate), key.private_bytes(encoding, form, serialization.NoEncryption())

    def _begun(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _written(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
