"""What a review keeps on disk: people, items and answers."""
