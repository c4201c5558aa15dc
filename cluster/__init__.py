"""The only room that imports Ray and Optuna. It knows no method, no ledger and no study.

`connect` finds or starts a cluster; `queue` decides who computes what next (no Ray in it); `fleet`
keeps one Ray Train run per node whose workers take work from the queue; `arms` drives the study's
arms as Ray Tune trials whose search is an Optuna study.

A search proposes its arms: `space` says what may be proposed, `axes` says it in Optuna's words,
`sampler` proposes, `proposals` and `studies` are what came of it, in ours and in Optuna's,
`stopping` says when an arm is hopeless, `campaign` is the course of it all without Ray, and
`tuning` drives it as Ray Tune trials whose searches are `OptunaSearch`.
"""
