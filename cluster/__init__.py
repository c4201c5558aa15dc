"""The only room that imports Ray. It knows no method, no ledger and no study.

`connect` finds a cluster, or starts one in a folder that `private` closes to others; `queue`
decides who computes what next (no Ray in it), and `broker` is the actor that owns it; `fleet` keeps
one Ray Train run per node whose workers take work from the queue, and `demand` asks an autoscaler
for more nodes; `tune` has a study's or a search's arms as Ray Tune trials (`trials`) whose search
algorithm is Ray's `OptunaSearch`; `drive` is the driver's side of it all.
"""
