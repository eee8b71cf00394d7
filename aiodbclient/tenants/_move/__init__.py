"""``Tenants.move``: ``job`` moves a tenant, ``copier`` copies its database by the programs that ``programs`` runs."""
