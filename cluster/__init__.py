"""The only room that imports Ray. It knows no method, no ledger and no study.

`connect` finds a cluster, or starts one in a folder that `private` closes to others; `queue`
decides who computes what next (no Ray in it); `fleet` keeps one Ray Train run per node whose
workers take work from the queue, and `demand` asks an autoscaler for more nodes; `arms` drives the
study's arms as Ray Tune trials whose search is an Optuna study.

`tuning` drives a search (`sweeps.search`) as Ray Tune trials whose search algorithm is
`OptunaSearch`.
"""
