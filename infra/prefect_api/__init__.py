"""The Prefect server: started, stopped and spoken to; its events, and flow runs whose process died."""
