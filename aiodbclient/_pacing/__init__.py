"""The client's side of the rate limit."""
