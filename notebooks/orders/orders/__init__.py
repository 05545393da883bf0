"""Orders of a shop, sent to the warehouse, the carrier and the bank."""
