"""The bank: takes money, and gives it back."""

import json

from orders import settings
from orders.http import Client

_client = Client(settings.BANK_URL)


def charge(order):
    """Take the money for an order. Made once only: a second call could take it twice."""
    return _client.send("/charges", json.dumps({"order": order["id"], "amount": order["amount"]}).encode())


def refund(order):
    """Give the money back."""
    return _client.send("/refunds", json.dumps({"order": order["id"]}).encode(), attempts=1)
