"""Small web pages of our own: triage sheets and the assistant."""
