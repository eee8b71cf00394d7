"""``Tenants.move``: ``job`` moves a tenant, ``copier`` copies its database, ``leftover`` undoes an unfinished move."""
