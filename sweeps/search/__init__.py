"""A search: who comes next and who is out. It knows neither Ray nor the engine.

`space` says what may be proposed, `distributions` says it in Optuna's words, `sampler` proposes,
`trials` and `optuna_study` are what came of it, in our words and in Optuna's, `pruner` says when
an arm is not worth its remaining seeds, and `campaign` is the course of it all.

A race is beside it: `looks` says when to look and with which error, `paired` has the tests,
`decide` gives the answers, which `analysis` asks for too, and `race` says which cells they want.
"""
