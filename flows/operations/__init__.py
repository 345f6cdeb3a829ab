"""Deployments, their worker, notification, and the checks of `reneg doctor`."""
