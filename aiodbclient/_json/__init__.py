"""Convert models to JSON and back, and error answers to exceptions. Pure."""
