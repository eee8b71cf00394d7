"""The operations on tenants: a file each, with its job and its steps in order."""
