"""aiodbclient: async SDK."""
