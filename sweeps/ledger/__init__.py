"""The store of finished cells: the one source of truth. No Ray, no torch.

    results/<study>/
      study.json                  the last plan: factors, arms, seeds, planned cells, metric table
      cells/<key>.parquet         one row per finished cell, immutable
      predictions/<key>.parquet   per-example probabilities of that cell
      artifacts/<key>.npz         small arrays of that cell, for figures
      failures/<key>.parquet      one row per cell that failed; gone once the cell succeeds
      quarantine/                 what was damaged, or not what its key says; kept, never read
      suspects/<key>              a note: a reader found this cell's predictions damaged, and the
                                  next run looks at them
      */_compact-<hash>.parquet   many cells, predictions or failures in one file; made while the
                                  study runs, so that few files are single ones at any moment
      lock, lock.json             held by the controller that is running, and its name
      running.json                what it computes now

A file appears under its final name only when it is whole: temporary file, fsync, rename.
"""
