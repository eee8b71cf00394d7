"""Copy a tenant's database to a file and from it, by the programs of its engine."""
