"""The worker that executes runs of one work pool: `python -m deployments.worker tier-premium`."""
