"""Online scoring: single rows as an application sends them, through the same scorer as batches."""
