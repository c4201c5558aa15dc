"""What is measured on a GPU: `bench_gpu` runs these parts and writes their rows."""
