"""Many runs that answer one question: what is varied, over which seeds, and what came out."""
