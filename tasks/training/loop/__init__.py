"""What happens beside the steps of a training: progress, checkpoints, early stop."""
