from unittest import mock

import pytest

from orders import bank, carrier, checkout, warehouse
from orders.http import CallFailed

ORDER = {"id": "o-1", "amount": 10, "items": ["kettle"], "address": "Rue 1"}


def test_a_charge_that_fails_gives_the_items_free():
    with (
        mock.patch.object(warehouse, "reserve"),
        mock.patch.object(bank, "charge", side_effect=CallFailed),
        mock.patch.object(warehouse, "release") as release,
        mock.patch.object(carrier, "book") as book,
    ):
        with pytest.raises(CallFailed):
            checkout.checkout(ORDER)
    release.assert_called_once_with(ORDER)
    book.assert_not_called()
