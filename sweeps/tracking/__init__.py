"""A study's cells in the tracker that a group already uses: TensorBoard, MLflow, Weights & Biases.

One tracker run per committed cell, its points read from the ledger and nowhere else; so it is the
same whether it is fed while the study runs or made afterwards. The ledger never depends on it.
"""
