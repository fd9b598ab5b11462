"""What clients speak with: routes, bodies, answers, the inference protocol."""
