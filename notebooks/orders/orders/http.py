"""The one client for all services."""

import time
import urllib.error
import urllib.request

from orders import settings


class CallFailed(Exception):
    """A service did not reply, however often it was asked."""


class Client:
    """Calls a service, and tries again where that makes sense."""

    def __init__(self, base_url, attempts=settings.ATTEMPTS, pause=settings.PAUSE_SECONDS):
        self.base_url = base_url
        self.attempts = attempts
        self.pause = pause

    def send(self, path, body, attempts=None):
        """Post a body; the reply. Tried `attempts` times, else as the client was made."""
        left = self.attempts if attempts is None else attempts
        pause = self.pause
        while True:
            try:
                return self._post(path, body)
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise
                failure = error
            except urllib.error.URLError as error:
                failure = error
            left -= 1
            if left <= 0:
                raise CallFailed(f"{self.base_url}{path}") from failure
            time.sleep(pause)
            pause *= 2

    def _post(self, path, body):
        request = urllib.request.Request(self.base_url + path, data=body, method="POST")
        with urllib.request.urlopen(request, timeout=settings.TIMEOUT_SECONDS) as reply:
            return reply.read()
