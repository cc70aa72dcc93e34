"""The PA-SAM adapter: its modules and its predictor."""
