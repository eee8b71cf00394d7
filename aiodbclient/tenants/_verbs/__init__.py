"""The verbs: a job for each, and its steps in order."""
