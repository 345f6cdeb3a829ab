"""What a finished curation leads to: its folder, the nights' history, promotion."""
