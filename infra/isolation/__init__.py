"""Who may open which files: a role per tenant where they are on S3, what it allows, and how it is assumed."""
