"""Study → plan → run: what is missing, who runs it, what came back."""
