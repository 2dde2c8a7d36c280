"""Students, teachers, and what they weigh."""
