"""A cascade with a guarantee: an audit sample, exact bounds, and the thresholds that they allow."""
