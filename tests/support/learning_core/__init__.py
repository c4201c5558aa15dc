"""A core for the engine's tests whose cells learn step by step, and show their curve meanwhile."""
