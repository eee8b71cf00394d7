"""A rate budget that several processes share."""
