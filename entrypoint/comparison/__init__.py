"""Several models on the same samples: differences, their certainty, and conditions on them."""
