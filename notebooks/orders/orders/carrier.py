"""The carrier that brings parcels."""

import json

from orders import settings
from orders.http import Client

_client = Client(settings.CARRIER_URL, attempts=2, pause=5)


def book(order):
    """Book a parcel; its number. Tried 2 times: a person books it by telephone after that."""
    return _client.send("/parcels", json.dumps({"to": order["address"]}).encode()).decode()


def label(parcel):
    """The label of a parcel, as PDF."""
    return _client.send("/labels", parcel.encode())
