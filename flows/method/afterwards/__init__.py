"""Work on finished curations: calibrate, validate, retrain, prune, treat again."""
