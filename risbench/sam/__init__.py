"""The SAM family as models: loading official weights, and prompting with many boxes of one image at once."""
