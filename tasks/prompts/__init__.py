"""The prompts that judges are asked with, and passages that try to talk to the judge."""
