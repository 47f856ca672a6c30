"""The mathematics of attacks and defenses: tensors in, tensors out, the equation named."""
