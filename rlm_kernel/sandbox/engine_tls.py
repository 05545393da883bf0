"""A Docker engine that is reached over tcp with TLS."""

from __future__ import annotations

import ssl
from typing import Any

from requests.adapters import HTTPAdapter


class TlsAdapter(HTTPAdapter):
    """Carries docker-py's requests. `context`: for connections beside, too."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self.context)
