"""Certificates: by the variables that litellm knows too, so that both roads trust the same."""

from __future__ import annotations

import os
import ssl


def context() -> ssl.SSLContext | bool:
    """How servers are checked: by the file of SSL_VERIFY or SSL_CERT_FILE, else by certifi's.

    False where SSL_VERIFY is false: they are not. SSL_SECURITY_LEVEL sets the ciphers.
    """
    wanted = os.environ.get("SSL_VERIFY", "").strip()
    if wanted.lower() == "false":
        return False
    named = [path for path in (wanted, os.environ.get("SSL_CERT_FILE", "")) if path and os.path.exists(path)]
    made = ssl.create_default_context(cafile=named[0] if named else _certifi())
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if level := os.environ.get("SSL_SECURITY_LEVEL"):
        made.set_ciphers(level)
    return made


def _certifi() -> str:
    import certifi

    return certifi.where()
