"""PostgreSQL: one database of Orchard's own, a login per tenant under forced row-level security."""
