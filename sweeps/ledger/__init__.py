"""The store of finished cells: the one source of truth. No Ray, no torch.

    results/<study>/
      study.json                  the last plan: factors, arms, seeds, planned cells, metric table
      cells/<key>.parquet         one row per finished cell, immutable
      predictions/<key>.parquet   per-example probabilities of that cell
      artifacts/<key>.npz         small arrays of that cell, for figures
      failures/<key>.parquet      one row per cell that failed; gone once the cell succeeds
      quarantine/                 damaged files, kept and named, never read
      */_compact-<hash>.parquet   many cells, predictions or failures in one file
      lock                        held by the controller that is running

A file appears under its final name only when it is whole: temporary file, fsync, rename.
"""
