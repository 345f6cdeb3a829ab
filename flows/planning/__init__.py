"""What a curation would compute and cost, before anything is computed."""
