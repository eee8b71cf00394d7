"""The verbs: a file each, with its steps in order."""
