"""Tables: our figures beside the published ones."""
