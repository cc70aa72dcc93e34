"""The models, an object each; none of these modules imports PyTorch."""
