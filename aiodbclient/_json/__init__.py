"""Models to JSON and back; answers that are errors to exceptions. Pure."""
