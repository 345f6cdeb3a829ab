"""The engines that judge and encode: vLLM, encoders, cross-encoders, endpoints and batch jobs."""
