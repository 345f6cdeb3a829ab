"""Computing the parts of a stage: Prefect task runs over Ray tasks and engine actors, with logs and a usage meter."""
