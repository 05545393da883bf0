"""The warehouse: reserves, and gives free again."""

import json

from orders import settings
from orders.http import Client

_client = Client(settings.WAREHOUSE_URL)


def reserve(order):
    """Reserve all items of an order."""
    return _client.send("/reserve", json.dumps(order["items"]).encode())


def release(order):
    """Give them free again. Tried 10 times: what stays reserved cannot be sold."""
    return _client.send("/release", json.dumps(order["items"]).encode(), attempts=10)
