"""What a calibration is fitted with: maps of scores, ridge regressions, and figures on queries that were left out."""
