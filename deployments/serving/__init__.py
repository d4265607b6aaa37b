"""Online scoring: which release serves, and which of its models are in memory."""
