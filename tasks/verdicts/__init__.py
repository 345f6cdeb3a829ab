"""What the tiers say together: which pairs the next tier is asked about, and the decision on each (paper §3.1)."""
