"""A third core, for the engine's tests: a ridge classifier on pooled pixels, in milliseconds.

It meets the same contract as the real cores, and can be told to wait, raise, return NaN or take
its own process down, which the real cores cannot.
"""
