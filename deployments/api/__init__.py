"""The HTTP API: how tenants hand in files and follow them, how storage reports new files, what operators scrape.

`python -m deployments.api` serves it. It decides nothing itself: it records what arrives and lets `dispatch` go on.
"""
