"""The method: pure functions over tables. No Prefect, no Ray, no object storage, no environment."""
