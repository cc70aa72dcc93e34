"""3  review: people decide, in Label Studio."""
