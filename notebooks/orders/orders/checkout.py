"""From an order to a parcel."""

from orders import bank, carrier, warehouse
from orders.http import CallFailed


def checkout(order):
    """Reserve, charge, book; what was done is undone where a later step fails."""
    warehouse.reserve(order)
    try:
        bank.charge(order)
    except CallFailed:
        warehouse.release(order)
        raise
    try:
        return carrier.book(order)
    except CallFailed:
        bank.refund(order)
        warehouse.release(order)
        raise
