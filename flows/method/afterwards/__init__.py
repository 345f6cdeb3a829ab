"""Work on finished curations: calibrate, validate, retrain and prune."""
