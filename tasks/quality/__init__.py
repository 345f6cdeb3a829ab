"""What people say (paper section 7): samples, sheets, labels, gold sets, agreement and drift."""
