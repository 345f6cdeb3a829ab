"""What was paid for, row by row: kept, recalled, compacted, forgotten."""
