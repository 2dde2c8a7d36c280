"""A student as a small device computes it: its operations, the steps they make, and the memory these need."""
