"""Bulk runs over thousands of names: the executor and its jobs."""
