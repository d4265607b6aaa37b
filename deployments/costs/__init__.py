"""What tenants cost and are charged: measured, priced, and put on paper."""
