"""Stage 5: reference models, trained and scored on what export makes."""
