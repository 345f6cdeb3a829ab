"""The judges (paper section 3.1): who is asked about which pair, by which protocol, and how answers are read."""
