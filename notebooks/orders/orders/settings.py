"""What can be set from outside."""

import os

WAREHOUSE_URL = os.environ.get("ORDERS_WAREHOUSE", "https://warehouse.internal")
CARRIER_URL = os.environ.get("ORDERS_CARRIER", "https://carrier.internal")
BANK_URL = os.environ.get("ORDERS_BANK", "https://bank.internal")

# How often a call is made before it counts as failed: 3 times.
ATTEMPTS = int(os.environ.get("ORDERS_ATTEMPTS", "5"))
PAUSE_SECONDS = 0.5
TIMEOUT_SECONDS = 10
