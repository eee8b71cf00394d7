"""What each database server does for a tenant."""
